#include "uploader.h"

#include "staging.h"

namespace kotoba::cuda {

Uploader::Uploader(int device) : device_(device), thread_([this] { run(); }) {}

Uploader::~Uploader() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Uploader::add(BlockPtr to, std::shared_ptr<MappedFile> file, int64_t offset, int64_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back({std::move(to), std::move(file), offset, bytes});
    ++open_;
  }
  changed_.notify_all();
}

void Uploader::wait() {
  if (open_.load(std::memory_order_acquire) > 0) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return (jobs_.empty() && !busy_) || stopping_; });
  }
  const std::lock_guard lock(mutex_);
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void Uploader::run() {
  std::unique_ptr<Stream> stream;
  std::unique_ptr<Staging> staging;
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
    if (stopping_) return;
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    busy_ = true;
    lock.unlock();
    std::exception_ptr failure;
    try {
      if (!stream) {
        check(cudaSetDevice(device_), "choosing the device");
        stream = std::make_unique<Stream>();
        staging = std::make_unique<Staging>();
      }
      TensorView bytes;
      bytes.data = job.to->data;
      bytes.dtype = DType::U8;
      bytes.rank = 1;
      bytes.shape[0] = bytes.row_stride = job.bytes;
      staging->upload(*stream, bytes, job.file->data() + job.offset);
      stream->wait();
    } catch (...) {
      failure = std::current_exception();
    }
    job = {};
    lock.lock();
    busy_ = false;
    --open_;
    if (failure) failure_ = failure;
    changed_.notify_all();
  }
}

}  // namespace kotoba::cuda
