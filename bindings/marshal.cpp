#include "marshal.h"

#include <cmath>
#include <cstring>

#include "tensor_object.h"

namespace kotoba::bindings {
namespace {

constexpr int64_t kMaxElements = int64_t{1} << 44;

template <size_t N>
int index_of(const char* const (&names)[N], const std::string& name, const char* what) {
  for (size_t i = 0; i < N; ++i)
    if (name == names[i]) return static_cast<int>(i);
  throw Error("ERR_ARGUMENT", detail::join(what, ": unknown name \"", name, "\""));
}

Napi::Value field(Napi::Value object, const char* name) { return object.As<Napi::Object>().Get(name); }

bool is_absent(Napi::Value value) { return value.IsUndefined() || value.IsNull(); }

constexpr int64_t kMaxCount = int64_t{1} << 31;

// A size or position in an options object.
int64_t count_field(Napi::Value object, const char* name, int64_t minimum = 0) {
  return integer_from_js(field(object, name), name, minimum, kMaxCount);
}

}  // namespace

int64_t integer_from_js(Napi::Value value, const char* what, int64_t minimum, int64_t maximum) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : std::nan("");
  require(number == std::floor(number) && number >= double(minimum) && number <= double(maximum), what,
          ": expected an integer from ", minimum, " to ", maximum, ", got ", value.ToString().Utf8Value());
  return static_cast<int64_t>(number);
}

DType dtype_from_js(Napi::Value value) {
  const std::string name = value.ToString().Utf8Value();
  for (int i = 0; i < kDTypeCount; ++i)
    if (name == kDTypes[i].name) return static_cast<DType>(i);
  throw Error("ERR_ARGUMENT", detail::join("tensor: unknown dtype \"", name, "\""));
}

TensorView dense_view_from_js(Napi::Value dtype, Napi::Value shape) {
  require(shape.IsArray(), "tensor: shape must be an array");
  const auto dims = shape.As<Napi::Array>();
  TensorView view;
  view.dtype = dtype_from_js(dtype);
  require(dims.Length() <= TensorView::kMaxRank, "tensor: at most ", TensorView::kMaxRank,
          " dimensions, got ", dims.Length());
  view.rank = static_cast<int>(dims.Length());
  int64_t elements = 1;
  for (int i = 0; i < view.rank; ++i) {
    view.shape[i] = integer_from_js(dims.Get(i), "tensor: dimension", 0, kMaxElements);
    require(view.shape[i] == 0 || elements <= kMaxElements / view.shape[i], "tensor: shape is too large");
    elements *= view.shape[i];
  }
  view.row_stride = view.cols();
  require(view.cols() % info(view.dtype).block == 0, "tensor: ", info(view.dtype).name,
          " needs rows of whole ", info(view.dtype).block, "-weight blocks, got ", view.cols(), " columns");
  return view;
}

TensorView from_js(CallArgs& args, Napi::Value value, Tag<TensorView>) {
  if (is_absent(value)) return {};
  const TensorObject& tensor = TensorObject::from(value);
  require(tensor.allocation().state.get() == args.device, "op: the tensor belongs to another device");
  args.keep.push_back(tensor.allocation().block);
  return tensor.view();
}

float from_js(CallArgs&, Napi::Value value, Tag<float>) {
  require(value.IsNumber(), "op: expected a number");
  return value.As<Napi::Number>().FloatValue();
}

bool from_js(CallArgs&, Napi::Value value, Tag<bool>) { return value.ToBoolean().Value(); }

std::string from_js(CallArgs&, Napi::Value value, Tag<std::string>) {
  require(value.IsString(), "op: expected a string");
  return value.As<Napi::String>().Utf8Value();
}

Precision from_js(CallArgs&, Napi::Value value, Tag<Precision>) {
  static constexpr const char* kNames[] = {"fp32", "int8", "fp16", "bf16"};
  return static_cast<Precision>(index_of(kNames, value.ToString().Utf8Value(), "precision"));
}

Activation from_js(CallArgs&, Napi::Value value, Tag<Activation>) {
  static constexpr const char* kNames[] = {"none", "gelu_tanh", "gelu_erf", "quick_gelu", "silu"};
  if (is_absent(value)) return Activation::kNone;
  return static_cast<Activation>(index_of(kNames, value.ToString().Utf8Value(), "activation"));
}

int64_t from_js(CallArgs&, Napi::Value value, Tag<int64_t>) {
  return integer_from_js(value, "op", 0, kMaxCount);
}

