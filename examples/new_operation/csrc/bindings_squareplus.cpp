// squareplus: tensors in, checks of what would crash, dispatch. Python validates with better words.
#include "bdgf/squareplus.h"

#include "cpu/kernel_table.h"
#include "cuda/kernels.h"
#include "tensor_arg.h"

namespace bdgf {
namespace {

const char* const op = "squareplus";

TensorView contiguous_arg(const char* name, py::handle value, const TensorView& like) {
  const TensorView t = tensor_arg(op, name, value);
  check_dtype(op, name, t, {like.dtype});
  check_contiguous(op, name, t);
  check_same_device(op, name, t, "x", like);
  if (t.numel != like.numel) bad_value(op, name, "has shape " + shape_text(t) + "; it takes that of x, " + shape_text(like));
  return t;
}

SquareplusArgs squareplus_args(py::handle x, float b) {
  SquareplusArgs a{};
  a.x = tensor_arg(op, "x", x);
  check_dtype(op, "x", a.x, {DType::f32, DType::f16, DType::bf16});
  check_contiguous(op, "x", a.x);
  a.b = b;
  return a;
}

void squareplus_fwd(py::handle out, py::handle x, float b, int num_threads, py::handle cuda_stream) {
  SquareplusArgs a = squareplus_args(x, b);
  a.out = contiguous_arg("out", out, a.x);
  if (a.x.numel == 0) return;
  if (a.x.device == Device::cuda) return cuda::squareplus_fwd(a, cuda_launch(op, a.x, cuda_stream));
  py::gil_scoped_release release;
  kernels().squareplus_fwd(a, num_threads);
}

void squareplus_bwd(py::handle grad_x, py::handle grad_out, py::handle x, float b, int num_threads, py::handle cuda_stream) {
  SquareplusArgs a = squareplus_args(x, b);
  a.grad_out = contiguous_arg("grad_out", grad_out, a.x);
  a.grad_x = contiguous_arg("grad_x", grad_x, a.x);
  if (a.x.numel == 0) return;
  if (a.x.device == Device::cuda) return cuda::squareplus_bwd(a, cuda_launch(op, a.x, cuda_stream));
  py::gil_scoped_release release;
  kernels().squareplus_bwd(a, num_threads);
}

}  // namespace

void bind_squareplus(py::module_& m) {
  m.def("squareplus_fwd", &squareplus_fwd, py::arg("out"), py::arg("x"), py::arg("b"), py::arg("num_threads"),
        py::arg("cuda_stream") = py::none(), "Fill out: bdgf_fast.ops.squareplus.");
  m.def("squareplus_bwd", &squareplus_bwd, py::arg("grad_x"), py::arg("grad_out"), py::arg("x"), py::arg("b"),
        py::arg("num_threads"), py::arg("cuda_stream") = py::none(), "Fill grad_x.");
}

}  // namespace bdgf
