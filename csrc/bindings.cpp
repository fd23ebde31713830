// The module: build facts and instruction set levels. Ops are bound in bindings_<group>.cpp.
#include <pybind11/pybind11.h>

#include <chrono>
#include <cstdlib>
#include <vector>

#include "cpu/kernel_table.h"
#define BDGF_ISA base
#include "cpu/parallel.h"
#include "cpu/threads/team.h"
#include "tensor_arg.h"

namespace bdgf {
namespace {

py::list cpu_isas() {
  py::list names;
  const KernelTable* found[4];
  for (int i = 0, n = available_kernels(found); i < n; ++i) names.append(found[i]->isa);
  return names;
}

py::dict build_info() {
  py::dict info;
  info["compiler"] = BDGF_COMPILER;
#ifdef BDGF_WITH_CUDA
  info["cuda"] = BDGF_CUDA_VERSION;
#else
  info["cuda"] = py::none();
  info["cuda_missing_because"] = BDGF_CUDA_REASON;
#endif
  info["cuda_architectures"] = BDGF_CUDA_ARCHITECTURES;
  const std::string threads = thread_source();
  info["threads"] = threads;
  info["openmp"] = threads.find("OpenMP") != std::string::npos;
  info["cpu_isa"] = kernels().isa;
  info["cpu_isas"] = cpu_isas();
  return info;
}

void set_cpu_isa(const std::string& isa) {
  if (const char* problem = select_kernels(isa.c_str())) bad_value("set_cpu_isa", ("'" + isa + "'").c_str(), problem);
}

const KernelTable& table_of(const std::string& isa) {
  const KernelTable* found[4];
  for (int i = 0, n = available_kernels(found); i < n; ++i)
    if (isa == found[i]->isa) return *found[i];
  bad_value("isa", isa.c_str(), "is not available here");
}

// Arrays as bytes objects: tests only.
py::bytes elementwise(const std::string& function, const py::bytes& input, const std::string& isa) {
  const std::string in = input;
  std::vector<float> x(in.size() / 4), y(in.size() / 4);
  std::copy(in.begin(), in.begin() + x.size() * 4, reinterpret_cast<char*>(x.data()));
  if (!table_of(isa).elementwise(function.c_str(), x.data(), y.data(), static_cast<int64_t>(x.size()), 1)) {
    bad_value("elementwise", function.c_str(),
              "is not one of exp, exp2, exp2_bounded, log, softplus, softplus_slope, sigmoid, silu, silu_slope");
  }
  return py::bytes(reinterpret_cast<const char*>(y.data()), y.size() * 4);
}

py::tuple round_trip(bool bfloat, const py::bytes& input, const std::string& isa) {
  const std::string in = input;
  std::vector<float> x(in.size() / 4), y(in.size() / 4);
  std::vector<uint16_t> bits(x.size());
  std::copy(in.begin(), in.begin() + x.size() * 4, reinterpret_cast<char*>(x.data()));
  table_of(isa).round_trip(bfloat, x.data(), bits.data(), y.data(), static_cast<int64_t>(x.size()));
  return py::make_tuple(py::bytes(reinterpret_cast<const char*>(bits.data()), bits.size() * 2),
                        py::bytes(reinterpret_cast<const char*>(y.data()), y.size() * 4));
}

// Evaluations per second of the vector function over 16 KiB per thread, in cache: the limit that benchmarks divide by.
double bench_exp(int num_threads, int64_t repeats, const std::string& function) {
  constexpr int64_t n = 4096;
  if (num_threads < 1 || repeats < 1) bad_value("bench_exp", "num_threads and repeats", "must be positive");
  const KernelTable& table = kernels();
  struct alignas(64) Line {
    float value[16];
  };
  std::vector<Line> in_lines(n / 16 * num_threads), out_lines(n / 16 * num_threads);
  float *in = in_lines[0].value, *out = out_lines[0].value;
  for (int64_t i = 0; i < n * num_threads; ++i) in[i] = -8.0f * static_cast<float>(i % n) / n;
  py::gil_scoped_release release;
  bool known = true;
  auto run = [&](int64_t times) {
    base::parallel_for(num_threads, num_threads, [&](int64_t t) {
      if (!table.elementwise(function.c_str(), &in[t * n], &out[t * n], n, times)) known = false;
    });
  };
  run(1);
  if (!known) bad_value("bench_exp", function.c_str(), "is not a known function");
  const auto start = std::chrono::steady_clock::now();
  run(repeats);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return static_cast<double>(n) * num_threads * repeats / seconds.count();
}

}  // namespace
}  // namespace bdgf

PYBIND11_MODULE(_C, m) {
  using namespace bdgf;
  py::register_local_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const TypeError& e) {
      PyErr_SetString(PyExc_TypeError, e.what());
    }
  });
  if (const char* isa = std::getenv("BDGF_CPU_ISA"); isa && *isa) {
    if (const char* problem = select_kernels(isa)) {
      throw std::runtime_error(std::string("BDGF_CPU_ISA=") + isa + ": " + problem);
    }
  }
  m.doc() = "Native kernels of bdgf_fast; the public functions are in bdgf_fast.ops.";
  m.def("build_info", &build_info, "Compiler, CUDA, source of threads and instruction set levels of this build.");
  m.def("cpu_isa", [] { return kernels().isa; }, "The instruction set level in use.");
  m.def("set_cpu_isa", &set_cpu_isa, py::arg("isa"), "Switch the level, for tests; not while a kernel runs.");
  m.def("cpu_isas", &cpu_isas, "The levels this build has and this CPU runs.");
  m.def("_elementwise", &elementwise, py::arg("function"), py::arg("values"), py::arg("isa"));
  m.def("_round_trip", &round_trip, py::arg("bfloat"), py::arg("values"), py::arg("isa"));
  m.def("bench_exp", &bench_exp, py::arg("num_threads"), py::arg("repeats"), py::arg("function") = "exp2",
        "Evaluations per second of a vector function over 16 KiB per thread; exp2 is the fastest exponential there is.");
  bind_noise(m);
  bind_scan(m);
  bind_attention(m);
  bind_forest(m);
  bind_boxes(m);
}
