#include "uploader.h"

namespace kotoba::cuda {

Uploader::~Uploader() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
  if (engine_) cudaStreamSynchronize(engine_->stream.get());  // it may still read the pinned buffers
}

void Uploader::add(When when, Job job) {
  {
    const std::lock_guard lock(mutex_);
    jobs_[static_cast<size_t>(when)].push_back(std::move(job));
  }
  changed_.notify_all();
}

Uploader::Engine& Uploader::engine() {
  if (!engine_) {
    check(cudaSetDevice(device_), "choosing the device");
    engine_ = std::make_unique<Engine>();
  }
  return *engine_;
}

std::deque<Uploader::Job>* Uploader::next_jobs() {
  for (std::deque<Job>& jobs : jobs_)
    if (!jobs.empty()) return &jobs;
  return nullptr;
}

void Uploader::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || next_jobs(); });
    if (stopping_) return;
    std::deque<Job>& jobs = *next_jobs();
    const Job job = std::move(jobs.front());
    jobs.pop_front();
    lock.unlock();
    job(*this);
    lock.lock();
  }
}

}  // namespace kotoba::cuda
