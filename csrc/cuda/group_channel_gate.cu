#define BDGF_ISA device
#include "cuda/group_channel_gate.cuh"

#include "cuda/kernels.h"
#include "cuda/sample_loop.h"

namespace bdgf {
namespace device {

static Image image(const TensorView& t) {
  Image v{};
  if (!t.present) return v;
  const int64_t height = t.shape[2], width = t.shape[3];
  v.data = t.data;
  v.batch = t.stride[0];
  v.channel = t.stride[1];
  v.row = t.stride[2];
  v.column = width == 1 ? t.stride[2] : t.stride[3];
  v.channels = t.shape[1];
  v.pixels = height * width;
  const bool one_stride = height == 1 || width == 1 || t.stride[2] == width * t.stride[3];
  v.width = divider(one_stride ? v.pixels : width);
  v.channels_inner = v.channel == 1 && v.pixels > 1 && v.column != 1;
  const int64_t sample = v.channels * v.pixels;
  v.flat = one_stride && (t.shape[0] == 1 || v.batch == sample) &&
           (v.channels_inner ? v.column == v.channels
                             : (v.column == 1 || v.pixels == 1) && (v.channels == 1 || v.channel == v.pixels));
  return v;
}

static GateWork gate_work(const GroupChannelGateArgs& a) {
  GateWork w{};
  w.x = image(a.x);
  w.guide = image(a.guide);
  w.out = image(a.out);
  auto floats = [](const TensorView& t) { return static_cast<float*>(t.data); };
  w.weight1 = floats(a.weight1);
  w.bias1 = floats(a.bias1);
  w.weight2 = floats(a.weight2);
  w.bias2 = floats(a.bias2);
  w.squeezed = floats(a.squeezed);
  w.gate = floats(a.gate);
  if (a.x.shape[0] > 0x7fffffff / a.groups)
    bad_value("group_channel_gate", "x",
              "has " + std::to_string(a.x.shape[0]) + " samples; batch * groups takes at most 2^31 - 1");
  w.sample_groups = static_cast<uint32_t>(a.x.shape[0] * a.groups);
  w.groups = static_cast<int>(a.groups);
  w.sizes_each = static_cast<int>(a.x.shape[1] / a.groups);
  w.sizes_guide = a.use_guide ? static_cast<int>(a.guide.shape[1] / a.groups) : 0;
  w.hidden_size = static_cast<int>(a.weight1.shape[1]);
  w.in = static_cast<int>(a.weight1.shape[2]);
  w.use_x = a.use_x;
  w.use_guide = a.use_guide;
  w.pixels = divider(w.x.pixels);
  w.each = divider(w.sizes_each);
  w.guide_pixels = divider(w.guide.pixels);
  w.guide_each = divider(w.sizes_guide);
  return w;
}
static GateShape gate_shape(const GroupChannelGateArgs& a) {
  return {a.x.shape[0], a.x.shape[1], a.x.shape[2] * a.x.shape[3], a.use_guide ? a.guide.shape[1] : 0,
          a.use_guide ? a.guide.shape[2] * a.guide.shape[3] : 0, a.groups, a.weight1.shape[1], a.weight1.shape[2]};
}
static int fused_threads(const GateShape& s) {
  const int64_t elements = s.channels / s.groups * s.pixels;
  return elements > 2048 ? 256 : elements > 512 ? 128 : elements > 128 ? 64 : 32;
}

template <class T>
static void scale(const Image& from, const Image& to, const float* gain, const float* offset, int64_t batch, cudaStream_t stream) {
  const Divider inner = divider(to.channels_inner ? to.channels : to.pixels);
  const Divider outer = divider(to.channels_inner ? to.pixels : to.channels);
  const int64_t work = (batch * to.channels * to.pixels * static_cast<int64_t>(sizeof(T)) + 15) / 16;
  BDGF_LAUNCH(gate_scale_kernel<T>, grid_for(work, 256), 256, 0, stream, from, to, gain, offset, batch, inner, outer);
}
template <class T, bool kProduct>
static void sums(const Image& x, const Image& other, int64_t batch, float* partial, cudaStream_t stream) {
  const bool inner = x.channels_inner && (!kProduct || other.channels_inner);
  const int64_t chunk = inner ? kGateChunkInner : kGateChunk;
  const int64_t warps = batch * (inner ? (x.channels + 31) / 32 : x.channels) * ((x.pixels + chunk - 1) / chunk);
  BDGF_LAUNCH((gate_sums_kernel<T, kProduct>), grid_for(warps, 8), 256, 0, stream, x, other, batch, partial);
}

template <class T>
static void gate_forward(const GroupChannelGateArgs& a, cudaStream_t stream) {
  GateWork w = gate_work(a);
  const GateShape s = gate_shape(a);
  const size_t vectors = sizeof(float) * (w.in + w.hidden_size + w.sizes_each);
  if (gate_on_chip(s)) {
    const size_t bytes = vectors + sizeof(float) * w.sizes_each * w.x.pixels;
    BDGF_LAUNCH(gate_fused_kernel<T>, grid_for(w.sample_groups, 1), fused_threads(s), bytes, stream, w);
    return;
  }
  w.partial = static_cast<float*>(a.workspace.data);
  w.guide_partial = w.partial + gate_partial(s.batch, s.channels, s.pixels);
  if (w.use_x) sums<T, false>(w.x, w.x, s.batch, w.partial, stream);
  if (w.use_guide) sums<T, false>(w.guide, w.guide, s.batch, w.guide_partial, stream);
  BDGF_LAUNCH(gate_mlp_kernel, grid_for(w.sample_groups, 1), 128, vectors, stream, w);
  scale<T>(w.x, w.out, w.gate, nullptr, s.batch, stream);
}

template <class T>
static void gate_backward(const GroupChannelGateBwdArgs& args, cudaStream_t stream) {
  const GroupChannelGateArgs& a = args.forward;
  GateWork w = gate_work(a);
  const GateShape s = gate_shape(a);
  auto floats = [](const TensorView& t) { return static_cast<float*>(t.data); };
  w.grad = image(args.grad_out);
  w.grad_x = image(args.grad_x);
  w.grad_guide = image(args.grad_guide);
  w.grad_weight1 = floats(args.grad_weight1);
  w.grad_bias1 = floats(args.grad_bias1);
  w.grad_weight2 = floats(args.grad_weight2);
  w.grad_bias2 = floats(args.grad_bias2);
  w.logit = floats(a.workspace);
  w.hidden = w.logit + s.batch * s.channels;
  w.grad_hidden = w.hidden + s.batch * s.groups * s.hidden;
  const size_t vectors = sizeof(float) * gate_vectors(s);
  if (w.sample_groups && gate_on_chip(s)) {
    const size_t bytes = vectors + 2 * sizeof(float) * w.sizes_each * w.x.pixels;
    cuda::allow_shared(gate_fused_backward_kernel<T>, bytes, "group_channel_gate");
    BDGF_LAUNCH(gate_fused_backward_kernel<T>, grid_for(w.sample_groups, 1), fused_threads(s), bytes, stream, w);
  } else if (w.sample_groups) {
    w.offset = w.grad_hidden + s.batch * s.groups * s.hidden;
    w.guide_offset = w.offset + s.batch * s.channels;
    w.partial = w.guide_offset + s.batch * s.guide_channels;
    sums<T, true>(w.x, w.grad, s.batch, w.partial, stream);
    BDGF_LAUNCH(gate_mlp_backward_kernel, grid_for(w.sample_groups, 1), 128, vectors, stream, w);
    if (w.grad_x.data) scale<T>(w.grad, w.grad_x, w.gate, w.offset, s.batch, stream);
    if (w.grad_guide.data) scale<T>(Image{}, w.grad_guide, nullptr, w.guide_offset, s.batch, stream);
  }
  if (!w.grad_weight1 && !w.grad_bias1 && !w.grad_weight2 && !w.grad_bias2) return;
  const int64_t outputs = s.channels * (s.hidden + 1) + s.groups * s.hidden * (s.in + 1);
  BDGF_LAUNCH(gate_weights_kernel, grid_for(outputs, 32), 512, 0, stream, w, s.batch);
}

}  // namespace device
namespace cuda {

void group_channel_gate_fwd(const GroupChannelGateArgs& a, const CudaLaunch& launch) {
  const DeviceGuard guard(launch.device, "group_channel_gate");
  for_storage(a.x.dtype, [&](auto t) { device::gate_forward<decltype(t)>(a, stream_of(launch)); });
  check_cuda(cudaGetLastError(), "group_channel_gate", shape_text(a.x));
}
void group_channel_gate_bwd(const GroupChannelGateBwdArgs& args, const CudaLaunch& launch) {
  const DeviceGuard guard(launch.device, "group_channel_gate");
  for_storage(args.forward.x.dtype, [&](auto t) { device::gate_backward<decltype(t)>(args, stream_of(launch)); });
  check_cuda(cudaGetLastError(), "group_channel_gate", shape_text(args.forward.x));
}

}  // namespace cuda
}  // namespace bdgf
