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
  ++last_;
  if (captured_) {
    captured_->push_back(last_);
    captured_checks_.emplace(last_, std::move(describe));
  } else {
    checks_.emplace(last_, std::move(describe));
    expects_ = true;
  }
  return state_.as<ReportState>();
}

void Report::settle(const int32_t* values, int64_t cols, int64_t row_stride) {
  launch(context_.stream, {"settle_report", 1, 1}, settle_report_kernel, state_.as<ReportState>(), last_,
         values, cols, row_stride);
}

void Report::raise() {
  if (!expects_) return;
  ReportState found = {};
  check(cudaMemcpyAsync(&found, state_.as<ReportState>(), sizeof found, cudaMemcpyDeviceToHost,
                        context_.stream.get()),
        "reading the report");
  context_.stream.wait();
  expects_ = false;
  const Checks checks = std::exchange(checks_, {});
  if (found.check == 0) return;
  reset();
  const auto own = checks.find(found.check);
  throw(own != checks.end() ? own->second : captured_checks_.at(found.check))(found.at, found.bits);
}

std::vector<int32_t> Report::end_capture() {
  std::vector<int32_t> captured = std::move(*captured_);
  captured_.reset();
  return captured;
}

void Report::forget(const std::vector<int32_t>& captured) {
  for (const int32_t check : captured) captured_checks_.erase(check);
}

}  // namespace kotoba::cuda
