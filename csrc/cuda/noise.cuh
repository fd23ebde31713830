// Which block of four normals a CUDA work item is, and which elements of the tensor it covers: the device twin of
// cpu/noise.inc. A row of row_length elements that starts anywhere touches at most (row_length + 6) / 4 blocks.
#pragma once
#include <cuda_runtime.h>

#include "bdgf/noise.h"

namespace bdgf {
namespace BDGF_ISA {

static __host__ __device__ __forceinline__ int64_t noise_items_per_row(const NoiseAddress& a) {
  return a.origin ? (a.row_length + 6) / 4 : (a.row_length + 3) / 4;
}
static __host__ __device__ __forceinline__ int64_t noise_items(const NoiseAddress& a) {
  return a.batch * a.rows * noise_items_per_row(a);
}

struct NoiseItem {
  int64_t batch;
  int64_t position;  // in the contiguous tensor, of the block's normal 0 (which may lie before the row)
  int begin, end;    // normals [begin, end) belong to the row; none where begin >= end
};

// Item i of noise_items(a), and its normals.
static __device__ __forceinline__ NoiseItem noise_item(const NoiseAddress& a, int64_t i, uint64_t key, uint32_t stream,
                                                       float normal[4]) {
  const int64_t per_row = noise_items_per_row(a);
  const int64_t row = i / per_row;
  NoiseItem item;
  item.batch = row / a.rows;
  const int64_t start = noise_row_start(a, item.batch, row % a.rows);
  const int64_t block = (start >> 2) + i % per_row;
  const int64_t column = 4 * block - start;  // of normal 0
  item.position = row * a.row_length + column;
  item.begin = column < 0 ? (int)-column : 0;
  item.end = a.row_length - column < 4 ? (int)(a.row_length - column) : 4;
  normal4<DeviceMath>((uint32_t)block, (uint32_t)((uint64_t)block >> 32), noise_sample(a, item.batch), stream, key, normal);
  return item;
}

}  // namespace BDGF_ISA
}  // namespace bdgf
