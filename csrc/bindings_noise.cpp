// Ops that draw counter-based noise.
#include <pybind11/stl.h>

#include <utility>
#include <vector>

#include "bdgf/philox_normal.h"
#include "cpu/kernel_table.h"
#include "cuda/kernels.h"
#include "noise_arg.h"
#include "tensor_arg.h"

namespace bdgf {

NoiseAddress noise_arg(const char* op, const TensorView& like, py::handle seed, py::handle stream, py::handle sample_ids,
                       py::handle origin, int64_t extent_h, int64_t extent_w, int purpose) {
  NoiseAddress a{};
  check_ndim(op, "the output", like, 1, kMaxDims);
  if (purpose < 0 || purpose >= base::kPurposes) bad_value(op, "purpose", "is not in the table of bdgf/philox.h");
  a.purpose = base::purpose_constant(purpose);
  a.seed = counter_arg(op, "seed", seed, like, a.seed_at);
  a.stream = static_cast<uint32_t>(counter_arg(op, "stream", stream, like, a.stream_at));
  a.batch = like.shape[0];
  a.rows = 1;
  a.row_length = a.batch ? like.numel / a.batch : 0;

  TensorView ids = optional_arg(op, "sample_ids", sample_ids);
  if (ids.present) {
    check_dtype(op, "sample_ids", ids, {DType::i64});
    check_shape(op, "sample_ids", ids, {a.batch});
    check_contiguous(op, "sample_ids", ids);
    check_same_device(op, "sample_ids", ids, "the output", like);
    a.sample_ids = static_cast<const int64_t*>(ids.data);
  }
  TensorView corner = optional_arg(op, "origin", origin);
  if (corner.present) {
    check_ndim(op, "the output (with origin)", like, 4, 4);
    check_dtype(op, "origin", corner, {DType::i64});
    check_shape(op, "origin", corner, {a.batch, 2});
    check_contiguous(op, "origin", corner);
    check_same_device(op, "origin", corner, "the output", like);
    const int64_t channels = like.shape[1], height = like.shape[2], width = like.shape[3];
    if (extent_h < height || extent_w < width) {
      bad_value(op, "extent", "is (" + std::to_string(extent_h) + ", " + std::to_string(extent_w) +
                                  "), smaller than a tile of " + shape_text(like));
    }
    if (extent_w > (int64_t{1} << 31) || extent_h > (int64_t{1} << 31) ||
        (channels && extent_h > (int64_t{1} << 62) / extent_w / channels)) {
      bad_value(op, "extent", "is too large: channels * height * width of the scene must stay below 2^62");
    }
    a.origin = static_cast<const int64_t*>(corner.data);
    a.extent_h = extent_h;
    a.extent_w = extent_w;
    a.rows = channels * height;
    a.row_length = width;
    a.height = height;
  }
  return a;
}

namespace {

void philox_normal(py::handle out, py::handle seed, py::handle stream, py::handle sample_ids, py::handle origin,
                   int64_t extent_h, int64_t extent_w, int purpose, int num_threads, py::handle cuda_stream) {
  const char* op = "philox_normal";
  PhiloxNormalArgs args;
  args.out = tensor_arg(op, "out", out);
  check_dtype(op, "out", args.out, {DType::f32, DType::f16, DType::bf16});
  check_contiguous(op, "out", args.out);
  args.noise = noise_arg(op, args.out, seed, stream, sample_ids, origin, extent_h, extent_w, purpose);
  if (args.out.numel == 0) return;
  if (args.out.device == Device::cuda) {
    const CudaLaunch launch = cuda_launch(op, args.out, cuda_stream);
    py::gil_scoped_release release;
    cuda::philox_normal(args, launch);
    return;
  }
  py::gil_scoped_release release;
  kernels().philox_normal(args, num_threads);
}

// A floating-point tensor of 16 or 32 bits, of the shape and on the device of `like`; or None: absent.
SampleView sample_arg(const char* op, const char* name, py::handle value, const TensorView& like) {
  const TensorView t = optional_arg(op, name, value);
  if (!t.present) return {};
  check_dtype(op, name, t, {DType::f32, DType::f16, DType::bf16});
  check_same_device(op, name, t, "the main tensor", like);
  bool same = t.ndim == like.ndim;
  for (int i = 0; same && i < t.ndim; ++i) same = t.shape[i] == like.shape[i];
  if (!same) bad_value(op, name, "has shape " + shape_text(t) + "; expected " + shape_text(like));
  return sample_view(t);
}
TensorView main_arg(const char* op, const char* name, py::handle value, int least_ndim) {
  const TensorView t = tensor_arg(op, name, value);
  check_ndim(op, name, t, least_ndim, kMaxDims);
  return t;
}

ScheduleView schedule_arg(const char* op, py::handle t, py::handle sqrt_abar, py::handle sqrt_rest, const TensorView& like) {
  const int64_t batch = like.shape[0];
  const TensorView steps = tensor_arg(op, "t", t);
  check_dtype(op, "t", steps, {DType::i64});
  check_shape(op, "t", steps, {batch});
  check_same_device(op, "t", steps, "the main tensor", like);
  const TensorView a = tensor_arg(op, "sqrt_abar", sqrt_abar), r = tensor_arg(op, "sqrt_rest", sqrt_rest);
  check_ndim(op, "sqrt_abar", a, 1, 1);
  check_shape(op, "sqrt_rest", r, {a.shape[0]});
  for (const auto& [name, table] : {std::pair{"sqrt_abar", &a}, std::pair{"sqrt_rest", &r}}) {
    check_dtype(op, name, *table, {DType::f32});
    check_contiguous(op, name, *table);
    check_same_device(op, name, *table, "the main tensor", like);
  }
  const auto* values = static_cast<const int64_t*>(steps.data);
  for (int64_t b = 0; b < batch && like.device == Device::cpu; ++b) {  // on a GPU the sample becomes NaN
    const int64_t value = values[b * steps.stride[0]];
    if (value < 0 || value >= a.shape[0]) {
      bad_value(op, "t", "has " + std::to_string(value) + "; it takes 0 to " + std::to_string(a.shape[0] - 1));
    }
  }
  return {values, steps.stride[0], static_cast<const float*>(a.data), static_cast<const float*>(r.data),
          a.shape[0]};
}

// bool (rows, columns) or None.
const uint8_t* mask_arg(const char* op, const char* name, py::handle value, const TensorView& like, int64_t columns,
                        int64_t& row_stride, int64_t& column_stride) {
  const TensorView t = optional_arg(op, name, value);
  if (!t.present) return nullptr;
  check_dtype(op, name, t, {DType::boolean});
  check_shape(op, name, t, {like.shape[0], columns});
  check_same_device(op, name, t, "the main tensor", like);
  row_stride = t.stride[0];
  column_stride = t.stride[1];
  return static_cast<const uint8_t*>(t.data);
}

void q_sample(py::handle out, py::handle x0, py::handle t, py::handle sqrt_abar, py::handle sqrt_rest,
              py::handle channel_mask, bool draw, bool fill_with_noise, py::handle seed, py::handle stream,
              py::handle sample_ids, py::handle origin, int64_t extent_h, int64_t extent_w, int num_threads,
              py::handle cuda_stream) {
  const char* op = "q_sample";
  const TensorView x = main_arg(op, "x0", x0, 2);
  QSampleArgs args{};
  args.x0 = sample_arg(op, "x0", x0, x);
  args.out = sample_arg(op, "out", out, x);
  args.batch = x.shape[0];
  args.channels = x.shape[1];
  args.schedule = schedule_arg(op, t, sqrt_abar, sqrt_rest, x);
  args.channel_mask = mask_arg(op, "channel_mask", channel_mask, x, args.channels, args.mask_batch_stride,
                               args.mask_channel_stride);
  args.draw = draw;
  args.fill_with_noise = fill_with_noise;
  args.noise = args.fill = noise_arg(op, x, seed, stream, sample_ids, origin, extent_h, extent_w, base::kTargetNoise);
  args.fill.purpose = base::purpose_constant(base::kMaskFill);
  if (x.numel == 0) return;
  args.pixels = x.numel / args.batch / args.channels;
  if (x.device == Device::cuda) {
    const CudaLaunch launch = cuda_launch(op, x, cuda_stream);
    py::gil_scoped_release release;
    cuda::q_sample(args, launch);
    return;
  }
  py::gil_scoped_release release;
  kernels().q_sample(args, num_threads);
}

// Forward: loss given. Backward: grad_loss, and grad_pred or grad_x0 or both.
void denoising_loss(py::handle loss, py::handle grad_loss, py::handle grad_pred, py::handle grad_x0, py::handle pred,
                    py::handle x0, py::handle t, py::handle sqrt_abar, py::handle sqrt_rest, py::handle hidden,
                    int prediction, const std::vector<int64_t>& channel_groups, py::handle seed, py::handle stream,
                    py::handle sample_ids, py::handle origin, int64_t extent_h, int64_t extent_w, int num_threads,
                    py::handle workspace, py::handle cuda_stream) {
  const char* op = "denoising_loss";
  const TensorView p = main_arg(op, "pred", pred, 2);
  const int64_t groups = static_cast<int64_t>(channel_groups.size());
  DenoisingLossArgs args{};
  args.batch = p.shape[0];
  args.groups = static_cast<int32_t>(groups);
  args.prediction = prediction;
  args.pred = sample_arg(op, "pred", pred, p);
  args.x0 = sample_arg(op, "x0", x0, p);
  args.grad_pred = sample_arg(op, "grad_pred", grad_pred, p);
  args.grad_x0 = sample_arg(op, "grad_x0", grad_x0, p);
  args.schedule = schedule_arg(op, t, sqrt_abar, sqrt_rest, p);
  args.hidden = mask_arg(op, "hidden", hidden, p, groups, args.hidden_batch_stride, args.hidden_group_stride);
  args.noise = noise_arg(op, p, seed, stream, sample_ids, origin, extent_h, extent_w, base::kTargetNoise);
  if (prediction < kEpsilon || prediction > kVelocity) bad_value(op, "prediction", "is not 0, 1 or 2");
  if (!args.x0.present && (prediction != kEpsilon || args.hidden)) bad_value(op, "x0", "is None, but the target needs it");
  if (p.numel == 0) return;

  std::vector<int64_t> group_begin{0}, segment_begin{0};
  const int64_t pixels = p.numel / args.batch / p.shape[1];
  for (int64_t channels : channel_groups) {
    if (channels < 1) bad_value(op, "channel_groups", "has a size below 1");
    const int64_t begin = group_begin.back(), end = begin + channels * pixels;
    group_begin.push_back(end);
    segment_begin.push_back(segment_begin.back() + (end - 1) / kLossSegment - begin / kLossSegment + 1);
  }
  if (group_begin.back() != p.shape[1] * pixels) bad_value(op, "channel_groups", "does not sum to pred's channels");
  args.group_begin = group_begin.data();
  args.segment_begin = segment_begin.data();
  args.channels = p.shape[1];
  args.pixels = pixels;

  const TensorView result = optional_arg(op, "loss", loss), given = optional_arg(op, "grad_loss", grad_loss);
  if (result.present == given.present) bad_value(op, "loss and grad_loss", "must be given one without the other");
  const TensorView& per_group = result.present ? result : given;
  check_dtype(op, "loss", per_group, {DType::f32});
  check_shape(op, "loss", per_group, {args.batch, groups});
  check_same_device(op, "loss", per_group, "pred", p);
  if (result.present) {
    check_contiguous(op, "loss", result);
    args.loss = static_cast<float*>(result.data);
  } else {
    args.grad_loss = static_cast<const float*>(given.data);
    args.grad_batch_stride = given.stride[0];
    args.grad_group_stride = given.stride[1];
  }
  if (p.device == Device::cuda) {
    if (result.present) {
      const int64_t least = loss_workspace(args.batch, args.group_begin, groups);
      const TensorView space = tensor_arg(op, "workspace", workspace);
      check_dtype(op, "workspace", space, {DType::f32});
      check_contiguous(op, "workspace", space);
      check_same_device(op, "workspace", space, "pred", p);
      if (space.numel < least) {
        bad_value(op, "workspace", "holds " + std::to_string(space.numel) + " floats; it takes " + std::to_string(least));
      }
      args.workspace = static_cast<float*>(space.data);
    }
    const CudaLaunch launch = cuda_launch(op, p, cuda_stream);
    py::gil_scoped_release release;
    result.present ? cuda::denoising_loss(args, launch) : cuda::denoising_loss_backward(args, launch);
    return;
  }
  std::vector<double> partial(result.present ? args.batch * segment_begin.back() : 0);  // 8 bytes for up to 32,768 elements
  args.partial = partial.data();
  py::gil_scoped_release release;
  result.present ? kernels().denoising_loss(args, num_threads) : kernels().denoising_loss_backward(args, num_threads);
}

int64_t denoising_loss_workspace(int64_t batch, int64_t pixels, const std::vector<int64_t>& channel_groups) {
  std::vector<int64_t> begin{0};
  for (int64_t channels : channel_groups) begin.push_back(begin.back() + channels * pixels);
  return loss_workspace(batch, begin.data(), static_cast<int64_t>(channel_groups.size()));
}

// Forward: out given. Backward: grad_out, and grad_pred or grad_sample or both.
void diffusion_step(py::handle out, py::handle grad_out, py::handle grad_pred, py::handle grad_sample, py::handle pred,
                    py::handle sample, py::handle coefficients, py::handle noise, bool clip, bool draw, py::handle seed,
                    py::handle stream, py::handle sample_ids, int num_threads, py::handle cuda_stream) {
  const char* op = "diffusion_step";
  const TensorView x = main_arg(op, "sample", sample, 1);
  DiffusionStepArgs args{};
  args.batch = x.shape[0];
  args.sample = sample_arg(op, "sample", sample, x);
  args.pred = sample_arg(op, "pred", pred, x);
  args.noise = sample_arg(op, "noise", noise, x);
  args.out = sample_arg(op, "out", out, x);
  args.grad_out = sample_arg(op, "grad_out", grad_out, x);
  args.grad_pred = sample_arg(op, "grad_pred", grad_pred, x);
  args.grad_sample = sample_arg(op, "grad_sample", grad_sample, x);
  if (!args.pred.present) bad_type(op, "pred", "must be a torch.Tensor, got None");
  if (args.out.present == args.grad_out.present) bad_value(op, "out and grad_out", "must be given one without the other");
  const TensorView c = tensor_arg(op, "coefficients", coefficients);
  check_dtype(op, "coefficients", c, {DType::f32});
  check_shape(op, "coefficients", c, {args.batch, 6});
  check_contiguous(op, "coefficients", c);
  check_same_device(op, "coefficients", c, "sample", x);
  args.coefficients = static_cast<const float*>(c.data);
  args.clip = clip;
  args.draw = draw;
  args.address = noise_arg(op, x, seed, stream, sample_ids, py::none(), 0, 0, base::kSampler);
  if (x.numel == 0) return;
  args.elements = x.numel / args.batch;
  if (x.device == Device::cuda) {
    const CudaLaunch launch = cuda_launch(op, x, cuda_stream);
    py::gil_scoped_release release;
    args.out.present ? cuda::diffusion_step(args, launch) : cuda::diffusion_step_backward(args, launch);
    return;
  }
  py::gil_scoped_release release;
  args.out.present ? kernels().diffusion_step(args, num_threads) : kernels().diffusion_step_backward(args, num_threads);
}

struct HostWords {
  typedef uint32_t U;
  typedef uint32_t W;
  static W to_word(U a) { return a; }
  static U from_word(W a) { return a; }
  static void multiply_wide(W a, uint32_t m, W& high, W& low) {
    const uint64_t product = static_cast<uint64_t>(a) * m;
    high = static_cast<uint32_t>(product >> 32);
    low = static_cast<uint32_t>(product);
  }
  static W xor3(W a, W b, uint32_t key) { return a ^ b ^ key; }
};

py::tuple philox_raw(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  uint32_t w[4];
  base::words4<HostWords>(counter[0], counter[1], counter[2], counter[3],
                          key[0] | static_cast<uint64_t>(key[1]) << 32, w);
  return py::make_tuple(w[0], w[1], w[2], w[3]);
}

}  // namespace

void bind_noise(py::module_& m) {
  m.def("philox_normal", &philox_normal, py::arg("out"), py::arg("seed"), py::arg("stream"), py::arg("sample_ids"),
        py::arg("origin"), py::arg("extent_h"), py::arg("extent_w"), py::arg("purpose"), py::arg("num_threads"),
        py::arg("cuda_stream") = py::none(),
        "Fill the contiguous tensor out (batch, ...) with standard normals: bdgf_fast.ops.philox_normal.");
  m.def("q_sample", &q_sample, py::arg("out"), py::arg("x0"), py::arg("t"), py::arg("sqrt_abar"), py::arg("sqrt_rest"),
        py::arg("channel_mask"), py::arg("draw"), py::arg("fill_with_noise"), py::arg("seed"), py::arg("stream"),
        py::arg("sample_ids"), py::arg("origin"), py::arg("extent_h"), py::arg("extent_w"), py::arg("num_threads"),
        py::arg("cuda_stream") = py::none(),
        "Fill out with x_t: bdgf_fast.ops.q_sample. draw=False leaves the noise out: x0's gradient from out's.");
  m.def("denoising_loss", &denoising_loss, py::arg("loss"), py::arg("grad_loss"), py::arg("grad_pred"), py::arg("grad_x0"),
        py::arg("pred"), py::arg("x0"), py::arg("t"), py::arg("sqrt_abar"), py::arg("sqrt_rest"), py::arg("hidden"),
        py::arg("prediction"), py::arg("channel_groups"), py::arg("seed"), py::arg("stream"), py::arg("sample_ids"),
        py::arg("origin"), py::arg("extent_h"), py::arg("extent_w"), py::arg("num_threads"), py::arg("workspace") = py::none(),
        py::arg("cuda_stream") = py::none(),
        "Fill loss, or from grad_loss the gradients: bdgf_fast.ops.denoising_loss without its weights.");
  m.def("denoising_loss_workspace", &denoising_loss_workspace, py::arg("batch"), py::arg("pixels"), py::arg("channel_groups"),
        "Floats of workspace of the forward on a GPU.");
  m.def("diffusion_step", &diffusion_step, py::arg("out"), py::arg("grad_out"), py::arg("grad_pred"), py::arg("grad_sample"),
        py::arg("pred"), py::arg("sample"), py::arg("coefficients"), py::arg("noise"), py::arg("clip"), py::arg("draw"),
        py::arg("seed"), py::arg("stream"), py::arg("sample_ids"), py::arg("num_threads"), py::arg("cuda_stream") = py::none(),
        "Fill out, or from grad_out the gradients: one step of bdgf_fast.ops.ddpm_step.");
  m.def("philox_raw", &philox_raw, py::arg("counter"), py::arg("key"), "The four words of Philox4x32-10.");
  py::dict purposes;
  const char* const names[base::kPurposes] = {"target_noise", "mask_fill", "timestep", "mask_choice",
                                              "augmentation", "sampler",   "dropout"};
  for (int i = 0; i < base::kPurposes; ++i) purposes[names[i]] = i;
  m.attr("PURPOSES") = purposes;
}

}  // namespace bdgf
