// One thread, one Philox block, up to four normals.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cuda/noise.cuh"

namespace bdgf {
namespace BDGF_ISA {

static __device__ __forceinline__ void store_rounded(float* p, float v) { *p = v; }
static __device__ __forceinline__ void store_rounded(__half* p, float v) { *p = __float2half_rn(v); }
static __device__ __forceinline__ void store_rounded(__nv_bfloat16* p, float v) { *p = __float2bfloat16_rn(v); }

template <class T>
struct alignas(4 * sizeof(T)) Four {
  T value[4];
};

template <class T>
__global__ void philox_normal_kernel(T* out, NoiseAddress a) {
  const uint64_t key = noise_key(a);
  const uint32_t stream = noise_stream(a);
  const int64_t items = noise_items(a), step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < items; i += step) {
    float normal[4];
    const NoiseItem item = noise_item(a, i, key, stream, normal);
    T* at = out + item.position;
    if (item.begin == 0 && item.end == 4 && (uintptr_t)at % sizeof(Four<T>) == 0) {
      Four<T> four;
      for (int j = 0; j < 4; ++j) store_rounded(&four.value[j], normal[j]);
      *(Four<T>*)at = four;
    } else {
      for (int j = 0; j < 4; ++j)
        if (j >= item.begin && j < item.end) store_rounded(at + j, normal[j]);
    }
  }
}

}  // namespace BDGF_ISA
}  // namespace bdgf
