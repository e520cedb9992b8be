// Mistakes in the data that only the device can see: a NaN, a token id outside of its table. Kernels note the
// first one; the host learns of it when it next waits, so that no check stops the stream.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "context.h"

namespace kotoba::cuda {

// In device memory.
struct ReportState {
  static constexpr unsigned long long kNone = ~0ull;
  unsigned long long position;  // of the first mistake that the running check saw; kNone between checks
  int32_t check;                // the first check that failed, by its number from 1 on; 0: none did
  int32_t bits;                 // what it found
  int64_t at;                   // and where
};

class Report {
 public:
  // Makes the error of a check that failed.
  using Describe = std::function<Error(int64_t position, int32_t bits)>;

  Report(const Context& context);

  // Of the check whose kernels follow: they note positions with note(), then settle() is launched once.
  ReportState* begin(Describe describe);
  // `values`: 4 bytes for each position, of which those of the first mistake are kept. Rows may be strided.
  void settle(const int32_t* values, int64_t cols, int64_t row_stride);

  // Waits, and throws what the first check that failed since the last call found.
  void raise();

  // Checks between the two belong to a graph, which runs them at every launch: they are known until forget().
  void begin_capture() { captured_.emplace(); }
  std::vector<int32_t> end_capture();
  void forget(const std::vector<int32_t>& captured);
  void expect() { expects_ = true; }  // such a graph was launched

 private:
  using Checks = std::map<int32_t, Describe>;
  void reset();

  const Context& context_;
  Scratch state_;
  Checks checks_, captured_checks_;  // since the last raise(), and of graphs
  std::optional<std::vector<int32_t>> captured_;
  int32_t last_ = 0;
  bool expects_ = false;
};

}  // namespace kotoba::cuda
