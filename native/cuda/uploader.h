// A thread with a stream of its own that copies from mapped files to the device, so that loading a model
// blocks neither JavaScript nor the ops of another one.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "staging.h"

namespace kotoba::cuda {

class Uploader {
 public:
  struct Engine {
    Stream stream;
    Staging staging;
  };
  // Throws nothing: what goes wrong is for the job to keep.
  using Job = std::function<void(Uploader&)>;
  enum class When { kNow, kSoon, kLater };  // an op waits for it; one will; nobody knows

  explicit Uploader(int device) : device_(device), thread_([this] { run(); }) {}
  ~Uploader();  // drops what has not begun
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;

  void add(When when, Job job);  // from any thread
  Engine& engine();              // for jobs; made when it is first asked for

 private:
  static constexpr size_t kUrgencies = 3;
  std::deque<Job>* next_jobs();
  void run();

  const int device_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> jobs_[kUrgencies];  // by When
  bool stopping_ = false;
  std::unique_ptr<Engine> engine_;
  std::thread thread_;  // last: starts when everything else is ready
};

}  // namespace kotoba::cuda
