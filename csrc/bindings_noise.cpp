// Ops that draw counter-based noise.
#include <pybind11/stl.h>

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
    a.extent_h = extent_h, a.extent_w = extent_w;
    a.rows = channels * height, a.row_length = width, a.height = height;
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

struct HostWords {
  typedef uint32_t U;
  typedef uint32_t W;
  static W to_word(U a) { return a; }
  static U from_word(W a) { return a; }
  static void multiply_wide(W a, uint32_t m, W& high, W& low) {
    const uint64_t product = static_cast<uint64_t>(a) * m;
    high = static_cast<uint32_t>(product >> 32), low = static_cast<uint32_t>(product);
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
  m.def("philox_raw", &philox_raw, py::arg("counter"), py::arg("key"), "The four words of Philox4x32-10.");
  py::dict purposes;
  const char* const names[base::kPurposes] = {"target_noise", "mask_fill", "timestep", "mask_choice",
                                              "augmentation", "sampler",   "dropout"};
  for (int i = 0; i < base::kPurposes; ++i) purposes[names[i]] = i;
  m.attr("PURPOSES") = purposes;
}

}  // namespace bdgf
