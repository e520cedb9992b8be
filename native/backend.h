// THE op list: what a device must do. The CPU implements it in cpu/, CUDA will in cuda/; model code sees no
// more than this. Every op runs on the device's queue thread, in order. Shapes are checked before an op is
// enqueued (op_checks.h), so a backend may trust them. Weights keep the dtype of their file. Activations are
// F32; "inner" ones, which only matmuls and attention read, may be F16 or BF16 where takes_16_bit().
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "errors.h"
#include "op_types.h"
#include "tensor_view.h"

namespace kotoba {

class MappedFile;

struct DeviceInfo {
  std::string name;          // "cpu"
  std::string description;   // "AMD EPYC 9B45, avx512vnni"
  std::string instructions;  // instruction set or compute capability chosen
  int threads = 0;           // CPU threads or GPU multiprocessors
  int64_t memory = 0;        // bytes
};

// What a device that counts has to tell; zeros from one that does not.
struct DeviceUse {
  int64_t budget = 0, used = 0, peak = 0;  // bytes of its memory: what it may take, has now, had at most
  int64_t resident = 0, fetched = 0;       // bytes of weights: there now, copied because an op needed them
  int64_t graphs = 0, launched = 0;        // recordings made into graphs, replays that launched one
  int64_t commanded = 0;                   // replays that ran their commands
  std::string refusal;                     // why the last recording that was tried is no graph; or empty
};

// Device memory. Whoever holds the pointer may use it; commands hold it while they are queued.
struct Block {
  std::byte* data = nullptr;
  int64_t bytes = 0;
  bool recorded = false;       // written by a recording's replays: never handed to anybody else
  std::function<void()> drop;  // gives the memory back; also keeps its owner alive
  Block(std::byte* d, int64_t n, std::function<void()> f) : data(d), bytes(n), drop(std::move(f)) {}
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  ~Block() {
    if (drop) drop();
  }
};
using BlockPtr = std::shared_ptr<Block>;

class Backend {
 public:
  virtual ~Backend() = default;
  virtual DeviceInfo info() const = 0;
  // Whether inner activations may be F16 or BF16, and the precisions of those names exist.
  virtual bool takes_16_bit() const { return false; }
  virtual DeviceUse use() const { return {}; }  // from any thread

  // ---- memory. allocate/release may be called from any thread.
  virtual std::byte* allocate(int64_t bytes) = 0;  // 64-byte aligned; ERR_OUT_OF_MEMORY
  virtual void release(std::byte* data, int64_t bytes) noexcept = 0;
  // Bytes of a mapped file as a weight: on the CPU, memory; elsewhere `data` names it, and only ops may read
  // it.
  virtual BlockPtr adopt(std::shared_ptr<MappedFile> file, int64_t offset, int64_t bytes) = 0;
  // Whether overruns and late uses are noticed of memory that is allocated for one tensor: then none is
  // shared.
  virtual bool watches_memory() const { return false; }

  // ---- copies. `host` is dense, in the view's dtype.
  virtual void upload(TensorView out, const std::byte* host) = 0;
  virtual void download(std::byte* host, TensorView x) = 0;

  // Waits until every command so far is done, where ops return earlier, and throws what went wrong meanwhile.
  virtual void finish() {}

