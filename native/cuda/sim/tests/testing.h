// A handful of tests that a program runs by name, and what they share.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "../../launch.h"

namespace kotoba::sim::testing {

struct Test {
  const char* name;
  void (*run)();
};
std::vector<Test>& tests();

struct Registered {
  Registered(const char* name, void (*run)()) { tests().push_back({name, run}); }
};
#define SIM_TEST(name)                                             \
  static void name();                                              \
  static const testing::Registered name##_registered{#name, name}; \
  static void name()

inline void expect(bool ok, const std::string& what) {
  if (!ok) throw std::runtime_error("expected " + what);
}

// Device memory that holds `values`; back() waits for the stream and reads it.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values) : count_(values.size()) {
    void* data = nullptr;
    cuda::check(cudaMalloc(&data, count_ * sizeof(T)), "cudaMalloc");
    data_ = static_cast<T*>(data);
    const cuda::Stream stream;
    cuda::check(
        cudaMemcpyAsync(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice, stream.get()),
        "copy");
    stream.wait();
  }
  ~DeviceArray() { cudaFree(data_); }

  T* get() const { return data_; }
  std::vector<T> back(const cuda::Stream& stream) const {
    std::vector<T> values(count_);
    cuda::check(
        cudaMemcpyAsync(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost, stream.get()),
        "copy");
    return values;
  }

 private:
  size_t count_;
  T* data_;
};

// The fault that a launch ends with; empty if none.
template <typename Kernel, typename... Arguments>
std::string fault_of(Kernel* kernel, int64_t blocks, int threads, int64_t shared,
                     const Arguments&... arguments) {
  const cuda::Stream stream;
  try {
    cuda::launch(stream, {"seeded", blocks, threads, shared}, kernel, arguments...);
    stream.wait();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

inline void expect_fault(const std::string& fault, const std::string& part) {
  expect(fault.find(part) != std::string::npos, "a fault with \"" + part + "\", got \"" + fault + "\"");
}

}  // namespace kotoba::sim::testing
