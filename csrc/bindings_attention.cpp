// Attention, gates and the short convolution: tensors in, cheap checks, dispatch. Python validates with better words.
#include "bdgf/causal_conv1d.h"
#include "bdgf/cross_attention.h"
#include "bdgf/group_channel_attention.h"
#include "bdgf/group_channel_gate.h"
#include "cpu/kernel_table.h"
#include "cuda/kernels.h"
#include "tensor_arg.h"

namespace bdgf {
namespace {

// A tensor (or None) of the shape and dtype of `like`.
TensorView like_arg(const char* op, const char* name, py::handle value, const TensorView& like, bool optional = false) {
  TensorView t = optional ? optional_arg(op, name, value) : tensor_arg(op, name, value);
  if (!t.present) return t;
  check_dtype(op, name, t, {like.dtype});
  check_same_device(op, name, t, "the first tensor", like);
  bool same = t.ndim == like.ndim;
  for (int i = 0; same && i < t.ndim; ++i) same = t.shape[i] == like.shape[i];
  if (!same) bad_value(op, name, "has shape " + shape_text(t) + "; expected " + shape_text(like));
  return t;
}

void check_cpu(const char* op, const char* name, const TensorView& t) {
  if (t.device != Device::cpu) bad_value(op, name, "is not on the CPU; this kernel runs there");
}

void check_floats(const char* op, const char* name, const TensorView& t, int64_t least) {
  check_dtype(op, name, t, {DType::f32});
  check_contiguous(op, name, t);
  check_cpu(op, name, t);
  if (t.numel < least) bad_value(op, name, "holds " + std::to_string(t.numel) + " floats; it takes " + std::to_string(least));
}

DType arithmetic(const TensorView& t) { return t.dtype == DType::f64 ? DType::f64 : DType::f32; }

// ------------------------------------------------------------------------------------------------- cross_attention
CrossAttentionArgs attention_args(py::handle query, py::handle key, py::handle value, py::handle key_mask,
                                  py::handle attn_bias, py::handle statistics, double scale, double dropout_p,
                                  py::handle seed) {
  const char* op = "cross_attention";
  CrossAttentionArgs a{};
  a.query = tensor_arg(op, "query", query);
  check_dtype(op, "query", a.query, {DType::f32, DType::f16, DType::bf16, DType::f64});
  check_ndim(op, "query", a.query, 4, 4);
  check_cpu(op, "query", a.query);
  const int64_t batch = a.query.shape[0], heads = a.query.shape[1], rows = a.query.shape[2], d = a.query.shape[3];
  if (d < 1 || d > kMaxHeadDim) bad_value(op, "query", "has depth " + std::to_string(d) + "; it takes 1 to 128");
  a.key = tensor_arg(op, "key", key);
  check_dtype(op, "key", a.key, {a.query.dtype});
  check_shape(op, "key", a.key, {batch, heads, -1, d});
  check_cpu(op, "key", a.key);
  a.value = like_arg(op, "value", value, a.key);
  const int64_t keys = a.key.shape[2];
  if (keys > 0x7fffffff) bad_value(op, "key", "is longer than 2^31 - 1");
  a.key_mask = optional_arg(op, "key_mask", key_mask);
  if (a.key_mask.present) {
    check_dtype(op, "key_mask", a.key_mask, {DType::boolean});
    check_shape(op, "key_mask", a.key_mask, {batch, keys});
    check_cpu(op, "key_mask", a.key_mask);
  }
  a.attn_bias = optional_arg(op, "attn_bias", attn_bias);
  if (a.attn_bias.present) {
    const TensorView& t = a.attn_bias;
    check_dtype(op, "attn_bias", t, {a.query.dtype, DType::f32});
    check_shape(op, "attn_bias", t, {-1, -1, -1, keys});
    check_cpu(op, "attn_bias", t);
    for (int i = 0; i < 3; ++i)
      if (t.shape[i] != 1 && t.shape[i] != a.query.shape[i]) {
        bad_value(op, "attn_bias", "has shape " + shape_text(t) + ", which does not broadcast");
      }
  }
  a.statistics = tensor_arg(op, "statistics", statistics);
  check_dtype(op, "statistics", a.statistics, {arithmetic(a.query)});
  check_shape(op, "statistics", a.statistics, {2, batch, heads, rows});
  check_contiguous(op, "statistics", a.statistics);
  check_cpu(op, "statistics", a.statistics);
  a.scale = scale;
  a.dropout_p = static_cast<float>(dropout_p);
  if (!(dropout_p >= 0 && a.dropout_p < 1)) bad_value(op, "dropout_p", "must be in [0, 1)");
  a.drop_below = dropout_p * 4294967296.0 >= 4294967295.0 ? 0xffffffffu : static_cast<uint32_t>(dropout_p * 4294967296.0);
  a.keep_factor = 1.0 / (1.0 - dropout_p);
  a.seed = counter_arg(op, "seed", seed, a.query, a.seed_at);
  return a;
}

bool keys_are_copied(const CrossAttentionArgs& a) {
  return a.query.dtype != DType::f32 || a.key_mask.present || a.key.stride[3] != 1 || a.value.stride[3] != 1;
}

int64_t workspace_floats(py::handle key, py::handle value, bool masked, bool dropout, bool backward) {
  const TensorView k = tensor_arg("cross_attention", "key", key), v = tensor_arg("cross_attention", "value", value);
  check_ndim("cross_attention", "key", k, 4, 4);
  check_ndim("cross_attention", "value", v, 4, 4);
  if (k.dtype == DType::f64) return 0;
  const bool copied = k.dtype != DType::f32 || masked || k.stride[3] != 1 || v.stride[3] != 1;
  return attention_workspace(k.shape[2], k.shape[3], backward, copied, dropout);
}

void check_workspace(CrossAttentionArgs& a, py::handle workspace, bool backward, int num_threads) {
  a.workspace = tensor_arg("cross_attention", "workspace", workspace);
  const int64_t each = a.query.dtype == DType::f64
                           ? 0
                           : attention_workspace(a.key.shape[2], a.query.shape[3], backward, keys_are_copied(a), a.dropout_p > 0);
  check_floats("cross_attention", "workspace", a.workspace, each * (num_threads < 1 ? 1 : num_threads));
}

void cross_attention_fwd(py::handle out, py::handle statistics, py::handle query, py::handle key, py::handle value,
                         py::handle key_mask, py::handle attn_bias, double scale, double dropout_p, py::handle seed,
                         py::handle workspace, int num_threads) {
  CrossAttentionArgs a = attention_args(query, key, value, key_mask, attn_bias, statistics, scale, dropout_p, seed);
  a.out = like_arg("cross_attention", "out", out, a.query);
  check_workspace(a, workspace, false, num_threads);
  if (a.out.numel == 0) return;
  py::gil_scoped_release release;
  kernels().cross_attention_fwd(a, num_threads);
}

void cross_attention_bwd(py::handle grad_query, py::handle grad_key, py::handle grad_value, py::handle grad_bias,
                         py::handle grad_out, py::handle query, py::handle key, py::handle value, py::handle key_mask,
                         py::handle attn_bias, py::handle statistics, double scale, double dropout_p, py::handle seed,
                         py::handle delta, py::handle workspace, int num_threads) {
  const char* op = "cross_attention";
  CrossAttentionBwdArgs args{};
  args.forward = attention_args(query, key, value, key_mask, attn_bias, statistics, scale, dropout_p, seed);
  const CrossAttentionArgs& a = args.forward;
  args.grad_out = like_arg(op, "grad_out", grad_out, a.query);
  args.grad_query = like_arg(op, "grad_query", grad_query, a.query, true);
  args.grad_key = like_arg(op, "grad_key", grad_key, a.key, true);
  args.grad_value = like_arg(op, "grad_value", grad_value, a.value, true);
  if (a.attn_bias.present) args.grad_bias = like_arg(op, "grad_bias", grad_bias, a.attn_bias, true);
  args.delta = tensor_arg(op, "delta", delta);
  check_dtype(op, "delta", args.delta, {arithmetic(a.query)});
  check_shape(op, "delta", args.delta, {a.query.shape[0], a.query.shape[1], a.query.shape[2]});
  check_cpu(op, "delta", args.delta);
  check_contiguous(op, "delta", args.delta);
  check_workspace(args.forward, workspace, true, num_threads);
  py::gil_scoped_release release;
  kernels().cross_attention_bwd(args, num_threads);
}

// ------------------------------------------------------------------------------------------------- group_channel_gate
// A contiguous parameter (or its gradient, which may be None).
TensorView parameter_arg(const char* op, const char* name, py::handle value, std::initializer_list<int64_t> shape,
                         const TensorView& like, bool optional = false) {
  TensorView t = optional ? optional_arg(op, name, value) : tensor_arg(op, name, value);
  if (!t.present) return t;
  check_dtype(op, name, t, {arithmetic(like)});
  check_shape(op, name, t, shape);
  check_contiguous(op, name, t);
  check_same_device(op, name, t, "the first tensor", like);
  return t;
}

GroupChannelGateArgs gate_args(py::handle x, py::handle guide, py::handle weight1, py::handle bias1, py::handle weight2,
                               py::handle bias2, py::handle squeezed, py::handle gate, int64_t groups, bool use_x,
                               bool use_guide) {
  const char* op = "group_channel_gate";
  GroupChannelGateArgs a{};
  a.x = tensor_arg(op, "x", x);
  check_dtype(op, "x", a.x, {DType::f32, DType::f16, DType::bf16, DType::f64});
  check_ndim(op, "x", a.x, 4, 4);
  const int64_t batch = a.x.shape[0], channels = a.x.shape[1];
  if (groups < 1 || channels % groups) bad_value(op, "groups", "is " + std::to_string(groups) + "; it takes a divisor of C");
  if (!use_x && !use_guide) bad_value(op, "use_x and use_guide", "are both false");
  int64_t in = use_x ? channels / groups : 0;
  if (use_guide) {
    a.guide = tensor_arg(op, "guide", guide);
    check_dtype(op, "guide", a.guide, {a.x.dtype});
    check_ndim(op, "guide", a.guide, 4, 4);
    check_same_device(op, "guide", a.guide, "x", a.x);
    if (a.guide.shape[0] != batch || a.guide.shape[1] % groups) {
      bad_value(op, "guide", "has shape " + shape_text(a.guide) + ", which does not fit x and groups");
    }
    in += a.guide.shape[1] / groups;
  }
  a.weight1 = parameter_arg(op, "weight1", weight1, {groups, -1, in}, a.x);
  const int64_t hidden = a.weight1.shape[1], each = channels / groups;
  a.bias1 = parameter_arg(op, "bias1", bias1, {groups, hidden}, a.x);
  a.weight2 = parameter_arg(op, "weight2", weight2, {groups, each, hidden}, a.x);
  a.bias2 = parameter_arg(op, "bias2", bias2, {groups, each}, a.x);
  a.squeezed = parameter_arg(op, "squeezed", squeezed, {batch, groups, in}, a.x);
  a.gate = parameter_arg(op, "gate", gate, {batch, channels}, a.x);
  a.groups = groups;
  a.use_x = use_x;
  a.use_guide = use_guide;
  return a;
}

// Elements of workspace, in the parameters' dtype.
int64_t gate_workspace(int64_t batch, int64_t channels, int64_t groups, int64_t hidden, int64_t in, bool backward,
                       int num_threads) {
  const int64_t threads = num_threads < 1 ? 1 : num_threads, each = groups < 1 ? 0 : channels / groups;
  if (batch < 0 || channels < 1 || groups < 1 || hidden < 1 || in < 0) return 0;
  const int64_t scratch = threads * gate_scratch(hidden, in, channels, groups), padded = (hidden + 15) / 16 * 16;
  const int64_t vectors = gate_samples(batch, channels, groups, hidden) * (channels + 2 * groups * padded);
  const int64_t double_path = groups * (each + in);
  return backward ? (scratch + vectors > double_path ? scratch + vectors : double_path) : scratch;
}

int64_t gate_workspace_on_gpu(int64_t batch, int64_t channels, int64_t pixels, int64_t guide_channels, int64_t guide_pixels,
                              int64_t groups, int64_t hidden, int64_t in, bool backward) {
  if (batch < 0 || groups < 1) return 0;
  return gate_cuda_workspace({batch, channels, pixels, guide_channels, guide_pixels, groups, hidden, in}, backward);
}

void check_gate_workspace(GroupChannelGateArgs& a, py::handle workspace, bool backward, int num_threads) {
  const char* op = "group_channel_gate";
  a.workspace = tensor_arg(op, "workspace", workspace);
  check_dtype(op, "workspace", a.workspace, {arithmetic(a.x)});
  check_contiguous(op, "workspace", a.workspace);
  check_same_device(op, "workspace", a.workspace, "x", a.x);
  const int64_t least =
      a.x.device == Device::cuda
          ? gate_cuda_workspace(
                {a.x.shape[0], a.x.shape[1], a.x.shape[2] * a.x.shape[3], a.use_guide ? a.guide.shape[1] : 0,
                 a.use_guide ? a.guide.shape[2] * a.guide.shape[3] : 0, a.groups, a.weight1.shape[1], a.weight1.shape[2]},
                backward)
          : gate_workspace(a.x.shape[0], a.x.shape[1], a.groups, a.weight1.shape[1], a.weight1.shape[2], backward, num_threads);
  if (a.workspace.numel < least) bad_value(op, "workspace", "holds too few elements; it takes " + std::to_string(least));
}

void group_channel_gate_fwd(py::handle out, py::handle squeezed, py::handle gate, py::handle x, py::handle guide,
                            py::handle weight1, py::handle bias1, py::handle weight2, py::handle bias2, int64_t groups,
                            bool use_x, bool use_guide, py::handle workspace, int num_threads, py::handle cuda_stream) {
  GroupChannelGateArgs a = gate_args(x, guide, weight1, bias1, weight2, bias2, squeezed, gate, groups, use_x, use_guide);
  a.out = like_arg("group_channel_gate", "out", out, a.x);
  check_gate_workspace(a, workspace, false, num_threads);
  if (a.out.numel == 0) return;
  if (a.x.device == Device::cuda) {
    const CudaLaunch launch = cuda_launch("group_channel_gate", a.x, cuda_stream);
    py::gil_scoped_release release;
    cuda::group_channel_gate_fwd(a, launch);
    return;
  }
  py::gil_scoped_release release;
  kernels().group_channel_gate_fwd(a, num_threads);
}

void group_channel_gate_bwd(py::handle grad_x, py::handle grad_guide, py::handle grad_weight1, py::handle grad_bias1,
                            py::handle grad_weight2, py::handle grad_bias2, py::handle grad_out, py::handle x,
                            py::handle guide, py::handle weight1, py::handle bias1, py::handle weight2, py::handle bias2,
                            py::handle squeezed, py::handle gate, int64_t groups, bool use_x, bool use_guide,
                            py::handle workspace, int num_threads, py::handle cuda_stream) {
  const char* op = "group_channel_gate";
  GroupChannelGateBwdArgs args{};
  args.forward = gate_args(x, guide, weight1, bias1, weight2, bias2, squeezed, gate, groups, use_x, use_guide);
  const GroupChannelGateArgs& a = args.forward;
  const int64_t each = a.x.shape[1] / groups, hidden = a.weight1.shape[1], in = a.weight1.shape[2];
  args.grad_out = like_arg(op, "grad_out", grad_out, a.x);
  args.grad_x = like_arg(op, "grad_x", grad_x, a.x, true);
  if (use_guide) args.grad_guide = like_arg(op, "grad_guide", grad_guide, a.guide, true);
  args.grad_weight1 = parameter_arg(op, "grad_weight1", grad_weight1, {groups, hidden, in}, a.x, true);
  args.grad_bias1 = parameter_arg(op, "grad_bias1", grad_bias1, {groups, hidden}, a.x, true);
  args.grad_weight2 = parameter_arg(op, "grad_weight2", grad_weight2, {groups, each, hidden}, a.x, true);
  args.grad_bias2 = parameter_arg(op, "grad_bias2", grad_bias2, {groups, each}, a.x, true);
  check_gate_workspace(args.forward, workspace, true, num_threads);
  if (a.x.device == Device::cuda) {
    const CudaLaunch launch = cuda_launch(op, a.x, cuda_stream);
    py::gil_scoped_release release;
    cuda::group_channel_gate_bwd(args, launch);
    return;
  }
  py::gil_scoped_release release;
  kernels().group_channel_gate_bwd(args, num_threads);
}

// -------------------------------------------------------------------------------------------- group_channel_attention
int64_t group_workspace(int64_t batch, int64_t channels, int64_t length, int64_t groups, bool backward, int num_threads) {
  if (batch < 0 || channels < 1 || length < 1 || groups < 1 || channels < groups) return 0;
  const int64_t size = channels / groups, threads = num_threads < 1 ? 1 : num_threads;
  if (size > kMaxGroupSize) return 0;
  const int64_t double_path = groups * (3 * size * size + 2 * size);
  const int64_t floats = threads * group_scratch(size, length) + (backward ? batch * groups : 0);
  return floats > double_path ? floats : double_path;
}

GroupChannelAttentionArgs group_args(py::handle q, py::handle k, py::handle v, py::handle temperature, int64_t groups,
                                     py::handle workspace, bool backward, int num_threads) {
  const char* op = "group_channel_attention";
  GroupChannelAttentionArgs a{};
  a.q = tensor_arg(op, "q", q);
  check_dtype(op, "q", a.q, {DType::f32, DType::f16, DType::bf16, DType::f64});
  check_ndim(op, "q", a.q, 3, 3);
  check_cpu(op, "q", a.q);
  a.k = like_arg(op, "k", k, a.q);
  a.v = like_arg(op, "v", v, a.q);
  const int64_t channels = a.q.shape[1];
  if (groups < 1 || channels < 1 || channels % groups) {
    bad_value(op, "groups", "is " + std::to_string(groups) + "; it takes a divisor of C");
  }
  if (channels / groups > kMaxGroupSize) bad_value(op, "groups", "leaves more than 256 channels in a group");
  if (a.q.shape[2] < 1) bad_value(op, "q", "has length 0");
  a.temperature = tensor_arg(op, "temperature", temperature);
  check_dtype(op, "temperature", a.temperature, {arithmetic(a.q)});
  check_shape(op, "temperature", a.temperature, {groups});
  check_cpu(op, "temperature", a.temperature);
  a.groups = groups;
  a.workspace = tensor_arg(op, "workspace", workspace);
  check_dtype(op, "workspace", a.workspace, {arithmetic(a.q)});
  check_contiguous(op, "workspace", a.workspace);
  check_cpu(op, "workspace", a.workspace);
  if (a.workspace.numel < group_workspace(a.q.shape[0], channels, a.q.shape[2], groups, backward, num_threads)) {
    bad_value(op, "workspace", "is smaller than group_channel_attention_workspace says");
  }
  return a;
}

void group_channel_attention_fwd(py::handle out, py::handle q, py::handle k, py::handle v, py::handle temperature,
                                 int64_t groups, py::handle workspace, int num_threads) {
  GroupChannelAttentionArgs a = group_args(q, k, v, temperature, groups, workspace, false, num_threads);
  a.out = like_arg("group_channel_attention", "out", out, a.q);
  py::gil_scoped_release release;
  kernels().group_channel_attention_fwd(a, num_threads);
}

void group_channel_attention_bwd(py::handle grad_q, py::handle grad_k, py::handle grad_v, py::handle grad_temperature,
                                 py::handle grad_out, py::handle q, py::handle k, py::handle v, py::handle temperature,
                                 int64_t groups, py::handle workspace, int num_threads) {
  const char* op = "group_channel_attention";
  GroupChannelAttentionBwdArgs args{};
  args.forward = group_args(q, k, v, temperature, groups, workspace, true, num_threads);
  args.grad_out = like_arg(op, "grad_out", grad_out, args.forward.q);
  args.grad_q = like_arg(op, "grad_q", grad_q, args.forward.q, true);
  args.grad_k = like_arg(op, "grad_k", grad_k, args.forward.q, true);
  args.grad_v = like_arg(op, "grad_v", grad_v, args.forward.q, true);
  args.grad_temperature = like_arg(op, "grad_temperature", grad_temperature, args.forward.temperature, true);
  py::gil_scoped_release release;
  kernels().group_channel_attention_bwd(args, num_threads);
}

// ---------------------------------------------------------------------------------------------------- causal_conv1d
CausalConv1dArgs conv_args(py::handle x, py::handle weight, py::handle bias, bool silu) {
  const char* op = "causal_conv1d";
  CausalConv1dArgs a{};
  a.x = tensor_arg(op, "x", x);
  check_dtype(op, "x", a.x, {DType::f32, DType::f16, DType::bf16, DType::f64});
  check_ndim(op, "x", a.x, 3, 3);
  check_cpu(op, "x", a.x);
  if (a.x.shape[2] < 1) bad_value(op, "x", "has length 0");
  a.weight = parameter_arg(op, "weight", weight, {a.x.shape[1], -1}, a.x);
  if (a.weight.shape[1] < 2 || a.weight.shape[1] > 4) {
    bad_value(op, "weight", "has width " + std::to_string(a.weight.shape[1]) + "; it takes 2 to 4");
  }
  a.bias = parameter_arg(op, "bias", bias, {a.x.shape[1]}, a.x, true);
  a.silu = silu;
  return a;
}

void causal_conv1d_fwd(py::handle out, py::handle x, py::handle weight, py::handle bias, bool silu, int num_threads) {
  CausalConv1dArgs a = conv_args(x, weight, bias, silu);
  a.out = like_arg("causal_conv1d", "out", out, a.x);
  py::gil_scoped_release release;
  kernels().causal_conv1d_fwd(a, num_threads);
}

void causal_conv1d_bwd(py::handle grad_x, py::handle grad_weight, py::handle grad_bias, py::handle grad_out, py::handle x,
                       py::handle weight, py::handle bias, bool silu, int num_threads) {
  const char* op = "causal_conv1d";
  CausalConv1dBwdArgs args{};
  args.forward = conv_args(x, weight, bias, silu);
  const TensorView& like = args.forward.x;
  args.grad_out = like_arg(op, "grad_out", grad_out, like);
  args.grad_x = like_arg(op, "grad_x", grad_x, like, true);
  args.grad_weight = parameter_arg(op, "grad_weight", grad_weight, {like.shape[1], args.forward.weight.shape[1]}, like, true);
  args.grad_bias = parameter_arg(op, "grad_bias", grad_bias, {like.shape[1]}, like, true);
  py::gil_scoped_release release;
  kernels().causal_conv1d_bwd(args, num_threads);
}

}  // namespace

void bind_attention(py::module_& m) {
  m.def("group_channel_attention_workspace", &group_workspace, py::arg("batch"), py::arg("channels"), py::arg("length"),
        py::arg("groups"), py::arg("backward"), py::arg("num_threads"), "Elements of workspace.");
  m.def("group_channel_attention_fwd", &group_channel_attention_fwd, "Fill out: bdgf_fast.ops.group_channel_attention.");
  m.def("group_channel_attention_bwd", &group_channel_attention_bwd, "Fill the gradients that are not None.");
  m.def("causal_conv1d_fwd", &causal_conv1d_fwd, "Fill out: bdgf_fast.ops.causal_conv1d.");
  m.def("causal_conv1d_bwd", &causal_conv1d_bwd, "Fill the gradients that are not None.");
  m.def("group_channel_gate_workspace", &gate_workspace, py::arg("batch"), py::arg("channels"), py::arg("groups"),
        py::arg("hidden"), py::arg("in"), py::arg("backward"), py::arg("num_threads"), "Elements of workspace.");
  m.def("group_channel_gate_cuda_workspace", &gate_workspace_on_gpu, "Elements of workspace on a GPU.");
  m.def("group_channel_gate_fwd", &group_channel_gate_fwd,
        py::arg("out"), py::arg("squeezed"), py::arg("gate"), py::arg("x"), py::arg("guide"), py::arg("weight1"),
        py::arg("bias1"), py::arg("weight2"), py::arg("bias2"), py::arg("groups"), py::arg("use_x"), py::arg("use_guide"),
        py::arg("workspace"), py::arg("num_threads"), py::arg("cuda_stream") = py::none(),
        "Fill out, squeezed, gate: bdgf_fast.ops.group_channel_gate.");
  m.def("group_channel_gate_bwd", &group_channel_gate_bwd,
        py::arg("grad_x"), py::arg("grad_guide"), py::arg("grad_weight1"), py::arg("grad_bias1"), py::arg("grad_weight2"),
        py::arg("grad_bias2"), py::arg("grad_out"), py::arg("x"), py::arg("guide"), py::arg("weight1"), py::arg("bias1"),
        py::arg("weight2"), py::arg("bias2"), py::arg("squeezed"), py::arg("gate"), py::arg("groups"), py::arg("use_x"),
        py::arg("use_guide"), py::arg("workspace"), py::arg("num_threads"), py::arg("cuda_stream") = py::none(),
        "Fill the gradients that are not None.");
  m.def("cross_attention_workspace", &workspace_floats, py::arg("key"), py::arg("value"), py::arg("masked"),
        py::arg("dropout"), py::arg("backward"), "Floats of workspace per thread.");
  m.def("cross_attention_fwd", &cross_attention_fwd, py::arg("out"), py::arg("statistics"), py::arg("query"),
        py::arg("key"), py::arg("value"), py::arg("key_mask"), py::arg("attn_bias"), py::arg("scale"),
        py::arg("dropout_p"), py::arg("seed"), py::arg("workspace"), py::arg("num_threads"),
        "Fill out and statistics: bdgf_fast.ops.cross_attention.");
  m.def("cross_attention_bwd", &cross_attention_bwd, py::arg("grad_query"), py::arg("grad_key"), py::arg("grad_value"),
        py::arg("grad_bias"), py::arg("grad_out"), py::arg("query"), py::arg("key"), py::arg("value"),
        py::arg("key_mask"), py::arg("attn_bias"), py::arg("statistics"), py::arg("scale"), py::arg("dropout_p"),
        py::arg("seed"), py::arg("delta"), py::arg("workspace"), py::arg("num_threads"),
        "Fill the gradients that are not None; delta is scratch like one of the statistics.");
}

}  // namespace bdgf
