#include "tensor_map.h"

#include "status.h"

#ifndef KOTOBA_CUDA_SIM
#include <cudaTypedefs.h>
#endif

namespace kotoba::cuda {
namespace {

constexpr int kNumberBytes = 2, kMostBox = 256, kAlignment = 16;  // bytes

void require_mappable(const void* data, std::initializer_list<MapDimension> dimensions) {
  require(dimensions.size() == 2 || dimensions.size() == 4, "tensor_map: expected 2 or 4 dimensions, got ",
          dimensions.size());
  require(reinterpret_cast<uintptr_t>(data) % kAlignment == 0,
          "tensor_map: the tensor has to start at a multiple of ", kAlignment, " bytes");
  const MapDimension* first = dimensions.begin();
  require(first->stride == 1 && first->box == kMapColumns, "tensor_map: expected boxes of ", kMapColumns,
          " neighbouring numbers, got ", first->box, " with stride ", first->stride);
  for (const MapDimension* d = first; d != dimensions.end(); ++d) {
    require(d->size >= 1 && d->size < int64_t{1} << 31, "tensor_map: a dimension of ", d->size);
    require(d->box >= 1 && d->box <= kMostBox, "tensor_map: a box of ", d->box, "; at most ", kMostBox);
    require(d == first || (d->stride * kNumberBytes % kAlignment == 0 && d->stride >= 0 &&
                           d->stride < int64_t{1} << 39),
            "tensor_map: a stride of ", d->stride, " numbers; expected a multiple of 8 below 2^39");
  }
}

}  // namespace

#ifdef KOTOBA_CUDA_SIM

TensorMap tensor_map(const void* data, std::initializer_list<MapDimension> dimensions) {
  require_mappable(data, dimensions);
  TensorMap map = {static_cast<const std::byte*>(data), 0, {1, 1, 1, 1}, {}, {1, 1, 1, 1}};
  for (const MapDimension& d : dimensions) {
    map.size[map.rank] = d.size;
    map.stride_bytes[map.rank] = d.stride * kNumberBytes;
    map.box[map.rank++] = d.box;
  }
  return map;
}

#else

namespace {

// From the driver that the runtime has loaded, so that nothing links to it.
PFN_cuTensorMapEncodeTiled_v12000 find_encoder() {
  void* address = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  check(
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &address, 12000, cudaEnableDefault, &found),
      "looking for cuTensorMapEncodeTiled in the driver");
  if (found != cudaDriverEntryPointSuccess || !address)
    throw Error("ERR_DEVICE",
                "cuda: the driver has no cuTensorMapEncodeTiled: update it, or use the device cpu");
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(address);
}

}  // namespace

TensorMap tensor_map(const void* data, std::initializer_list<MapDimension> dimensions) {
  require_mappable(data, dimensions);
  static const PFN_cuTensorMapEncodeTiled_v12000 encode = find_encoder();
  cuuint64_t size[4], stride_bytes[4];
  cuuint32_t box[4], every_one[4] = {1, 1, 1, 1};
  cuuint32_t rank = 0;
  for (const MapDimension& d : dimensions) {
    size[rank] = static_cast<cuuint64_t>(d.size);
    stride_bytes[rank] = static_cast<cuuint64_t>(d.stride * kNumberBytes);
    box[rank++] = static_cast<cuuint32_t>(d.box);
  }
  TensorMap map;
  // Bits are copied as they are, whichever 16-bit type they stand for. The first dimension's stride is
  // implied.
  const CUresult result =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_UINT16, rank, const_cast<void*>(data), size, stride_bytes + 1, box,
             every_one, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    throw Error("ERR_DEVICE",
                detail::join("cuda: cuTensorMapEncodeTiled failed with error ", static_cast<int>(result)));
  return map;
}

#endif

}  // namespace kotoba::cuda