Epilogue from_js(CallArgs& args, Napi::Value value, Tag<Epilogue>) {
  Epilogue epilogue;
  if (is_absent(value)) return epilogue;
  require(value.IsObject(), "linear: expected an options object");
  const Tag<TensorView> tensor;
  epilogue.scale = from_js(args, field(value, "scale"), tensor);
  epilogue.bias = from_js(args, field(value, "bias"), tensor);
  epilogue.multiply = from_js(args, field(value, "multiply"), tensor);
  epilogue.add = from_js(args, field(value, "add"), tensor);
  epilogue.activation = from_js(args, field(value, "activation"), Tag<Activation>{});
  return epilogue;
}

Attention from_js(CallArgs& args, Napi::Value value, Tag<Attention>) {
  require(value.IsObject(), "attention: expected an options object");
  Attention how;
  how.batch = count_field(value, "batch", 1);
  how.heads = count_field(value, "heads", 1);
  how.scale = from_js(args, field(value, "scale"), Tag<float>{});
  how.causal = from_js(args, field(value, "causal"), Tag<bool>{});
  how.key_mask = from_js(args, field(value, "keyMask"), Tag<TensorView>{});
  const Napi::Value bias = field(value, "bias");
  if (is_absent(bias)) return how;
  how.bias_table = from_js(args, field(bias, "table"), Tag<TensorView>{});
  how.bidirectional = from_js(args, field(bias, "bidirectional"), Tag<bool>{});
  how.max_distance = count_field(bias, "maxDistance", 1);
  return how;
}

HeadNormRope from_js(CallArgs& args, Napi::Value value, Tag<HeadNormRope>) {
  require(value.IsObject(), "headNormRope: expected an options object");
  HeadNormRope how;
  how.batch = count_field(value, "batch", 1);
  how.heads = count_field(value, "heads", 1);
  how.offset = count_field(value, "offset");
  how.eps = from_js(args, field(value, "eps"), Tag<float>{});
  return how;
}

CopyTokens from_js(CallArgs&, Napi::Value value, Tag<CopyTokens>) {
  require(value.IsObject(), "copyTokens: expected an options object");
  CopyTokens how;
  how.batch = count_field(value, "batch", 1);
  how.tokens = count_field(value, "tokens");
  how.out_offset = count_field(value, "outOffset");
  how.x_offset = count_field(value, "xOffset");
  return how;
}

Conv2d from_js(CallArgs&, Napi::Value value, Tag<Conv2d>) {
  require(value.IsObject(), "conv2d: expected an options object");
  constexpr int64_t kMaxSide = 1 << 20;
  const auto side = [&](const char* name, int64_t minimum) {
    return integer_from_js(field(value, name), name, minimum, kMaxSide);
  };
  Conv2d how;
  how.batch = count_field(value, "batch", 1);
  how.height = side("height", 1);
  how.width = side("width", 1);
  how.upscale = side("upscale", 1);
  how.kernel = side("kernel", 1);
  how.stride = side("stride", 1);
  how.pad_before = side("padBefore", 0);
  how.pad_after = side("padAfter", 0);
  return how;
}

GroupNorm from_js(CallArgs& args, Napi::Value value, Tag<GroupNorm>) {
  require(value.IsObject(), "groupNorm: expected an options object");
  GroupNorm how;
  how.batch = count_field(value, "batch", 1);
  how.groups = count_field(value, "groups", 1);
  how.eps = from_js(args, field(value, "eps"), Tag<float>{});
  how.activation = from_js(args, field(value, "activation"), Tag<Activation>{});
  return how;
}

Patches from_js(CallArgs& args, Napi::Value value, Tag<Patches>) {
  require(value.IsObject(), "patchify: expected an options object");
  Patches how;
  how.batch = count_field(value, "batch", 1);
  how.channels = count_field(value, "channels", 1);
  how.height = count_field(value, "height", 1);
  how.width = count_field(value, "width", 1);
  how.patch = count_field(value, "patch", 1);
  how.channels_first = from_js(args, field(value, "channelsFirst"), Tag<bool>{});
  return how;
}

// [coefficient, tensor, coefficient, tensor, …]
Terms from_js(CallArgs& args, Napi::Value value, Tag<Terms>) {
  require(value.IsArray(), "combine: expected an array of coefficients and tensors in turn");
  const auto list = value.As<Napi::Array>();
  Terms terms;
  for (uint32_t i = 0; i + 1 < list.Length(); i += 2) {
    terms.coefficients.push_back(from_js(args, list.Get(i), Tag<float>{}));
    terms.tensors.push_back(from_js(args, list.Get(i + 1), Tag<TensorView>{}));
  }
  return terms;
}

}  // namespace kotoba::bindings
