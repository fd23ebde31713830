#define BDGF_ISA device
#include "cuda/philox_normal.cuh"

#include "cuda/kernels.h"
#include "cuda/launch.h"

namespace bdgf {
namespace cuda {

void philox_normal(const PhiloxNormalArgs& args, const CudaLaunch& launch) {
  const DeviceGuard guard(launch.device, "philox_normal");
  const cudaStream_t stream = stream_of(launch);
  const unsigned grid = grid_for(device::noise_items(args.noise), 256);
  if (args.out.dtype == DType::f32) {
    BDGF_LAUNCH(device::philox_normal_kernel<float>, grid, 256, 0, stream, static_cast<float*>(args.out.data), args.noise);
  } else if (args.out.dtype == DType::f16) {
    BDGF_LAUNCH(device::philox_normal_kernel<__half>, grid, 256, 0, stream, static_cast<__half*>(args.out.data), args.noise);
  } else {
    BDGF_LAUNCH(device::philox_normal_kernel<__nv_bfloat16>, grid, 256, 0, stream, static_cast<__nv_bfloat16*>(args.out.data), args.noise);
  }
  check_cuda(cudaGetLastError(), "philox_normal", shape_text(args.out));
}

}  // namespace cuda
}  // namespace bdgf
