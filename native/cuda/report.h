// Mistakes in the data that only the device can see: a NaN, a token id outside of its table. Kernels note the
// first one; the host learns of it when it next waits, so that no check stops the stream.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "context.h"

namespace kotoba::cuda {

// In device memory.
struct ReportState {
  static constexpr unsigned long long kNone = ~0ull;
  unsigned long long position;  // of the first mistake that the running check saw; kNone between checks
  int32_t check;                // the first check that failed, counted from 1; 0: none did
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

 private:
  void reset();

  const Context& context_;
  Scratch state_;
  std::vector<Describe> checks_;
};

}  // namespace kotoba::cuda
