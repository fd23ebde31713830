// Statistics of boxes: tensors in, cheap checks, dispatch. Python validates with better words.
#include <pybind11/stl.h>

#include <algorithm>
#include <vector>

#include "bdgf/box_statistics.h"
#include "cpu/kernel_table.h"
#include "tensor_arg.h"

namespace bdgf {
namespace {

const char* const op = "box_statistics";

bool channels_last(const TensorView& t) { return t.shape[1] > 1 && t.stride[1] < t.stride[3]; }

// Floats of workspace for maps of this shape, `outer` being the tensor that is written.
int64_t workspace_floats(const TensorView& x, const TensorView& outer, int64_t reach, bool backward, int num_threads) {
  const int64_t step = box_step(channels_last(outer), x.shape[1]);
  const int64_t each = box_scratch(step, reach) + (backward ? box_maps(step, reach, x.shape[2], x.shape[3]) : 0);
  return each * std::max(num_threads, 1);
}

int64_t workspace(py::handle x, py::handle written, int64_t reach, bool backward, int num_threads) {
  const TensorView view = tensor_arg(op, "x", x), outer = tensor_arg(op, "the result", written);
  check_ndim(op, "x", view, 4, 4);
  check_ndim(op, "the result", outer, 4, 4);
  if (reach < 0) bad_value(op, "reach", "is negative");
  return workspace_floats(view, outer, reach, backward, num_threads);
}

TensorView map_arg(const char* name, py::handle value) {
  TensorView t = tensor_arg(op, name, value);
  check_dtype(op, name, t, {DType::f32, DType::f16, DType::bf16});
  check_ndim(op, name, t, 4, 4);
  if (t.device != Device::cpu) bad_value(op, name, "is not on the CPU; this kernel runs there");
  return t;
}

void run(py::handle statistics, py::handle grad_x, py::handle x, const std::vector<int64_t>& radii, py::handle workspace,
         int num_threads) {
  const bool backward = !grad_x.is_none();
  BoxStatisticsArgs a{};
  a.x = map_arg("x", x);
  a.radii = radii.data();
  a.count = static_cast<int64_t>(radii.size());
  for (int64_t radius : radii) {
    if (radius < 0) bad_value(op, "radii", "has a negative one");
    a.reach = std::max(a.reach, radius);
  }
  const int64_t height = a.x.shape[2] - 2 * a.reach, width = a.x.shape[3] - 2 * a.reach;
  if (height < 1 || width < 1) bad_value(op, "x", "has shape " + shape_text(a.x) + ", smaller than the largest box");
  const char* name = backward ? "grad_out" : "out";
  a.out = map_arg(name, statistics);
  check_dtype(op, name, a.out, {a.x.dtype});
  check_shape(op, name, a.out, {a.x.shape[0], a.x.shape[1] * (1 + 2 * a.count), height, width});
  if (backward) {
    a.grad_x = map_arg("grad_x", grad_x);
    check_dtype(op, "grad_x", a.grad_x, {a.x.dtype});
    check_shape(op, "grad_x", a.grad_x, {a.x.shape[0], a.x.shape[1], a.x.shape[2], a.x.shape[3]});
  }
  a.workspace = tensor_arg(op, "workspace", workspace);
  check_dtype(op, "workspace", a.workspace, {DType::f32});
  check_contiguous(op, "workspace", a.workspace);
  const int64_t least = workspace_floats(a.x, backward ? a.grad_x : a.out, a.reach, backward, num_threads);
  if (a.workspace.numel < least) bad_value(op, "workspace", "holds too few floats; it takes " + std::to_string(least));
  if (a.x.numel == 0) return;
  py::gil_scoped_release release;
  (backward ? kernels().box_statistics_bwd : kernels().box_statistics_fwd)(a, num_threads);
}

}  // namespace

void bind_boxes(py::module_& m) {
  m.def("box_statistics_workspace", &workspace, py::arg("x"), py::arg("written"), py::arg("reach"), py::arg("backward"),
        py::arg("num_threads"), "Floats of workspace.");
  m.def(
      "box_statistics_fwd",
      [](py::handle out, py::handle x, const std::vector<int64_t>& radii, py::handle workspace, int num_threads) {
        run(out, py::none(), x, radii, workspace, num_threads);
      },
      py::arg("out"), py::arg("x"), py::arg("radii"), py::arg("workspace"), py::arg("num_threads"),
      "Fill out: bdgf_fast.ops.box_statistics.");
  m.def(
      "box_statistics_bwd",
      [](py::handle grad_x, py::handle grad_out, py::handle x, const std::vector<int64_t>& radii, py::handle workspace,
         int num_threads) { run(grad_out, grad_x, x, radii, workspace, num_threads); },
      py::arg("grad_x"), py::arg("grad_out"), py::arg("x"), py::arg("radii"), py::arg("workspace"), py::arg("num_threads"),
      "Fill grad_x.");
}

}  // namespace bdgf
