#define BDGF_ISA device
#include "cuda/denoising_loss.cuh"

#include "cuda/kernels.h"
#include "cuda/sample_loop.h"

namespace bdgf {
namespace device {

template <class T>
static void run_denoising_loss(const DenoisingLossArgs& args, cudaStream_t stream, bool backward) {
  constexpr int K = kBlocksPerItem<T>;
  DenoisingLossWork work{};
  const SampleView by_channel = split_view(args.channels, args.pixels);
  const bool dense = args.pred.dense && (!args.x0.present || args.x0.dense) && (!args.grad_pred.present || args.grad_pred.dense) &&
                     (!args.grad_x0.present || args.grad_x0.dense) && !args.noise.origin;
  work.noise = args.noise;
  work.schedule = args.schedule;
  work.all_groups = args.groups;
  work.prediction = args.prediction;
  work.hidden_batch_stride = args.hidden_batch_stride;
  work.hidden_group_stride = args.hidden_group_stride;
  work.grad_batch_stride = args.grad_batch_stride;
  work.grad_group_stride = args.grad_group_stride;
  work.wide_x0 = args.x0.present && args.x0.dtype != args.pred.dtype;
  work.loop = make_sample_loop<T>(args.noise, {&args.pred, &args.x0, &args.grad_pred, &args.grad_x0}, work.t,
                           dense || args.groups == 1 ? nullptr : &by_channel);
  // The outermost axis holds channels, or is the one row of all elements, or (for a single group) anything.
  const int64_t outer = work.loop.axes ? work.loop.extent[0].divisor : work.loop.row_length;
  const int64_t sample = args.channels * args.pixels;
  float* partial = args.workspace;
  for (int begin = 0; begin < args.groups; begin += kLossGroups) {
    work.groups = args.groups - begin < kLossGroups ? args.groups - begin : kLossGroups;
    for (int m = 0; m < work.groups; ++m) {
      const int64_t from = args.group_begin[begin + m], to = args.group_begin[begin + m + 1];
      work.elements[m] = (float)(to - from);
      work.group_begin[m] = from / (sample / outer);
      work.group_begin[m + 1] = to / (sample / outer);
      const Part part = part_of_group(work.loop, work.group_begin[m], work.group_begin[m + 1]);
      work.segment_begin[m + 1] = work.segment_begin[m] + (items_of<K>(work.loop, part) + kLossItems - 1) / kLossItems;
    }
    work.hidden = args.hidden ? args.hidden + begin * args.hidden_group_stride : nullptr;
    work.grad_loss = args.grad_loss ? args.grad_loss + begin * args.grad_group_stride : nullptr;
    work.loss = args.loss ? args.loss + begin : nullptr;
    work.partial = partial;
    const int64_t blocks = args.batch * work.segment_begin[work.groups];
    if (backward) {
      BDGF_LAUNCH((denoising_loss_kernel<T, true>), grid_for(blocks, 1), 256, 0, stream, work);
    } else {
      BDGF_LAUNCH((denoising_loss_kernel<T, false>), grid_for(blocks, 1), 256, 0, stream, work);
      BDGF_LAUNCH(denoising_loss_total_kernel, grid_for(args.batch * work.groups, 256), 256, 0, stream, work);
      partial += blocks;
    }
  }
}

}  // namespace device
namespace cuda {

static void loss(const DenoisingLossArgs& args, const CudaLaunch& launch, bool backward) {
  const char* op = "denoising_loss";
  if (args.x0.present && args.x0.dtype != DType::f32) check_same_storage(op, args.pred, args.x0, "x0");
  check_same_storage(op, args.pred, args.grad_pred, "grad_pred");
  check_same_storage(op, args.x0, args.grad_x0, "grad_x0");
  const DeviceGuard guard(launch.device, op);
  for_storage(args.pred.dtype, [&](auto t) { device::run_denoising_loss<decltype(t)>(args, stream_of(launch), backward); });
  check_cuda(cudaGetLastError(), op,
             sample_text(args.batch, args.channels * args.pixels) + ", " + std::to_string(args.groups) + " groups");
}

void denoising_loss(const DenoisingLossArgs& args, const CudaLaunch& launch) { loss(args, launch, false); }
void denoising_loss_backward(const DenoisingLossArgs& args, const CudaLaunch& launch) { loss(args, launch, true); }

}  // namespace cuda
}  // namespace bdgf
