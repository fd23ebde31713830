// The module bdgf_launches: the extension's own bindings and host code for CUDA, which records launches where it would make
// them. It takes every CPU tensor for one on a GPU.
#include "launches.h"

#include <pybind11/pybind11.h>

#include <string>
#include <utility>
#include <vector>

#include "cpu/kernel_table.h"
#include "cpu/selective_scan_f64.h"
#include "tensor_arg.h"

namespace bdgf {

[[noreturn]] static void no_cpu_kernels() { throw std::runtime_error("bdgf_launches has no kernels for CPU tensors"); }
const KernelTable& kernels() { no_cpu_kernels(); }
void selective_scan_fwd_f64(const SelectiveScanArgs&, int) { no_cpu_kernels(); }
void selective_scan_bwd_f64(const SelectiveScanArgs&, int) { no_cpu_kernels(); }

}  // namespace bdgf

namespace recorded {

struct Made {
  std::string kernel, parameters;
  dim3 grid, block;
  size_t bytes;
};
static std::vector<Made> made;

void add(const char* kernel, dim3 grid, dim3 block, size_t bytes, const unsigned char* parameters, size_t size) {
  made.push_back({kernel, std::string(reinterpret_cast<const char*>(parameters), size), grid, block, bytes});
}

}  // namespace recorded

PYBIND11_MODULE(bdgf_launches, m) {
  namespace py = pybind11;
  bdgf::bind_noise(m);
  bdgf::bind_scan(m);
  bdgf::bind_attention(m);
  m.def("take", [] {
    py::list found;
    for (const recorded::Made& x : recorded::made)
      found.append(py::make_tuple(x.kernel, py::make_tuple(x.grid.x, x.grid.y, x.grid.z), x.block.x, x.bytes, py::bytes(x.parameters)));
    recorded::made.clear();
    return found;
  }, "The launches since the last call: kernel, grid, threads, dynamic bytes, parameters.");
}
