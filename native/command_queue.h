// The ordered command queue of one device. The owner's thread enqueues, one worker thread executes.
//
// Commands gather in an open batch that is handed over when it is full, or when something waits for it: one
// lock and at most one wake per batch. The first failure poisons the queue: later commands are skipped, waits
// reject with that failure, and a flush clears it. cancel() is such a failure (ERR_CANCELLED).
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "backend.h"

namespace kotoba {

class CommandQueue {
 public:
  using Command = Backend::Command;
  // Called on the worker thread when a wait is reached; `failure` is null on success.
  using Completion = std::function<void(uint64_t id, std::exception_ptr failure)>;

  CommandQueue(std::shared_ptr<Backend> backend, Completion completion);
  ~CommandQueue();

  void enqueue(Command command);
  void submit();  // hands the open batch over now
  // After everything enqueued so far: runs `command` unless poisoned, then reports `id`.
  void enqueue_wait(uint64_t id, Command command);
  // The same, and clears the poison.
  void enqueue_flush(uint64_t id);
  void cancel();  // no effect on an idle queue
  void close();   // cancels, joins; idempotent. Waits that were not reached are never reported.
  bool closed() const { return closed_; }

  // Commands enqueued between the two are recorded instead of queued.
  void begin_capture();
  std::shared_ptr<Backend::Recording> end_capture();
  bool capturing() const { return recording_ != nullptr; }

 private:
  enum class Kind : uint8_t { kRun, kWait, kFlush };
  struct Entry {
    Command command;
    uint64_t id = 0;
    Kind kind = Kind::kRun;
  };

  void push(Entry entry);
  bool next_batch();
  void run();
  bool begin_command();
  bool is_cancelled();
  void execute(Entry& entry);

  // Owner's thread
  std::vector<Entry> open_;
  std::shared_ptr<Backend::Recording> recording_;
  bool closed_ = false;

  // Shared
  std::shared_ptr<Backend> backend_;
  Completion completion_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Entry> submitted_;
  std::atomic<uint64_t> submitted_count_{0};
  std::atomic<uint64_t> executed_count_{0};
  bool stopping_ = false;
  uint64_t cancelled_through_ = 0;  // commands before this number are cancelled

  // Worker's thread
  std::vector<Entry> batch_;
  std::exception_ptr poison_;
  std::thread worker_;  // last: starts when everything else is ready
};

}  // namespace kotoba
