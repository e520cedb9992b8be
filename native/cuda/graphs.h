// Recordings as CUDA graphs: a replay captures the commands, which runs nothing, and every one is a single
// launch from then on. Where something has to be made or copied first, a replay runs the commands and the
// next one captures. A recording that a graph cannot hold (a host wait, a copy from the host, weights that do
// not stay) runs its commands each time.
#pragma once

#include "../backend.h"
#include "report.h"
#include "weight_store.h"

namespace kotoba::cuda {

// A captured recording, and what its launches touch.
struct Graph {
  cudaGraphExec_t exec = nullptr;
  std::shared_ptr<MemoryPool> pool;
  std::vector<std::byte*> scratch;  // blocks of `pool`
  std::vector<int32_t> checks;      // of the report
  int64_t moves = 0;                // WeightStore::moves() when it was captured

  Graph() = default;
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
};

class Graphs {
 public:
  Graphs(const Context& context, std::shared_ptr<MemoryPool> pool, WeightStore& weights, Report& report);

  // Runs the recording on the stream in one way or another. True if it was one launch.
  bool replay(Backend::Recording& recording, Backend& backend);
  // Throws while a capture runs; `what`: "a copy from the host".
  void refuse(const char* what) const;
  bool capturing() const { return capturing_; }
  // Destroys the graphs of recordings that are gone. The stream is idle.
  void sweep();

  struct Use {
    int64_t captured = 0, launched = 0, commanded = 0;  // graphs made; replays by graph, by commands
    std::string refusal;                                // why the last recording was not captured
  };
  Use use() const;

 private:
  // Graphs of recordings that are gone, which may be any thread's doing.
  struct Retired {
    std::mutex mutex;
    std::vector<std::unique_ptr<Graph>> graphs;
  };
  // What a Recording keeps of us.
  struct Replayed {
    std::shared_ptr<Retired> retired;
    std::unique_ptr<Graph> graph;
    bool is_calm = true;  // the weights of the last run were all there
    int failures = 0;     // of captures

    explicit Replayed(std::shared_ptr<Retired> r) : retired(std::move(r)) {}
    ~Replayed() { retire(); }
    void retire();
  };
  bool launch(Replayed& replayed);
  void run(const Backend::Recording& recording, Backend& backend) const;
  void capture(const Backend::Recording& recording, Replayed& replayed, Backend& backend);
  std::unique_ptr<Graph> captured(const Backend::Recording& recording, Backend& backend);
  void begin_capture();
  cudaError_t end_capture(Graph& graph, cudaGraph_t* captured);

  const Context& context_;
  const std::shared_ptr<MemoryPool> pool_;
  WeightStore& weights_;
  Report& report_;
  const std::shared_ptr<Retired> retired_ = std::make_shared<Retired>();
  bool capturing_ = false;
  mutable std::mutex mutex_;
  Use use_;  // guarded
};

}  // namespace kotoba::cuda
