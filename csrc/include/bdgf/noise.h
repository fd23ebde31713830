// Where an element's noise comes from: the address shared by every op that draws noise (philox_normal, q_sample,
// denoising_loss, ddpm_step, dropout), on the host and on the device.
//
// A tensor (batch, ...) consists of batch * rows rows of row_length contiguous elements each. Elements are numbered in one of two
// counts: in a sample's own count the sample is one row that starts at element 0; in a scene's count a row is one image row of one
// channel and starts at
//   element = (c * extent_h + y0 + y) * extent_w + x0.
#pragma once
#include <stdint.h>

#include "bdgf/philox.h"

#ifdef __CUDACC__
#define BDGF_HOST_DEVICE static __host__ __device__ __forceinline__
#else
#define BDGF_HOST_DEVICE static inline __attribute__((always_inline))
#endif

namespace bdgf {

struct NoiseAddress {
  uint64_t seed;                // mod 2^64; ignored where seed_at is set
  uint64_t purpose;             // purpose_constant(...), XORed into the seed
  const int64_t* seed_at;       // 0-d tensor on the kernel's device, or null
  uint32_t stream;              // ignored where stream_at is set
  const int64_t* stream_at;     // 0-d tensor, or null
  const int64_t* sample_ids;    // [batch], or null: the batch index
  const int64_t* origin;        // [batch, 2] rows and columns, or null: the sample's own count
  int64_t extent_h, extent_w;   // of the scene; with origin only
  int64_t batch, rows, row_length;
  int64_t height;               // rows per channel; with origin only
};

namespace BDGF_ISA {

BDGF_HOST_DEVICE uint64_t noise_key(const NoiseAddress& a) {
  return (a.seed_at ? (uint64_t)*a.seed_at : a.seed) ^ a.purpose;
}
BDGF_HOST_DEVICE uint32_t noise_stream(const NoiseAddress& a) {
  return a.stream_at ? (uint32_t)(uint64_t)*a.stream_at : a.stream;
}
BDGF_HOST_DEVICE uint32_t noise_sample(const NoiseAddress& a, int64_t b) {
  return (uint32_t)(uint64_t)(a.sample_ids ? a.sample_ids[b] : b);
}
// Element number of the first element of a row of sample b.
BDGF_HOST_DEVICE int64_t noise_row_start(const NoiseAddress& a, int64_t b, int64_t row) {
  if (!a.origin) return row * a.row_length;
  int64_t c = row / a.height, y = row % a.height;
  return (c * a.extent_h + a.origin[2 * b] + y) * a.extent_w + a.origin[2 * b + 1];
}

}  // namespace BDGF_ISA
}  // namespace bdgf
