#include "command_queue.h"

#include <chrono>
#include <utility>

#include "errors.h"

namespace kotoba {
namespace {

constexpr size_t kBatch = 32;  // commands handed over at once while nobody waits
// A futex wake costs the enqueuing thread about 1 µs, so the worker looks around this long before it sleeps.
constexpr auto kSpin = std::chrono::microseconds(20);

}  // namespace

CommandQueue::CommandQueue(std::shared_ptr<Backend> backend, Completion completion)
    : backend_(std::move(backend)), completion_(std::move(completion)), worker_([this] { run(); }) {}

CommandQueue::~CommandQueue() { close(); }

void CommandQueue::push(Entry entry) {
  if (closed_) throw Error("ERR_DISPOSED", "device: used after it was closed");
  open_.push_back(std::move(entry));
}

void CommandQueue::enqueue(Command command) {
  if (recording_) {
    recording_->commands.push_back(std::move(command));
    return;
  }
  push({std::move(command)});
  if (open_.size() >= kBatch) submit();
}

void CommandQueue::enqueue_wait(uint64_t id, Command command) {
  require(!recording_, "device: cannot wait for a result while capturing");
  push({std::move(command), id, Kind::kWait});
  submit();
}

void CommandQueue::enqueue_flush(uint64_t id) {
  require(!recording_, "device: cannot flush while capturing");
  push({nullptr, id, Kind::kFlush});
  submit();
}

void CommandQueue::submit() {
  {
    std::lock_guard lock(mutex_);
    submitted_count_.fetch_add(open_.size(), std::memory_order_release);
    for (Entry& entry : open_) submitted_.push_back(std::move(entry));
  }
  open_.clear();
  wake_.notify_one();
}

void CommandQueue::cancel() {
  if (!open_.empty()) submit();
  std::lock_guard lock(mutex_);
  if (executed_count_.load(std::memory_order_acquire) == submitted_count_.load(std::memory_order_relaxed))
    return;
  cancelled_through_ = submitted_count_.load(std::memory_order_relaxed);
  backend_->interrupt(true);
}

void CommandQueue::close() {
  if (closed_) return;
  closed_ = true;
  open_.clear();
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  backend_->interrupt(true);
  wake_.notify_one();
  worker_.join();
  submitted_.clear();
  batch_.clear();
}

void CommandQueue::begin_capture() {
  require(!recording_, "device: a capture is already running");
  recording_ = std::make_shared<Backend::Recording>();
}

std::shared_ptr<Backend::Recording> CommandQueue::end_capture() {
  require(recording_ != nullptr, "device: no capture is running");
  return std::exchange(recording_, nullptr);
}

bool CommandQueue::next_batch() {
  const uint64_t seen = executed_count_.load(std::memory_order_relaxed);
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  while (submitted_count_.load(std::memory_order_acquire) == seen &&
         std::chrono::steady_clock::now() < deadline)
    std::this_thread::yield();
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [this] { return stopping_ || !submitted_.empty(); });
  if (stopping_) return false;
  batch_.swap(submitted_);
  return true;
}

void CommandQueue::run() {
  while (next_batch()) {
    for (Entry& entry : batch_) {
      if (!begin_command()) return;
      execute(entry);
      entry = {};  // lets go of its buffers now, not with the batch
      executed_count_.fetch_add(1, std::memory_order_release);
    }
    batch_.clear();
  }
}

// False when the queue is closing. Clears an interrupt that was meant for commands before this one.
bool CommandQueue::begin_command() {
  std::lock_guard lock(mutex_);
  if (stopping_) return false;
  if (executed_count_.load(std::memory_order_relaxed) >= cancelled_through_) backend_->interrupt(false);
  return true;
}

// Whether the command that is being executed was cancelled.
bool CommandQueue::is_cancelled() {
  std::lock_guard lock(mutex_);
  return executed_count_.load(std::memory_order_relaxed) < cancelled_through_;
}

void CommandQueue::execute(Entry& entry) {
  const auto poison_if_cancelled = [this] {
    if (!poison_ && is_cancelled())
      poison_ = std::make_exception_ptr(Error("ERR_CANCELLED", "device: the queued work was cancelled"));
  };
  poison_if_cancelled();
  if (!poison_ && entry.command) {
    try {
      entry.command(*backend_);
    } catch (...) {
      poison_ = std::current_exception();
    }
    poison_if_cancelled();
  }
  if (entry.kind == Kind::kRun) return;
  try {
    backend_->finish();
  } catch (...) {
    if (!poison_) poison_ = std::current_exception();
  }
  poison_if_cancelled();
  const std::exception_ptr failure = poison_;
  if (entry.kind == Kind::kFlush) poison_ = nullptr;
  completion_(entry.id, failure);
}

}  // namespace kotoba
