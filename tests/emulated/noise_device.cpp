// The device side of the noise (csrc/cuda/noise.cuh, DeviceMath), compiled for the CPU: same source, same bits?
#include <math.h>
#include <stdint.h>
#include <string.h>

#define __host__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define BDGF_CUDA_EMULATION
#define BDGF_ISA device

static inline uint32_t __umulhi(uint32_t a, uint32_t b) { return static_cast<uint32_t>((uint64_t{a} * b) >> 32); }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline float __int2float_rn(int32_t a) { return static_cast<float>(a); }
static inline int32_t __float_as_int(float a) {
  int32_t i;
  memcpy(&i, &a, 4);
  return i;
}
static inline float __int_as_float(int32_t a) {
  float f;
  memcpy(&f, &a, 4);
  return f;
}

#include "cuda/noise.cuh"

extern "C" void fill(float* out, uint64_t seed, int purpose, const int64_t* seed_at, const int64_t* stream_at,
                     const int64_t* ids, const int64_t* origin, int64_t extent_h, int64_t extent_w, int64_t batch,
                     int64_t channels, int64_t height, int64_t width) {
  bdgf::NoiseAddress a{};
  a.seed = seed, a.purpose = bdgf::device::purpose_constant(purpose), a.seed_at = seed_at, a.stream_at = stream_at;
  a.sample_ids = ids, a.origin = origin, a.extent_h = extent_h, a.extent_w = extent_w, a.batch = batch;
  a.rows = origin ? channels * height : 1;
  a.row_length = origin ? width : channels * height * width;
  a.height = height;
  for (int64_t i = 0; i < bdgf::device::noise_items(a); ++i) {
    float normal[4];
    const bdgf::device::NoiseItem item =
        bdgf::device::noise_item(a, i, bdgf::device::noise_key(a), bdgf::device::noise_stream(a), normal);
    for (int j = item.begin; j < item.end; ++j) out[item.position + j] = normal[j];
  }
}
