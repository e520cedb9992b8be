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
  static constexpr const char* kNames[] = {"fp32", "int8"};
  return static_cast<Precision>(index_of(kNames, value.ToString().Utf8Value(), "precision"));
}

Epilogue from_js(CallArgs& args, Napi::Value value, Tag<Epilogue>) {
  static constexpr const char* kActivations[] = {"none", "gelu_tanh", "gelu_erf", "quick_gelu", "silu"};
  Epilogue epilogue;
  if (is_absent(value)) return epilogue;
  require(value.IsObject(), "linear: expected an options object");
  const Tag<TensorView> tensor;
  epilogue.scale = from_js(args, field(value, "scale"), tensor);
  epilogue.bias = from_js(args, field(value, "bias"), tensor);
  epilogue.multiply = from_js(args, field(value, "multiply"), tensor);
  epilogue.add = from_js(args, field(value, "add"), tensor);
  const Napi::Value activation = field(value, "activation");
  if (!is_absent(activation))
    epilogue.activation =
        static_cast<Activation>(index_of(kActivations, activation.ToString().Utf8Value(), "activation"));
  return epilogue;
}

Attention from_js(CallArgs& args, Napi::Value value, Tag<Attention>) {
  require(value.IsObject(), "attention: expected an options object");
  constexpr int64_t kMax = int64_t{1} << 31;
  Attention how;
  how.batch = integer_from_js(field(value, "batch"), "attention: batch", 1, kMax);
  how.heads = integer_from_js(field(value, "heads"), "attention: heads", 1, kMax);
  how.scale = from_js(args, field(value, "scale"), Tag<float>{});
  how.causal = from_js(args, field(value, "causal"), Tag<bool>{});
  how.key_mask = from_js(args, field(value, "keyMask"), Tag<TensorView>{});
  const Napi::Value bias = field(value, "bias");
  if (is_absent(bias)) return how;
  how.bias_table = from_js(args, field(bias, "table"), Tag<TensorView>{});
  how.bidirectional = from_js(args, field(bias, "bidirectional"), Tag<bool>{});
  how.max_distance = integer_from_js(field(bias, "maxDistance"), "attention: maxDistance", 1, kMax);
  return how;
}

}  // namespace kotoba::bindings
