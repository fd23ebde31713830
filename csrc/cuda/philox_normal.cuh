// One thread, one Philox block, up to four normals.
#pragma once
#include "cuda/noise.cuh"
#include "cuda/storage.cuh"

namespace bdgf {
namespace BDGF_ISA {

template <class T>
__global__ void __launch_bounds__(256) philox_normal_kernel(T* out, NoiseAddress a) {
  BDGF_THREADS(256);
  const uint64_t key = noise_key(a);
  const uint32_t stream = noise_stream(a);
  const int64_t items = noise_items(a), step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < items; i += step) {
    float normal[4];
    const NoiseItem item = noise_item(a, i, key, stream, normal);
    T* at = out + item.position;
    if (item.begin == 0 && item.end == 4 && pack_aligned<T, 4>(at)) {
      Pack<T, 4> four;
      for (int j = 0; j < 4; ++j) store_rounded(&four.value[j], normal[j]);
      *(Pack<T, 4>*)at = four;
    } else {
      for (int j = 0; j < 4; ++j)
        if (j >= item.begin && j < item.end) store_rounded(at + j, normal[j]);
    }
  }
}

}  // namespace BDGF_ISA
}  // namespace bdgf
