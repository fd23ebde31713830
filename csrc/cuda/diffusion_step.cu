#define BDGF_ISA device
#include "cuda/diffusion_step.cuh"

#include "cuda/kernels.h"
#include "cuda/sample_loop.h"

namespace bdgf {
namespace device {

template <class T>
static void run_diffusion_step(const DiffusionStepArgs& args, cudaStream_t stream, bool backward) {
  DiffusionStepWork work{};
  work.noise = args.address;
  work.coefficients = args.coefficients;
  work.clip = args.clip;
  work.draw = args.draw;
  if (backward) {
    work.loop = make_sample_loop<T>(
        args.address, {&args.pred, &args.sample, &args.grad_out, &args.grad_pred, &args.grad_sample}, work.t, nullptr, false);
    BDGF_LAUNCH(diffusion_step_backward_kernel<T>, grid_of(work.loop, 256), 256, 0, stream, work);
  } else {
    const SampleView none;
    work.loop =
        make_sample_loop<T>(args.address, {&args.pred, &args.sample, &args.noise, &args.out, &none}, work.t, nullptr, false);
    BDGF_LAUNCH(diffusion_step_kernel<T>, grid_of(work.loop, 256), 256, 0, stream, work);
  }
}

}  // namespace device
namespace cuda {

static void step(const DiffusionStepArgs& args, const CudaLaunch& launch, bool backward) {
  const char* op = "diffusion_step";
  check_same_storage(op, args.sample, args.pred, "pred");
  check_same_storage(op, args.sample, args.noise, "noise");
  check_same_storage(op, args.sample, args.out, "out");
  check_same_storage(op, args.sample, args.grad_out, "grad_out");
  check_same_storage(op, args.sample, args.grad_pred, "grad_pred");
  check_same_storage(op, args.sample, args.grad_sample, "grad_sample");
  const DeviceGuard guard(launch.device, op);
  for_storage(args.sample.dtype, [&](auto t) { device::run_diffusion_step<decltype(t)>(args, stream_of(launch), backward); });
  check_cuda(cudaGetLastError(), op, sample_text(args.batch, args.elements));
}

void diffusion_step(const DiffusionStepArgs& args, const CudaLaunch& launch) { step(args, launch, false); }
void diffusion_step_backward(const DiffusionStepArgs& args, const CudaLaunch& launch) { step(args, launch, true); }

}  // namespace cuda
}  // namespace bdgf
