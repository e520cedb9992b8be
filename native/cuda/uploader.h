// Weights go from the mapped file to the device on a thread and a stream of their own, so that loading a
// model blocks neither JavaScript nor the ops of another one.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#include "../backend.h"
#include "../mapped_file.h"
#include "stream.h"

namespace kotoba::cuda {

class Uploader {
 public:
  explicit Uploader(int device);
  ~Uploader();  // drops what has not begun
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;

  // `to` is kept alive until the copy is done. From any thread.
  void add(BlockPtr to, std::shared_ptr<MappedFile> file, int64_t offset, int64_t bytes);
  // Returns when everything added so far has arrived; throws what went wrong with it, once.
  void wait();

 private:
  struct Job {
    BlockPtr to;
    std::shared_ptr<MappedFile> file;
    int64_t offset, bytes;
  };
  void run();

  int device_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> jobs_;
  bool busy_ = false, stopping_ = false;
  std::atomic<int64_t> open_{0};  // jobs that are not done
  std::exception_ptr failure_;
  std::thread thread_;  // last: starts when everything else is ready
};

}  // namespace kotoba::cuda
