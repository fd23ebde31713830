#define BDGF_ISA device
#include "cuda/squareplus.cuh"

#include "cuda/kernels.h"
#include "cuda/launch.h"

namespace bdgf {
namespace cuda {

void squareplus_fwd(const SquareplusArgs& a, const CudaLaunch& launch) {
  const DeviceGuard guard(launch.device, "squareplus");
  for_storage(a.x.dtype, [&](auto t) {
    BDGF_LAUNCH(device::squareplus_kernel<decltype(t)>, grid_for(a.x.numel, 256), 256, 0, stream_of(launch), a);
  });
  check_cuda(cudaGetLastError(), "squareplus", shape_text(a.x));
}

void squareplus_bwd(const SquareplusArgs& a, const CudaLaunch& launch) {
  const DeviceGuard guard(launch.device, "squareplus");
  for_storage(a.x.dtype, [&](auto t) {
    BDGF_LAUNCH(device::squareplus_backward_kernel<decltype(t)>, grid_for(a.x.numel, 256), 256, 0, stream_of(launch), a);
  });
  check_cuda(cudaGetLastError(), "squareplus", shape_text(a.x));
}

}  // namespace cuda
}  // namespace bdgf
