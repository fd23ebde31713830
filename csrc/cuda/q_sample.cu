#define BDGF_ISA device
#include "cuda/q_sample.cuh"

#include "cuda/kernels.h"
#include "cuda/sample_loop.h"

namespace bdgf {
namespace device {

template <class T>
static void run_q_sample(const QSampleArgs& args, cudaStream_t stream) {
  QSampleWork work{};
  SampleView own = split_view(1, args.channels * args.pixels);
  own.present = true;
  work.args = args;
  work.pixels = divider(args.pixels);
  work.loop = make_sample_loop<T>(args.noise, {&args.x0, &args.out, &own}, work.t, nullptr, args.channel_mask == nullptr);
  BDGF_LAUNCH(q_sample_kernel<T>, grid_of(work.loop, 256), 256, 0, stream, work);
}

}  // namespace device
namespace cuda {

void q_sample(const QSampleArgs& args, const CudaLaunch& launch) {
  check_same_storage("q_sample", args.x0, args.out, "out");
  const DeviceGuard guard(launch.device, "q_sample");
  for_storage(args.x0.dtype, [&](auto t) { device::run_q_sample<decltype(t)>(args, stream_of(launch)); });
  check_cuda(cudaGetLastError(), "q_sample", sample_text(args.batch, args.channels * args.pixels));
}

}  // namespace cuda
}  // namespace bdgf
