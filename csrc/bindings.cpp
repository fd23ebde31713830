// The only file that knows Python: tensors in, checks, dispatch.
#include <pybind11/pybind11.h>

namespace py = pybind11;

PYBIND11_MODULE(_C, m) {
  m.def("build_info", [] {
    py::dict info;
    info["compiler"] = __VERSION__;
    return info;
  });
}
