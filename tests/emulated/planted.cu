// Kernels with one known bug each, by which the emulation itself is tested.
#define BDGF_ISA device
#include <string>

#include "cuda/launch.h"
#include "cuda/sample_loop.cuh"
#include "tensor_arg.h"

namespace {

enum Bug { kNone, kMissingBarrier, kMissingWarpBarrier, kStoreOutside, kStoreOutsideShared, kStoreOutsideDynamic, kUnwritten, kUnreachedBarrier,
           kUnreachedShuffle, kBound };

// out[i] = i + its right neighbour's i, through shared memory; then the sum of the warp's 32 i added by shuffles.
template <int kBug>
__global__ void __launch_bounds__(128) neighbours_kernel(float* out, int n) {
  BDGF_THREADS(kBug == kBound ? 64 : 128);
  BDGF_SHARED(float, tile, [128]);
  BDGF_DYNAMIC_SHARED(float, copy);
  const int t = threadIdx.x, i = blockIdx.x * 128 + t;
  if (kBug == kUnreachedBarrier && t == 77) return;
  tile[kBug == kStoreOutsideShared && t == 127 ? 128 : t] = (float)i;
  if (kBug == kMissingWarpBarrier) out[i] = tile[t / 32 * 32 + (t + 1) % 32];
  if (kBug != kMissingBarrier) __syncthreads();
  copy[kBug == kStoreOutsideDynamic && t == 0 ? 128 : t] = tile[(t + 1) % 128];
  __syncthreads();
  float sum = (float)i;
  if (kBug != kUnreachedShuffle || t != 5)
    for (int by = 16; by > 0; by /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, by);
  const unsigned odd = __ballot_sync(0xffffffffu, t % 2);
  if (kBug == kMissingWarpBarrier) return;
  if (kBug == kUnwritten && i == n - 1) return;
  out[kBug == kStoreOutside && i == n - 1 ? n : i] = (float)i + copy[t] + sum + (odd == 0xaaaaaaaau ? 0.0f : 1.0f);
}

template <int kBug>
void run(const bdgf::TensorView& out) {
  const int n = (int)out.numel;
  BDGF_LAUNCH((neighbours_kernel<kBug>), n / 128, 128, 128 * sizeof(float), nullptr, static_cast<float*>(out.data), n);
  bdgf::cuda::check_cuda(cudaGetLastError(), "planted", bdgf::shape_text(out));
}

}  // namespace

int64_t divided(int64_t n, int64_t by) { return bdgf::device::divide(n, bdgf::device::divider(by)); }

void planted(const std::string& bug, bdgf::py::handle value) {
  const bdgf::TensorView out = bdgf::tensor_arg("planted", "out", value);
  if (bug == "none") return run<kNone>(out);
  if (bug == "missing barrier") return run<kMissingBarrier>(out);
  if (bug == "missing warp barrier") return run<kMissingWarpBarrier>(out);
  if (bug == "store outside") return run<kStoreOutside>(out);
  if (bug == "store outside shared memory") return run<kStoreOutsideShared>(out);
  if (bug == "store outside dynamic memory") return run<kStoreOutsideDynamic>(out);
  if (bug == "unwritten") return run<kUnwritten>(out);
  if (bug == "unreached barrier") return run<kUnreachedBarrier>(out);
  if (bug == "unreached shuffle") return run<kUnreachedShuffle>(out);
  if (bug == "launch bound") return run<kBound>(out);
  if (bug == "grid") {
    const dim3 grid(1, 65536);
    BDGF_LAUNCH((neighbours_kernel<kNone>), grid, 128, 512, nullptr, static_cast<float*>(out.data), 128);
  } else {
    BDGF_LAUNCH((neighbours_kernel<kNone>), 1, 128, 60 * 1024, nullptr, static_cast<float*>(out.data), 128);
  }
  bdgf::cuda::check_cuda(cudaGetLastError(), "planted", bdgf::shape_text(out));
}
