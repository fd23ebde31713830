// Storage types on the device: f32, f16 and bf16, widened exactly, rounded to nearest even; up to 16 bytes an access.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

#include "cuda/dialect.h"

namespace bdgf {
namespace BDGF_ISA {

static __device__ __forceinline__ float widen(float v) { return v; }
static __device__ __forceinline__ float widen(__half v) { return __half2float(v); }
static __device__ __forceinline__ float widen(__nv_bfloat16 v) { return __bfloat162float(v); }
static __device__ __forceinline__ void store_rounded(float* p, float v) { *p = v; }
static __device__ __forceinline__ void store_rounded(__half* p, float v) { *p = __float2half_rn(v); }
static __device__ __forceinline__ void store_rounded(__nv_bfloat16* p, float v) { *p = __float2bfloat16_rn(v); }

// N elements that move in one access where their address is a multiple of its size.
template <class T, int N>
struct alignas(N * sizeof(T)) Pack {
  T value[N];
};
template <class T, int N>
static __device__ __forceinline__ bool pack_aligned(const T* p) {
  return (uintptr_t)p % sizeof(Pack<T, N>) == 0;
}

}  // namespace BDGF_ISA
}  // namespace bdgf
