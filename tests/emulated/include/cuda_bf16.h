// A stand-in for CUDA's header: storage and conversion only.
#pragma once
#include "bdgf/types.h"
#include "cuda_runtime.h"

struct __nv_bfloat16 {
  uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
static inline float __bfloat162float(__nv_bfloat16 a) { return bdgf::bits_to_float(static_cast<uint32_t>(a.bits) << 16); }
static inline __nv_bfloat16 __float2bfloat16_rn(float a) { return {bdgf::float_to_bf16(a)}; }
static inline __nv_bfloat16 __float2bfloat16(float a) { return __float2bfloat16_rn(a); }
static inline float2 __bfloat1622float2(__nv_bfloat162 a) { return {__bfloat162float(a.x), __bfloat162float(a.y)}; }
static inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) { return {__float2bfloat16_rn(a), __float2bfloat16_rn(b)}; }
