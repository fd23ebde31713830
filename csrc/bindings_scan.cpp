// selective_scan and selective_scan_2d: one pair of functions for both.
#include <algorithm>

#include "bdgf/selective_scan.h"

#include "cpu/kernel_table.h"
#include "cpu/selective_scan_f64.h"
#include "cuda/kernels.h"
#include "tensor_arg.h"

namespace bdgf {
namespace {

// A call's arguments by name, as Python passed them: all are keywords.
class Keywords {
 public:
  Keywords(const char* op, const py::dict& values) : op_(op), values_(values) {}
  // None where absent.
  py::handle take(const char* name) {
    PyObject* value = PyDict_GetItemString(values_.ptr(), name);
    if (!value) return Py_None;
    ++taken_;
    return value;
  }
  int64_t take_int(const char* name, int64_t otherwise) {
    const py::handle value = take(name);
    return value.is_none() ? otherwise : value.cast<int64_t>();
  }
  bool take_bool(const char* name) {
    const py::handle value = take(name);
    return !value.is_none() && value.cast<bool>();
  }
  // To be called when everything has been taken.
  void check_all_taken() const {
    if (taken_ != static_cast<int64_t>(values_.size())) bad_value(op_, "the call", "has a keyword that the kernel does not know");
  }

 private:
  const char* op_;
  const py::dict& values_;
  int64_t taken_ = 0;
};

// What the forward and the backward take; the shapes stand in selective_scan.h.
struct InputFields {
  py::handle u, delta, A, B, C, D, z, delta_bias, initial_state, checkpoints;
  bool delta_softplus, reverse;
  int64_t directions, height, width;  // of an image; width 0: a sequence
  bool visiting_order;
  explicit InputFields(Keywords& k)
      : u(k.take("u")),
        delta(k.take("delta")),
        A(k.take("A")),
        B(k.take("B")),
        C(k.take("C")),
        D(k.take("D")),
        z(k.take("z")),
        delta_bias(k.take("delta_bias")),
        initial_state(k.take("initial_state")),
        checkpoints(k.take("checkpoints")),
        delta_softplus(k.take_bool("delta_softplus")),
        reverse(k.take_bool("reverse")),
        directions(k.take_int("directions", 1)),
        height(k.take_int("height", 0)),
        width(k.take_int("width", 0)),
        visiting_order(k.take_bool("visiting_order")) {}
};
struct OutputFields {
  py::handle out, last_state;
  explicit OutputFields(Keywords& k) : out(k.take("out")), last_state(k.take("last_state")) {}
};
struct GradientFields {
  py::handle grad_out, grad_last_state;                                      // read
  py::handle grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_delta_bias, grad_initial_state;  // written
  explicit GradientFields(Keywords& k)
      : grad_out(k.take("grad_out")),
        grad_last_state(k.take("grad_last_state")),
        grad_u(k.take("grad_u")),
        grad_delta(k.take("grad_delta")),
        grad_A(k.take("grad_A")),
        grad_B(k.take("grad_B")),
        grad_C(k.take("grad_C")),
        grad_D(k.take("grad_D")),
        grad_z(k.take("grad_z")),
        grad_delta_bias(k.take("grad_delta_bias")),
        grad_initial_state(k.take("grad_initial_state")) {}
};
struct LaunchFields {
  py::handle workspace;  // None: only say how large it must be
  int num_threads;
  py::handle cuda_stream;
  explicit LaunchFields(Keywords& k)
      : workspace(k.take("workspace")),
        num_threads(static_cast<int>(std::max<int64_t>(1, k.take_int("num_threads", 1)))),
        cuda_stream(k.take("cuda_stream")) {}
};

// Reads the tensors of a call by the letters of their dimensions: b batch, k direction, g group, c channel, n state,
// l step, s checkpoint, 1 a dimension of that size.
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
      case 's': return (a.length + kCheckpointSteps - 1) / kCheckpointSteps;
      case '1': return 1;
      default: return -1;
    }
  }
  // Storage types are u's and delta's; parameters and states have the dtype of the arithmetic.
  enum Kind { kStored, kParameter };
  enum Presence { kOptional, kRequired };
  ScanTensor read(const char* name, py::handle value, const char* axes, Kind kind, Presence presence = kOptional) const {
    TensorView t = presence == kRequired ? tensor_arg(op, name, value) : optional_arg(op, name, value);
    ScanTensor s;
    if (!t.present) return s;
    check_same_device(op, name, t, "u", main);
    if (wide) check_dtype(op, name, t, {DType::f64});
    else if (kind == kParameter) check_dtype(op, name, t, {DType::f32});
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
        case 'l':
        case 's': s.step = stride; break;
        default: break;
      }
    }
    return s;
  }
  ScanTensor like(const char* name, py::handle value, const char* axes, const ScanTensor& input) const {
    const ScanTensor s = read(name, value, axes, kStored);
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
  if (a.width) {
    constant = false;
    return "bknl";
  }
  if (constant) return "cn";
  if (t.ndim == 4) {
    groups = t.shape[1];
    if (groups < 1 || a.dim % groups) bad_value(op, name, "has a number of groups that does not divide dim");
    return "bgnl";
  }
  return "bnl";
}

