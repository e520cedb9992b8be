#include "report.h"

#include "launch.h"

namespace kotoba::cuda {
namespace {

__global__ void reset_report_kernel(ReportState* state) { *state = {ReportState::kNone, 0, 0, 0}; }

__global__ void settle_report_kernel(ReportState* state, int32_t check, const int32_t* values, int64_t cols,
                                     int64_t row_stride) {
  if (state->position == ReportState::kNone) return;
  if (state->check == 0) {
    const int64_t at = static_cast<int64_t>(state->position);
    state->check = check;
    state->bits = values[at / cols * row_stride + at % cols];
    state->at = at;
  }
  state->position = ReportState::kNone;
}

}  // namespace

Report::Report(const Context& context)
    : context_(context), state_(context.pool, static_cast<int64_t>(sizeof(ReportState))) {
  reset();
}

void Report::reset() {
  launch(context_.stream, {"reset_report", 1, 1}, reset_report_kernel, state_.as<ReportState>());
}

ReportState* Report::begin(Describe describe) {
  checks_.push_back(std::move(describe));
  return state_.as<ReportState>();
}

void Report::settle(const int32_t* values, int64_t cols, int64_t row_stride) {
  launch(context_.stream, {"settle_report", 1, 1}, settle_report_kernel, state_.as<ReportState>(),
         static_cast<int32_t>(checks_.size()), values, cols, row_stride);
}

void Report::raise() {
  if (checks_.empty()) return;
  ReportState found = {};
  check(cudaMemcpyAsync(&found, state_.as<ReportState>(), sizeof found, cudaMemcpyDeviceToHost,
                        context_.stream.get()),
        "reading the report");
  context_.stream.wait();
  const std::vector<Describe> checks = std::exchange(checks_, {});
  if (found.check == 0) return;
  reset();
  throw checks[static_cast<size_t>(found.check - 1)](found.at, found.bits);
}

}  // namespace kotoba::cuda
