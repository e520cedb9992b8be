// group_norm: out[p, c] = act((x[p, c] - mean) / sqrt(variance + eps) * weight[c] + bias[c]), mean and
// variance over all pixels and the adjacent channels of a group, image by image (arXiv:1803.08494).
//
// Two trips through memory: one for the moments, one to write. The moments of a piece of pixels are taken in
// two passes while it lies in the cache, summing deviations from the piece's own mean in FP32; pieces are
// merged in double. Pieces, their grouping and their order depend on the shape alone.
#include "epilogue.h"
#include "row_loops.h"

namespace kotoba::cpu::KOTOBA_ISA {
namespace {

constexpr int64_t kPieceElements = 16384;  // 64 KB: the second pass finds them in L2
constexpr int64_t kPiecePixels = 128;      // bounds the additions that one FP32 sum sees
constexpr int64_t kPiecesToTask = 4;

constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t padded(int64_t channels) { return (channels + kLanes - 1) / kLanes * kLanes; }

// Of `count` values: m2 is the sum of squared deviations from the mean.
struct Moments {
  double count, mean, m2;

  // Chan, Golub, LeVeque 1979.
  void merge(const Moments& other) {
    if (other.count == 0) return;
    const double total = count + other.count, apart = other.mean - mean;
    mean += apart * other.count / total;
    m2 += other.m2 + apart * apart * count * other.count / total;
    count = total;
  }
};

struct Problem {
  TensorView out, x;
  int64_t batch, pixels, channels, groups;
  int64_t piece;  // pixels
  int64_t tasks;  // to an image, of kPiecesToTask pieces each

