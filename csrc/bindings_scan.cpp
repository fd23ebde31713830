// selective_scan and selective_scan_2d: one pair of functions for both.
#include "bdgf/selective_scan.h"

#include "cpu/kernel_table.h"
#include "cpu/selective_scan_f64.h"
#include "cuda/kernels.h"
#include "tensor_arg.h"

namespace bdgf {
namespace {

// Reads the tensors of a call by the letters of their dimensions: b batch, k direction, g group, c channel, n state,
// l step, 1 a dimension of that size.
struct Reader {
  const char* op;
  SelectiveScanArgs& a;
  bool wide = false;  // f64
  TensorView main{};  // u: where all the others must lie too

  int64_t size(char axis) const {
    switch (axis) {
      case 'b': return a.batch;
      case 'k': return a.directions;
      case 'c': return a.dim;
      case 'n': return a.states;
      case 'l': return a.length;
      case '1': return 1;
      default: return -1;
    }
  }
  ScanTensor read(const char* name, py::handle value, const char* axes, bool parameter, bool required = true) const {
    TensorView t = required ? tensor_arg(op, name, value) : optional_arg(op, name, value);
    ScanTensor s;
    if (!t.present) return s;
    check_same_device(op, name, t, "u", main);
    if (wide) check_dtype(op, name, t, {DType::f64});
    else if (parameter) check_dtype(op, name, t, {DType::f32});
    else check_dtype(op, name, t, {DType::f32, DType::bf16, DType::f16});
    int64_t expected[kMaxDims];
    int count = 0;
    for (; axes[count]; ++count) expected[count] = size(axes[count]);
    bool fits = t.ndim == count;
    for (int i = 0; fits && i < count; ++i) fits = expected[i] < 0 || expected[i] == t.shape[i];
    if (!fits) bad_value(op, name, "has shape " + shape_text(t) + "; expected " + shape_text(expected, count));
    s.data = t.data;
    s.dtype = t.dtype;
    for (int i = 0; i < count; ++i) {
      const int64_t stride = t.shape[i] == 1 ? 0 : t.stride[i];
      switch (axes[i]) {
        case 'b': s.batch = stride; break;
        case 'k': s.direction = stride; break;
        case 'g': s.group = stride; break;
        case 'c': s.channel = stride; break;
        case 'n': s.state = stride; break;
        case 'l': s.step = stride; break;
        default: break;
      }
    }
    return s;
  }
  ScanTensor like(const char* name, py::handle value, const char* axes, const ScanTensor& input) const {
    const ScanTensor s = read(name, value, axes, false, false);
    if (s.data && s.dtype != input.dtype) bad_type(op, name, "has another dtype than the tensor it belongs to");
    return s;
  }
};

// "cn" for a constant matrix, "bnl" or "bgnl" (with k for images); its groups to `groups`.
const char* matrix_axes(const char* op, const char* name, py::handle value, const SelectiveScanArgs& a, bool& constant,
                        int64_t& groups) {
  const TensorView t = tensor_arg(op, name, value);
  constant = t.ndim == 2;
  groups = 1;
  if (constant && !a.width) return "cn";
  if (a.width) return constant = false, "bknl";
  if (t.ndim == 4) {
    groups = t.shape[1];
    if (groups < 1 || a.dim % groups) bad_value(op, name, "has a number of groups that does not divide dim");
    return "bgnl";
  }
  return "bnl";
}

struct Names {
  const char *delta, *A, *B, *C, *D;
};

// The inputs both directions share; also fills sizes and options.
Names read_inputs(Reader& r, py::handle u, py::handle delta, py::handle A, py::handle B, py::handle C, py::handle D,
                  py::handle z, py::handle delta_bias, py::handle initial_state, bool softplus, bool reverse,
                  int64_t directions, int64_t height, int64_t width, bool visiting_order) {
  SelectiveScanArgs& a = r.a;
  const TensorView shape = tensor_arg(r.op, "u", u), rates = tensor_arg(r.op, "A", A);
  check_ndim(r.op, "u", shape, 3, 3);
  const bool image = width > 0;
  check_ndim(r.op, "A", rates, image ? 3 : 2, image ? 3 : 2);
  a.batch = shape.shape[0], a.dim = shape.shape[1], a.length = shape.shape[2];
  a.states = rates.shape[rates.ndim - 1];
  a.softplus = softplus, a.reverse = reverse, a.visiting_order = visiting_order;
  a.directions = image ? directions : 1, a.height = height, a.width = width;
  if (image && (directions != 1 && directions != 2 && directions != 4)) bad_value(r.op, "directions", "must be 1, 2 or 4");
  if (image && (height < 1 || height > (int64_t{1} << 31) || width > (int64_t{1} << 31) || height * width != a.length)) {
    bad_value(r.op, "height * width", "is not the length of u");
  }
  if (a.length < 1 || a.states < 1 || a.dim < 1) bad_value(r.op, "u and A", "must have at least one channel, step and state");
  r.wide = shape.dtype == DType::f64, r.main = shape;
  if (r.wide && shape.device == Device::cuda) {
    bad_type(r.op, "u", "is float64; the CUDA kernel takes float32, float16 and bfloat16");
  }
  if (image) {
    const TensorView rate = tensor_arg(r.op, "delta", delta);
    a.shared_delta = rate.ndim == 4 && rate.shape[1] == 1;
  }
  Names names{!image ? "bcl" : a.shared_delta ? "b1cl" : "bkcl", image ? "kcn" : "cn", nullptr, nullptr, image ? "kc" : "c"};
  names.B = matrix_axes(r.op, "B", B, a, a.constant_b, a.groups_b);
  names.C = matrix_axes(r.op, "C", C, a, a.constant_c, a.groups_c);
  a.u = r.read("u", u, "bcl", false);
  a.delta = r.read("delta", delta, names.delta, false);
  a.A = r.read("A", A, names.A, true);
  a.B = r.read("B", B, names.B, a.constant_b);
  a.C = r.read("C", C, names.C, a.constant_c);
  a.D = r.read("D", D, names.D, true, false);
  a.delta_bias = r.read("delta_bias", delta_bias, names.D, true, false);
  a.z = r.read("z", z, "bcl", false, false);
  a.initial = r.read("initial_state", initial_state, "bcn", true, false);
  if (image && (a.z.data || a.initial.data)) bad_value(r.op, "z and initial_state", "are for sequences only");
  return names;
}

using Kernel = void (*)(const SelectiveScanArgs&, int);
using CudaKernel = void (*)(const SelectiveScanArgs&, const CudaLaunch&);

struct Kernels {
  Kernel fast, f64;
  CudaKernel cuda;
};

template <bool kForward>
Kernels kernels_of(const Reader& r) {
  const bool on_gpu = r.main.device == Device::cuda;
  if (kForward) return {on_gpu ? nullptr : kernels().selective_scan_fwd, selective_scan_fwd_f64, cuda::selective_scan_fwd};
  return {on_gpu ? nullptr : kernels().selective_scan_bwd, selective_scan_bwd_f64, cuda::selective_scan_bwd};
}

int64_t launch(const Reader& r, SelectiveScanArgs& a, py::handle workspace, int num_threads, py::handle cuda_stream,
               const Kernels& kernels) {
  const bool on_gpu = r.main.device == Device::cuda;
  const Kernel kernel = r.wide ? kernels.f64 : kernels.fast;
  if (num_threads < 1) num_threads = 1;
  int64_t floats = 0;
  SelectiveScanArgs query = a;
  query.workspace_floats = &floats;
  on_gpu ? kernels.cuda(query, {}) : kernel(query, num_threads);
  if (workspace.is_none()) return floats;
  const TensorView w = tensor_arg(r.op, "workspace", workspace);
  check_dtype(r.op, "workspace", w, {DType::f32});
  check_contiguous(r.op, "workspace", w);
  check_same_device(r.op, "workspace", w, "u", r.main);
  if (w.numel < floats || reinterpret_cast<uintptr_t>(w.data) % 64) {
    bad_value(r.op, "workspace", "must be an aligned tensor of at least " + std::to_string(floats) + " elements");
  }
  a.workspace = static_cast<float*>(w.data);
  if (on_gpu) {
    const CudaLaunch where = cuda_launch(r.op, r.main, cuda_stream);
    py::gil_scoped_release release;
    kernels.cuda(a, where);
    return floats;
  }
  py::gil_scoped_release release;
  kernel(a, num_threads);
  return floats;
}

int64_t selective_scan_fwd(py::handle out, py::handle last_state, py::handle u, py::handle delta, py::handle A,
                           py::handle B, py::handle C, py::handle D, py::handle z, py::handle delta_bias,
                           py::handle initial_state, bool softplus, bool reverse, int64_t directions, int64_t height,
                           int64_t width, bool visiting_order, py::handle workspace, int num_threads,
                           py::handle cuda_stream) {
  const char* op = width ? "selective_scan_2d" : "selective_scan";
  SelectiveScanArgs a;
  Reader r{op, a};
  read_inputs(r, u, delta, A, B, C, D, z, delta_bias, initial_state, softplus, reverse, directions, height, width,
              visiting_order);
  a.out = r.like("out", out, "bcl", a.u);
  if (!a.out.data && a.batch) bad_value(op, "out", "must be a tensor");
  a.last = r.read("last_state", last_state, "bcn", true, false);
  return launch(r, a, workspace, num_threads, cuda_stream, kernels_of<true>(r));
}

int64_t selective_scan_bwd(py::handle grad_u, py::handle grad_delta, py::handle grad_A, py::handle grad_B,
                           py::handle grad_C, py::handle grad_D, py::handle grad_z, py::handle grad_delta_bias,
                           py::handle grad_initial_state, py::handle grad_out, py::handle grad_last_state, py::handle u,
                           py::handle delta, py::handle A, py::handle B, py::handle C, py::handle D, py::handle z,
                           py::handle delta_bias, py::handle initial_state, bool softplus, bool reverse,
                           int64_t directions, int64_t height, int64_t width, bool visiting_order, py::handle workspace,
                           int num_threads, py::handle cuda_stream) {
  const char* op = width ? "selective_scan_2d" : "selective_scan";
  SelectiveScanArgs a;
  Reader r{op, a};
  const Names names = read_inputs(r, u, delta, A, B, C, D, z, delta_bias, initial_state, softplus, reverse, directions,
                                  height, width, visiting_order);
  a.grad_out = r.like("grad_out", grad_out, "bcl", a.u);
  a.grad_last = r.read("grad_last_state", grad_last_state, "bcn", true, false);
  a.grad_u = r.like("grad_u", grad_u, "bcl", a.u);
  a.grad_delta = r.like("grad_delta", grad_delta, names.delta, a.delta);
  a.grad_A = r.read("grad_A", grad_A, names.A, true, false);
  a.grad_B = r.like("grad_B", grad_B, names.B, a.B);
  a.grad_C = r.like("grad_C", grad_C, names.C, a.C);
  a.grad_D = r.read("grad_D", grad_D, names.D, true, false);
  a.grad_z = r.like("grad_z", grad_z, "bcl", a.u);
  if (a.grad_z.data && !a.z.data) bad_value(op, "grad_z", "is asked for without z");
  a.grad_delta_bias = r.read("grad_delta_bias", grad_delta_bias, names.D, true, false);
  a.grad_initial = r.read("grad_initial_state", grad_initial_state, "bcn", true, false);
  return launch(r, a, workspace, num_threads, cuda_stream, kernels_of<false>(r));
}

}  // namespace

void bind_scan(py::module_& m) {
  m.def("selective_scan_fwd", &selective_scan_fwd, py::arg("out"), py::arg("last_state"), py::arg("u"), py::arg("delta"),
        py::arg("A"), py::arg("B"), py::arg("C"), py::arg("D"), py::arg("z"), py::arg("delta_bias"),
        py::arg("initial_state"), py::arg("delta_softplus"), py::arg("reverse"), py::arg("directions"), py::arg("height"),
        py::arg("width"), py::arg("visiting_order"), py::arg("workspace"), py::arg("num_threads"),
        py::arg("cuda_stream") = py::none(),
        "Returns the floats of workspace it takes; with workspace=None it does nothing else. width > 0: an image.");
  m.def("selective_scan_bwd", &selective_scan_bwd, py::arg("grad_u"), py::arg("grad_delta"), py::arg("grad_A"),
        py::arg("grad_B"), py::arg("grad_C"), py::arg("grad_D"), py::arg("grad_z"), py::arg("grad_delta_bias"),
        py::arg("grad_initial_state"), py::arg("grad_out"), py::arg("grad_last_state"), py::arg("u"), py::arg("delta"),
        py::arg("A"), py::arg("B"), py::arg("C"), py::arg("D"), py::arg("z"), py::arg("delta_bias"),
        py::arg("initial_state"), py::arg("delta_softplus"), py::arg("reverse"), py::arg("directions"), py::arg("height"),
        py::arg("width"), py::arg("visiting_order"), py::arg("workspace"), py::arg("num_threads"),
        py::arg("cuda_stream") = py::none(),
        "Fills the gradients that are not None; workspace as for selective_scan_fwd.");
}

}  // namespace bdgf
