// A stand-in for CUDA's header: storage and conversion only.
#pragma once
#include "bdgf/types.h"
#include "cuda_runtime.h"

struct __half {
  uint16_t bits;
};
struct alignas(4) __half2 {
  __half x, y;
};
static inline float __half2float(__half a) { return bdgf::f16_to_float(a.bits); }
static inline __half __float2half_rn(float a) { return {bdgf::float_to_f16(a)}; }
static inline __half __float2half(float a) { return __float2half_rn(a); }
static inline float2 __half22float2(__half2 a) { return {__half2float(a.x), __half2float(a.y)}; }
static inline __half2 __floats2half2_rn(float a, float b) { return {__float2half_rn(a), __float2half_rn(b)}; }
