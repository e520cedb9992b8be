#include "graphs.h"

namespace kotoba::cuda {
namespace {

constexpr int kMostFailures = 2;  // the first may be that of a kernel that was not loaded yet

}  // namespace

Graph::~Graph() {
  if (exec) cudaGraphExecDestroy(exec);
  for (std::byte* data : scratch) pool->release(data);
}

void Graphs::Replayed::retire() {
  if (!graph) return;
  const std::lock_guard lock(retired->mutex);
  retired->graphs.push_back(std::move(graph));
}

Graphs::Graphs(const Context& context, std::shared_ptr<MemoryPool> pool, WeightStore& weights, Report& report)
    : context_(context), pool_(std::move(pool)), weights_(weights), report_(report) {}

bool Graphs::replay(Backend::Recording& recording, Backend& backend) {
  if (!recording.prepared) recording.prepared = std::make_shared<Replayed>(retired_);
  Replayed& replayed = *static_cast<Replayed*>(recording.prepared.get());
  if (replayed.graph && !launch(replayed)) replayed.retire();  // a weight has moved: captured again
  if (replayed.graph) return true;
  if (replayed.is_calm && replayed.failures < kMostFailures) {
    capture(recording, replayed, backend);
    if (replayed.graph && launch(replayed)) return true;
  }
  const int64_t misses = weights_.misses();
  run(recording, backend);
  replayed.is_calm = weights_.misses() == misses;
  const std::lock_guard lock(mutex_);
  ++use_.commanded;
  return false;
}

bool Graphs::launch(Replayed& replayed) {
  const Graph& graph = *replayed.graph;
  if (!weights_.launch_unmoved(graph.moves, [&] {
        check(cudaGraphLaunch(graph.exec, context_.stream.get()), "launching a graph");
      }))
    return false;
  if (!graph.checks.empty()) report_.expect();
  const std::lock_guard lock(mutex_);
  ++use_.launched;
  return true;
}

void Graphs::run(const Backend::Recording& recording, Backend& backend) const {
  for (const Backend::Command& command : recording.commands) {
    if (backend.interrupted()) return;
    command(backend);
  }
}

// Leaves replayed.graph empty where a graph cannot be had; running the commands then shows what is wrong.
void Graphs::capture(const Backend::Recording& recording, Replayed& replayed, Backend& backend) {
  std::string refusal;
  try {
    replayed.graph = captured(recording, backend);
  } catch (const NotCapturableYet& reason) {
    refusal = reason.what();
  } catch (const std::exception& error) {
    refusal = error.what();
    ++replayed.failures;
  }
  const std::lock_guard lock(mutex_);
  if (replayed.graph) ++use_.captured;
  use_.refusal = refusal;
}

std::unique_ptr<Graph> Graphs::captured(const Backend::Recording& recording, Backend& backend) {
  auto graph = std::make_unique<Graph>();
  graph->pool = pool_;
  graph->moves = weights_.moves();
  begin_capture();
  std::exception_ptr failure;
  try {
    run(recording, backend);
  } catch (...) {
    failure = std::current_exception();
  }
  cudaGraph_t captured = nullptr;
  const cudaError_t status = end_capture(*graph, &captured);
  if (failure || backend.interrupted() || status != cudaSuccess) {
    report_.forget(graph->checks);
    if (captured) cudaGraphDestroy(captured);
    if (failure) std::rethrow_exception(failure);
    check(status, "capturing a graph");
    return nullptr;
  }
  const cudaError_t made = cudaGraphInstantiate(&graph->exec, captured, 0);
  cudaGraphDestroy(captured);
  check(made, "making a graph");
  return graph;
}

void Graphs::begin_capture() {
  weights_.let_go();
  check(cudaStreamBeginCapture(context_.stream.get(), cudaStreamCaptureModeRelaxed), "capturing a graph");
  capturing_ = true;
  pool_->begin_capture();
  weights_.while_capturing(true);
  context_.forms.while_capturing(true);
  report_.begin_capture();
}

cudaError_t Graphs::end_capture(Graph& graph, cudaGraph_t* captured) {
  graph.checks = report_.end_capture();
  context_.forms.while_capturing(false);
  weights_.while_capturing(false);
  graph.scratch = pool_->end_capture();
  capturing_ = false;
  const cudaError_t status = cudaStreamEndCapture(context_.stream.get(), captured);
  if (status != cudaSuccess) cudaGetLastError();
  return status;
}

void Graphs::refuse(const char* what) const {
  if (capturing_) throw std::runtime_error(detail::join("it holds ", what));
}

void Graphs::sweep() {
  std::vector<std::unique_ptr<Graph>> graphs;
  {
    const std::lock_guard lock(retired_->mutex);
    graphs.swap(retired_->graphs);
  }
  for (const auto& graph : graphs) report_.forget(graph->checks);
}

Graphs::Use Graphs::use() const {
  const std::lock_guard lock(mutex_);
  return use_;
}

}  // namespace kotoba::cuda
