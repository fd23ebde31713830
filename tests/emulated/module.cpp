// The module bdgf_emulated: the extension's own bindings and launch functions with the kernels of csrc/cuda run by
// emulation.cpp. It takes every CPU tensor for one on a GPU; of the CPU's kernels it has none.
#include <pybind11/pybind11.h>

#include "cpu/kernel_table.h"
#include "cpu/selective_scan_f64.h"
#include "emulation.h"
#include "tensor_arg.h"

namespace bdgf {

[[noreturn]] static void no_cpu_kernels() { throw std::runtime_error("the emulated module has no kernels for CPU tensors"); }
const KernelTable& kernels() { no_cpu_kernels(); }
void selective_scan_fwd_f64(const SelectiveScanArgs&, int) { no_cpu_kernels(); }
void selective_scan_bwd_f64(const SelectiveScanArgs&, int) { no_cpu_kernels(); }

}  // namespace bdgf

int64_t divided(int64_t n, int64_t by);
void planted(const std::string& bug, bdgf::py::handle out);

PYBIND11_MODULE(bdgf_emulated, m) {
  namespace py = bdgf::py;
  using namespace bdgf;
  py::register_local_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const TypeError& e) {
      PyErr_SetString(PyExc_TypeError, e.what());
    }
  });
  bind_noise(m);
  bind_scan(m);
  bind_attention(m);
  m.def("set_order", [](const std::string& order, uint64_t seed) {
    if (!emulation::set_order(order.c_str(), seed)) bad_value("set_order", "order", "is not ascending, descending or random");
  }, py::arg("order"), py::arg("seed") = 0);
  m.def("launched", [] {
    py::dict found;
    emulation::for_launched([&](const char* name, int64_t times) { found[name] = times; });
    return found;
  }, "Launches so far by kernel.");
  m.def("divided", &divided, "n / by as the kernels divide by what they know beforehand.");
  m.def("planted", &planted, py::arg("bug"), py::arg("out"), "A kernel with a known bug, or none; out is float32.");
}
