#define BDGF_ISA device
#include "cuda/philox_normal.cuh"

#include "cuda/kernels.h"
#include "cuda/sample_loop.h"

namespace bdgf {
namespace device {

template <class T>
static void run_philox_normal(const PhiloxNormalArgs& args, cudaStream_t stream) {
  PhiloxNormalWork work{};
  const SampleView out = sample_view(args.out);
  work.noise = args.noise;
  work.loop = make_sample_loop<T>(args.noise, {&out}, work.t);
  BDGF_LAUNCH(philox_normal_kernel<T>, grid_of(work.loop, 256), 256, 0, stream, work);
}

}  // namespace device
namespace cuda {

void philox_normal(const PhiloxNormalArgs& args, const CudaLaunch& launch) {
  const DeviceGuard guard(launch.device, "philox_normal");
  for_storage(args.out.dtype, [&](auto t) { device::run_philox_normal<decltype(t)>(args, stream_of(launch)); });
  check_cuda(cudaGetLastError(), "philox_normal", shape_text(args.out));
}

}  // namespace cuda
}  // namespace bdgf
