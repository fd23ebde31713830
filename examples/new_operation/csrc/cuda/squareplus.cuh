// squareplus on CUDA (bdgf/squareplus.h): an element a thread and round of the grid.
#pragma once
#include "bdgf/squareplus.h"
#include "cuda/storage.cuh"

namespace bdgf {
namespace BDGF_ISA {

template <class T>
__global__ void __launch_bounds__(256) squareplus_kernel(const SquareplusArgs a) {
  BDGF_THREADS(256);
  for (int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x; i < a.x.numel; i += (int64_t)gridDim.x * 256) {
    const float x = widen(((const T*)a.x.data)[i]);
    store_rounded((T*)a.out.data + i, 0.5f * (x + __fsqrt_rn(__fmaf_rn(x, x, a.b))));
  }
}

template <class T>
__global__ void __launch_bounds__(256) squareplus_backward_kernel(const SquareplusArgs a) {
  BDGF_THREADS(256);
  for (int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x; i < a.x.numel; i += (int64_t)gridDim.x * 256) {
    const float x = widen(((const T*)a.x.data)[i]), grad = widen(((const T*)a.grad_out.data)[i]);
    store_rounded((T*)a.grad_x.data + i, 0.5f * grad * (1.0f + x / __fsqrt_rn(__fmaf_rn(x, x, a.b))));
  }
}

}  // namespace BDGF_ISA
}  // namespace bdgf