  // ---- ops, in the order of op_checks.h
  // out [m, n] = activation(scale * (x [m, k] · w [n, k]ᵀ) + bias [n]) * multiply [m or groups, n] + add [m,
  // n]
  virtual void linear(TensorView out, TensorView x, TensorView w, Epilogue epilogue, Precision precision) = 0;
  // out, q [batch * queries, heads * head_dim]; k, v [batch * keys, heads * head_dim]
  virtual void attention(TensorView out, TensorView q, TensorView k, TensorView v, Attention how) = 0;
  // out, x [rows, cols]; weight [cols]: x / sqrt(mean(x²) + eps) * weight (arXiv:1910.07467)
  virtual void rms_norm(TensorView out, TensorView x, TensorView weight, float eps) = 0;
  // out, x [rows, cols]; weight, bias [cols]: arXiv:1607.06450
  virtual void layer_norm(TensorView out, TensorView x, TensorView weight, TensorView bias, float eps) = 0;
  // out, x [groups * rows, cols]; shift, scale F32 [groups, cols]: x̂ * (1 + scale) + shift, x̂ normed without
  // weights (arXiv:2212.09748 §3.2)
  virtual void layer_norm_modulated(TensorView out, TensorView x, TensorView shift, TensorView scale,
                                    float eps) = 0;
  // x [batch * tokens, heads * head_dim] to rows of out [batch * longer, heads * head_dim]; weight [head_dim]
  // or empty: no norm; rotation F32 [longer, head_dim], cosine and sine of each pair side by side, or empty:
  // no rotation
  virtual void head_norm_rope(TensorView out, TensorView x, TensorView weight, TensorView rotation,
                              HeadNormRope how) = 0;
  // out [batch * longer, cols], x [batch * tokens, cols]
  virtual void copy_tokens(TensorView out, TensorView x, CopyTokens how) = 0;
  // out, x [rows, cols], may alias
  virtual void activate(TensorView out, TensorView x, Activation activation) = 0;
  // out [rows, cols] = Σ coefficient · x; out may alias any x
  virtual void combine(TensorView out, Terms terms) = 0;

  // ---- images: pixels in rows, channels in columns
  // out [batch * out_height * out_width, n] = the epilogue of x [batch * height * width, c] * w [n, kernel *
  // kernel * c], columns in the order ky, kx, c (conv_weight makes them); on the CPU also [n, c, ky, kx]
  virtual void conv2d(TensorView out, TensorView x, TensorView w, Epilogue epilogue, Conv2d how,
                      Precision precision) = 0;
  // w [n, c * taps] in the order c, ky, kx as files have it; out [n, taps * c], F32 or of w's dtype
  virtual void conv_weight(TensorView out, TensorView w, int64_t taps) = 0;
  // out, x [batch * pixels, c]; weight, bias [c]: arXiv:1803.08494, then the activation
  virtual void group_norm(TensorView out, TensorView x, TensorView weight, TensorView bias,
                          GroupNorm how) = 0;
  // out tokens, x image; and back. F32, dense.
  virtual void patchify(TensorView out, TensorView x, Patches how) = 0;
  virtual void unpatchify(TensorView out, TensorView x, Patches how) = 0;

  // ---- the rest
  // out [tokens, d] = or += table [vocabulary, d][ids [tokens] I32]; an id outside is ERR_TOKEN_ID
  virtual void embedding(TensorView out, TensorView table, TensorView ids, bool accumulate) = 0;
  // out F32, same shape: decodes any weight dtype
  virtual void decode(TensorView out, TensorView x) = 0;
  // out F16, BF16 or a GGUF type that files are written in, x F32, same shape; the device cpu only
  virtual void quantize(TensorView out, TensorView x);
  // out F32 [n, m] = decoded x [m, n]ᵀ
  virtual void transpose(TensorView out, TensorView x) = 0;
  // ERR_NON_FINITE, naming `where`, the position and the value, if x [rows, cols] holds a NaN or an infinity
  virtual void require_finite(TensorView x, std::string where) = 0;

  // ---- capture and replay: runs the commands again, in order. A GPU may build a graph the first time.
  using Command = std::function<void(Backend&)>;
  struct Recording {
    std::vector<Command> commands;
    std::shared_ptr<void> prepared;  // what the backend made of them
  };
  virtual void replay(Recording& recording) {
    for (const Command& command : recording.commands) {
      if (interrupted()) return;
      command(*this);
    }
  }

  // ---- cancelling: ops poll the flag between chunks and return early; the queue reports ERR_CANCELLED.
  void interrupt(bool on) noexcept { interrupted_.store(on, std::memory_order_relaxed); }
  bool interrupted() const noexcept { return interrupted_.load(std::memory_order_relaxed); }

 protected:
  std::atomic<bool> interrupted_{false};
};

inline void Backend::quantize(TensorView, TensorView) {
  throw Error("ERR_DEVICE", "quantize: only the device cpu writes quantised weights");
}

}  // namespace kotoba
