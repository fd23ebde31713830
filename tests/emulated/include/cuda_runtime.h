// A stand-in for CUDA's header: as much of the language and the runtime as csrc/cuda uses, on ../emulation.h.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "../emulation.h"

#define BDGF_CUDA_EMULATION

#define __global__
#define __host__
#define __device__
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__ static_assert(false, "declare shared memory by BDGF_SHARED, see csrc/cuda/dialect.h");

#define threadIdx (emulation::here.thread)
#define blockIdx (emulation::here.block)
#define blockDim (emulation::here.block_size)
#define gridDim (emulation::here.grid_size)
static constexpr int warpSize = 32;

// --- vectors ---------------------------------------------------------------------------------------------------------
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// --- arithmetic ------------------------------------------------------------------------------------------------------
template <class T> static inline T min(T a, T b) { return b < a ? b : a; }
template <class T> static inline T max(T a, T b) { return a < b ? b : a; }
static inline uint32_t __umulhi(uint32_t a, uint32_t b) { return static_cast<uint32_t>((uint64_t{a} * b) >> 32); }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline float __fdividef(float a, float b) { return a / b; }
#define __expf(a) expf(a)  // glibc declares a function of this name
#define __logf(a) logf(a)
#define __log2f(a) log2f(a)
static inline float __saturatef(float a) { return a > 0 ? (a < 1 ? a : 1) : 0; }
static inline float rsqrtf(float a) { return 1.0f / sqrtf(a); }
static inline float __int2float_rn(int32_t a) { return static_cast<float>(a); }
static inline int32_t __float_as_int(float a) { int32_t i; memcpy(&i, &a, 4); return i; }
static inline uint32_t __float_as_uint(float a) { uint32_t i; memcpy(&i, &a, 4); return i; }
static inline float __int_as_float(int32_t a) { float f; memcpy(&f, &a, 4); return f; }
static inline float __uint_as_float(uint32_t a) { float f; memcpy(&f, &a, 4); return f; }
static inline int __popc(unsigned a) { return __builtin_popcount(a); }
static inline int __ffs(int a) { return __builtin_ffs(a); }
static inline int __clz(int a) { return a ? __builtin_clz(static_cast<unsigned>(a)) : 32; }
template <class T> static inline T __ldg(const T* p) { return *p; }
template <class T> static inline T __ldcs(const T* p) { return *p; }
template <class T> static inline void __stcs(T* p, T v) { *p = v; }

// --- meetings --------------------------------------------------------------------------------------------------------
static inline void __syncthreads() { emulation::barrier(emulation::Meeting::barrier, 0); }
static inline int __syncthreads_count(int p) { return emulation::barrier(emulation::Meeting::barrier_count, p); }
static inline int __syncthreads_and(int p) { return emulation::barrier(emulation::Meeting::barrier_and, p); }
static inline int __syncthreads_or(int p) { return emulation::barrier(emulation::Meeting::barrier_or, p); }
static inline void __syncwarp(unsigned mask = 0xffffffffu) { emulation::meet(emulation::Meeting::sync_warp, mask, 0, 0, 32); }
static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline unsigned __ballot_sync(unsigned mask, int p) {
  return static_cast<unsigned>(emulation::meet(emulation::Meeting::ballot, mask, p != 0, 0, 32));
}
static inline int __any_sync(unsigned mask, int p) { return __ballot_sync(mask, p) != 0; }
static inline int __all_sync(unsigned mask, int p) { return __ballot_sync(mask, p) == mask; }
template <class T> static inline T __shfl_sync(unsigned mask, T v, int lane, int width = 32) {
  return emulation::exchanged(emulation::Meeting::shuffle, mask, v, lane, width);
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32) {
  return emulation::exchanged(emulation::Meeting::shuffle_up, mask, v, static_cast<int>(by), width);
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32) {
  return emulation::exchanged(emulation::Meeting::shuffle_down, mask, v, static_cast<int>(by), width);
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T v, int with, int width = 32) {
  return emulation::exchanged(emulation::Meeting::shuffle_xor, mask, v, with, width);
}

// --- runtime ---------------------------------------------------------------------------------------------------------
typedef int cudaError_t;
typedef struct EmulatedStream* cudaStream_t;
enum { cudaSuccess = 0 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8, cudaFuncAttributePreferredSharedMemoryCarveout = 9 };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16, cudaDevAttrMaxSharedMemoryPerBlockOptin = 97 };

static inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
static inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
static inline cudaError_t cudaGetLastError() { return emulation::take_error(); }
static inline const char* cudaGetErrorName(cudaError_t) { return "emulated launch"; }
static inline const char* cudaGetErrorString(cudaError_t error) { return emulation::error_text(error); }
static inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? 4 : static_cast<int>(emulation::kOptInShared);
  return cudaSuccess;
}
template <class F> static inline cudaError_t cudaFuncSetAttribute(F* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  return emulation::set_shared_limit(reinterpret_cast<const void*>(kernel), value);
}
static inline cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t) { return memset(p, value, bytes), cudaSuccess; }