// The letters of the dimensions that depend on the call.
struct Axes {
  const char *delta, *A, *B, *C, *D;
};

void read_sizes(Reader& r, const InputFields& in) {
  SelectiveScanArgs& a = r.a;
  r.main = tensor_arg(r.op, "u", in.u);
  const TensorView A = tensor_arg(r.op, "A", in.A);
  const bool image = in.width > 0;
  check_ndim(r.op, "u", r.main, 3, 3);
  check_ndim(r.op, "A", A, image ? 3 : 2, image ? 3 : 2);
  a.batch = r.main.shape[0];
  a.dim = r.main.shape[1];
  a.length = r.main.shape[2];
  a.states = A.shape[A.ndim - 1];
  a.softplus = in.delta_softplus;
  a.reverse = in.reverse;
  a.visiting_order = in.visiting_order;
  a.directions = image ? in.directions : 1;
  a.height = in.height;
  a.width = in.width;
  if (image && a.directions != 1 && a.directions != 2 && a.directions != 4) bad_value(r.op, "directions", "must be 1, 2 or 4");
  const int64_t longest_side = int64_t{1} << 31;
  if (image && (a.height < 1 || a.height > longest_side || a.width > longest_side || a.height * a.width != a.length)) {
    bad_value(r.op, "height * width", "is not the length of u");
  }
  if (a.length < 1 || a.states < 1 || a.dim < 1) bad_value(r.op, "u and A", "must have at least one channel, step and state");
  r.wide = r.main.dtype == DType::f64;
  if (r.wide && r.main.device == Device::cuda) {
    bad_type(r.op, "u", "is float64; the CUDA kernel takes float32, float16 and bfloat16");
  }
}