  int64_t group_channels() const { return channels / groups; }
};

// sums[i][c] = Σ over pixels of term i of f(x[pixel, c], c, terms), in whole vectors: sums are padded.
template <int kSums, typename F>
KOTOBA_INLINE void sum_pixels(const Problem& p, const float* x, int64_t pixels, float* const (&sums)[kSums],
                              const F& f) {
  const int64_t stride = p.x.row_stride;
  const auto add = [&](int64_t c, const VF(&terms)[kSums]) {
    for (int i = 0; i < kSums; ++i) v_store(sums[i] + c, v_add(v_load(sums[i] + c), terms[i]));
  };
  for (float* line : sums) memset(line, 0, padded(p.channels) * sizeof(float));
  const int64_t whole = p.channels / kLanes * kLanes, quads = pixels / 4 * 4;
  for (int64_t r = 0; r < quads; r += 4)
    for (int64_t c = 0; c < whole; c += kLanes) {
      VF a[kSums], b[kSums], d[kSums], e[kSums];
      const float* row = x + r * stride + c;
      f(v_load(row), c, a);
      f(v_load(row + stride), c, b);
      f(v_load(row + 2 * stride), c, d);
      f(v_load(row + 3 * stride), c, e);
      for (int i = 0; i < kSums; ++i) a[i] = v_add(v_add(a[i], b[i]), v_add(d[i], e[i]));
      add(c, a);
    }
  for (int64_t r = 0; r < pixels; ++r)
    for (int64_t c = r < quads ? whole : 0; c < p.channels; c += kLanes) {
      VF terms[kSums];
      const int64_t n = smaller(kLanes, p.channels - c);
      f(n == kLanes ? v_load(x + r * stride + c) : v_load_partial(x + r * stride + c, n), c, terms);
      add(c, terms);
    }
}

double sum(const float* values, int64_t count) {
  double total = 0;
  for (int64_t i = 0; i < count; ++i) total += values[i];
  return total;
}

// The moments of one piece merged into those of its groups. `work` holds 3 padded lines.
void add_piece(const Problem& p, const float* x, int64_t pixels, float* work, Moments* groups) {
  float *sums = work, *pivots = work + padded(p.channels), *squares = pivots + padded(p.channels);
  const int64_t width = p.group_channels();
  const double count = static_cast<double>(pixels * width);
  sum_pixels(p, x, pixels, {sums}, [](VF v, int64_t, VF(&terms)[1]) { terms[0] = v; });
  for (int64_t g = 0; g < p.groups; ++g) {
    const float mean = static_cast<float>(sum(sums + g * width, width) / count);
    for (int64_t c = 0; c < width; ++c) pivots[g * width + c] = mean;
  }
  sum_pixels(p, x, pixels, {sums, squares}, [&](VF v, int64_t c, VF(&terms)[2]) {
    terms[0] = v_sub(v, v_load(pivots + c));
    terms[1] = v_mul(terms[0], terms[0]);
  });
  for (int64_t g = 0; g < p.groups; ++g) {
    const double rest = sum(sums + g * width, width) / count;  // what rounding left of the mean
    groups[g].merge({count, pivots[g * width] + rest, sum(squares + g * width, width) - rest * rest * count});
  }
}

void take_moments(const Context& context, const Problem& p, Moments* moments) {
  context.pool->run(context.threads, p.batch * p.tasks, [&](int64_t task) {
    if (is_cancelled(context)) return;
    auto* work = static_cast<float*>(
        scratch(Scratch::kThread, 3 * padded(p.channels) * static_cast<int64_t>(sizeof(float))));
    Moments* groups = moments + task * p.groups;
    for (int64_t g = 0; g < p.groups; ++g) groups[g] = {};
    const int64_t image = task / p.tasks, begin = task % p.tasks * kPiecesToTask * p.piece;
    const int64_t end = smaller(begin + kPiecesToTask * p.piece, p.pixels);
    for (int64_t pixel = begin; pixel < end; pixel += p.piece)
      add_piece(p, p.x.row<float>(image * p.pixels + pixel), smaller(p.piece, end - pixel), work, groups);
  });
}

// Of a channel: out = act((x - mean) * scale + shift). `shift` holds what rounding left of the mean, which
// matters where |mean| >> deviation.
struct Coefficients {
  float *mean, *scale, *shift;  // [channels], padded
};

Coefficients coefficients_at(float* data, const Problem& p, int64_t image) {
  const int64_t line = padded(p.channels);
  data += image * 3 * line;
  return {data, data + line, data + 2 * line};
}

// `weight`, `bias`: decoded, [channels].
void find_coefficients(const Problem& p, Moments* moments, const float* weight, const float* bias, float eps,
                       float* data) {
  for (int64_t image = 0; image < p.batch; ++image) {
    const Coefficients to = coefficients_at(data, p, image);
    Moments* first = moments + image * p.tasks * p.groups;
    for (int64_t g = 0; g < p.groups; ++g) {
      Moments& all = first[g];
      for (int64_t task = 1; task < p.tasks; ++task) all.merge(first[task * p.groups + g]);
      const float mean = static_cast<float>(all.mean);
      const double scale = 1 / __builtin_sqrt(all.m2 / all.count + static_cast<double>(eps));
      for (int64_t i = 0; i < p.group_channels(); ++i) {
        const int64_t c = g * p.group_channels() + i;
        to.mean[c] = mean;
        to.scale[c] = static_cast<float>(scale * weight[c]);
        to.shift[c] = static_cast<float>(bias[c] - (all.mean - mean) * scale * weight[c]);
      }
    }
  }
}

template <Activation A>
void write_rows(const Context& context, const Problem& p, float* coefficients) {
  for_each_row(context, p.batch * p.pixels, p.channels, [&](int64_t r) {
    const Coefficients k = coefficients_at(coefficients, p, r / p.pixels);
    const float* x = p.x.row<float>(r);
    map_row(p.out.row<float>(r), p.channels, [&](auto load) {
      return activate<A>(v_fma(v_sub(load(x), load(k.mean)), load(k.scale), load(k.shift)));
    });
  });
}

void write(const Context& context, const Problem& p, float* coefficients, Activation activation) {
  switch (activation) {
    case Activation::kNone:
      return write_rows<Activation::kNone>(context, p, coefficients);
    case Activation::kGeluTanh:
      return write_rows<Activation::kGeluTanh>(context, p, coefficients);
    case Activation::kGeluErf:
      return write_rows<Activation::kGeluErf>(context, p, coefficients);
    case Activation::kQuickGelu:
      return write_rows<Activation::kQuickGelu>(context, p, coefficients);
    case Activation::kSilu:
      return write_rows<Activation::kSilu>(context, p, coefficients);
  }
}

}  // namespace

// out, x: F32 [batch * pixels, c]; weight, bias: [c] of any weight dtype. `out` may alias `x`.
void group_norm(const Context& context, TensorView out, TensorView x, TensorView weight, TensorView bias,
                const GroupNorm& how) {
  if (x.elements() == 0) return;
  Problem p{out, x, how.batch, x.rows() / how.batch, x.cols(), how.groups, 0, 0};
  p.piece = p.channels * kPiecePixels < kPieceElements ? kPiecePixels : kPieceElements / p.channels;
  if (p.piece == 0) p.piece = 1;
  p.tasks = (p.pixels + kPiecesToTask * p.piece - 1) / (kPiecesToTask * p.piece);
  const int64_t line = padded(p.channels), floats = (3 * p.batch + 2) * line,
                moments = p.batch * p.tasks * p.groups;
  auto* data = static_cast<std::byte*>(
      scratch(Scratch::kOp, moments * static_cast<int64_t>(sizeof(Moments)) + floats * 4));
  auto* all = reinterpret_cast<Moments*>(data);
  auto* coefficients = reinterpret_cast<float*>(data + moments * static_cast<int64_t>(sizeof(Moments)));
  float *w = coefficients + 3 * p.batch * line, *b = w + line;
  decode_row(weight.dtype, weight.data, w, p.channels);
  decode_row(bias.dtype, bias.data, b, p.channels);
  take_moments(context, p, all);
  find_coefficients(p, all, w, b, how.eps, coefficients);
  write(context, p, coefficients, how.activation);
}

}  // namespace kotoba::cpu::KOTOBA_ISA
