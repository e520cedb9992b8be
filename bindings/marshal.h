// JS values → C++ op arguments. All checks of types, handles and ranges live in from_js<T>.
#pragma once

#include <napi.h>

#include <string>
#include <vector>

#include "addon_data.h"
#include "device_state.h"

namespace kotoba::bindings {

// One call's context: which device it is for, and the memory that the command must keep alive.
struct CallArgs {
  Napi::Env env;
  const DeviceState* device;
  std::vector<BlockPtr> keep;
};

template <typename T>
struct Tag {};

TensorView from_js(CallArgs& args, Napi::Value value, Tag<TensorView>);  // undefined: an empty view
Epilogue from_js(CallArgs& args, Napi::Value value, Tag<Epilogue>);
Attention from_js(CallArgs& args, Napi::Value value, Tag<Attention>);
HeadNormRope from_js(CallArgs& args, Napi::Value value, Tag<HeadNormRope>);
CopyTokens from_js(CallArgs& args, Napi::Value value, Tag<CopyTokens>);
Conv2d from_js(CallArgs& args, Napi::Value value, Tag<Conv2d>);
GroupNorm from_js(CallArgs& args, Napi::Value value, Tag<GroupNorm>);
Patches from_js(CallArgs& args, Napi::Value value, Tag<Patches>);
Terms from_js(CallArgs& args, Napi::Value value, Tag<Terms>);
Activation from_js(CallArgs& args, Napi::Value value, Tag<Activation>);
Precision from_js(CallArgs& args, Napi::Value value, Tag<Precision>);
float from_js(CallArgs& args, Napi::Value value, Tag<float>);
bool from_js(CallArgs& args, Napi::Value value, Tag<bool>);
int64_t from_js(CallArgs& args, Napi::Value value, Tag<int64_t>);  // a count: 0 or more
std::string from_js(CallArgs& args, Napi::Value value, Tag<std::string>);

DType dtype_from_js(Napi::Value value);
int64_t integer_from_js(Napi::Value value, const char* what, int64_t minimum, int64_t maximum);
// Dense view without data: at most kMaxRank dimensions, whole blocks in the last one, sizes that cannot
// overflow.
TensorView dense_view_from_js(Napi::Value dtype, Napi::Value shape);

}  // namespace kotoba::bindings