// Fills what both directions take.
Axes read_inputs(Reader& r, const InputFields& in) {
  SelectiveScanArgs& a = r.a;
  read_sizes(r, in);
  const bool image = a.width > 0;
  if (image) {
    const TensorView delta = tensor_arg(r.op, "delta", in.delta);
    a.shared_delta = delta.ndim == 4 && delta.shape[1] == 1;
  }
  Axes axes;
  axes.delta = !image ? "bcl" : a.shared_delta ? "b1cl" : "bkcl";
  axes.A = image ? "kcn" : "cn";
  axes.B = matrix_axes(r.op, "B", in.B, a, a.constant_b, a.groups_b);
  axes.C = matrix_axes(r.op, "C", in.C, a, a.constant_c, a.groups_c);
  axes.D = image ? "kc" : "c";
  a.u = r.read("u", in.u, "bcl", Reader::kStored, Reader::kRequired);
  a.delta = r.read("delta", in.delta, axes.delta, Reader::kStored, Reader::kRequired);
  a.A = r.read("A", in.A, axes.A, Reader::kParameter, Reader::kRequired);
  a.B = r.read("B", in.B, axes.B, a.constant_b ? Reader::kParameter : Reader::kStored, Reader::kRequired);
  a.C = r.read("C", in.C, axes.C, a.constant_c ? Reader::kParameter : Reader::kStored, Reader::kRequired);
  a.D = r.read("D", in.D, axes.D, Reader::kParameter);
  a.delta_bias = r.read("delta_bias", in.delta_bias, axes.D, Reader::kParameter);
  a.z = r.read("z", in.z, "bcl", Reader::kStored);
  a.initial = r.read("initial_state", in.initial_state, "bcn", Reader::kParameter);
  a.checkpoints = r.read("checkpoints", in.checkpoints, "bscn", Reader::kParameter);
  if (image && (a.z.data || a.initial.data || a.checkpoints.data)) {
    bad_value(r.op, "z, initial_state and checkpoints", "are for sequences only");
  }
  return axes;
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

// Runs the kernel; returns the floats of workspace that it takes, and does nothing else where none was given.
int64_t launch(const Reader& r, SelectiveScanArgs& a, const LaunchFields& fields, const Kernels& kernels) {
  const bool on_gpu = r.main.device == Device::cuda;
  const Kernel kernel = r.wide ? kernels.f64 : kernels.fast;
  int64_t floats = 0;
  SelectiveScanArgs query = a;
  query.workspace_floats = &floats;
  on_gpu ? kernels.cuda(query, {}) : kernel(query, fields.num_threads);
  if (fields.workspace.is_none()) return floats;
  const TensorView w = tensor_arg(r.op, "workspace", fields.workspace);
  check_dtype(r.op, "workspace", w, {DType::f32});
  check_contiguous(r.op, "workspace", w);
  check_same_device(r.op, "workspace", w, "u", r.main);
  if (w.numel < floats || reinterpret_cast<uintptr_t>(w.data) % 64) {
    bad_value(r.op, "workspace", "must be an aligned tensor of at least " + std::to_string(floats) + " elements");
  }
  a.workspace = static_cast<float*>(w.data);
  if (on_gpu) {
    const CudaLaunch where = cuda_launch(r.op, r.main, fields.cuda_stream);
    py::gil_scoped_release release;
    kernels.cuda(a, where);
    return floats;
  }
  py::gil_scoped_release release;
  kernel(a, fields.num_threads);
  return floats;
}

const char* name_of(const InputFields& in) { return in.width ? "selective_scan_2d" : "selective_scan"; }

int64_t selective_scan_fwd(const py::kwargs& values) {
  Keywords keywords("selective_scan_fwd", values);
  const InputFields in(keywords);
  const OutputFields outputs(keywords);
  const LaunchFields launch_fields(keywords);
  keywords.check_all_taken();
  SelectiveScanArgs a;
  Reader r{name_of(in), a};
  read_inputs(r, in);
  a.out = r.like("out", outputs.out, "bcl", a.u);
  if (!a.out.data && a.batch) bad_value(r.op, "out", "must be a tensor");
  a.last = r.read("last_state", outputs.last_state, "bcn", Reader::kParameter);
  return launch(r, a, launch_fields, kernels_of<true>(r));
}

int64_t selective_scan_bwd(const py::kwargs& values) {
  Keywords keywords("selective_scan_bwd", values);
  const InputFields in(keywords);
  const GradientFields grads(keywords);
  const LaunchFields launch_fields(keywords);
  keywords.check_all_taken();
  SelectiveScanArgs a;
  Reader r{name_of(in), a};
  const Axes axes = read_inputs(r, in);
  a.grad_out = r.like("grad_out", grads.grad_out, "bcl", a.u);
  a.grad_last = r.read("grad_last_state", grads.grad_last_state, "bcn", Reader::kParameter);
  a.grad_u = r.like("grad_u", grads.grad_u, "bcl", a.u);
  a.grad_delta = r.like("grad_delta", grads.grad_delta, axes.delta, a.delta);
  a.grad_A = r.read("grad_A", grads.grad_A, axes.A, Reader::kParameter);
  a.grad_B = r.like("grad_B", grads.grad_B, axes.B, a.B);
  a.grad_C = r.like("grad_C", grads.grad_C, axes.C, a.C);
  a.grad_D = r.read("grad_D", grads.grad_D, axes.D, Reader::kParameter);
  a.grad_z = r.like("grad_z", grads.grad_z, "bcl", a.u);
  if (a.grad_z.data && !a.z.data) bad_value(r.op, "grad_z", "is asked for without z");
  a.grad_delta_bias = r.read("grad_delta_bias", grads.grad_delta_bias, axes.D, Reader::kParameter);
  a.grad_initial = r.read("grad_initial_state", grads.grad_initial_state, "bcn", Reader::kParameter);
  return launch(r, a, launch_fields, kernels_of<false>(r));
}

}  // namespace

void bind_scan(py::module_& m) {
  m.attr("SCAN_CHECKPOINT_STEPS") = kCheckpointSteps;
  m.def("selective_scan_fwd", &selective_scan_fwd,
        "Takes keywords: the inputs, out, last_state (or None) and checkpoints (or None) by name, delta_softplus, reverse, for an "
        "image directions, height, width and visiting_order, then workspace, num_threads and cuda_stream. Returns the floats of "
        "workspace it takes; with workspace=None it does nothing else.");
  m.def("selective_scan_bwd", &selective_scan_bwd,
        "Takes keywords: the inputs and options of selective_scan_fwd, grad_out, grad_last_state, and the gradients to fill, "
        "grad_<input> or None; workspace as for selective_scan_fwd.");
}

}  // namespace bdgf
