// Which instruction set level runs.
//
// To add an op (say `foo`, forward):
//   1. csrc/include/bdgf/foo.h      struct FooArgs: TensorViews and scalars, plain data, with every shape in a comment.
//   2. csrc/cpu/foo.inc             namespace bdgf { namespace BDGF_ISA { static void foo(const FooArgs&, int num_threads)
//                                   written with Vf, load, store, fma (bdgf/simd.h), exp ... (bdgf/math.h), normals()
//                                   (cpu/noise.inc) and parallel_for (cpu/parallel.h). No std header, no exception, no
//                                   allocation: scratch up to 256 KiB on the stack, more from a tensor in FooArgs.
//                                   Every function static; no recursion into code compiled elsewhere.
//   3. csrc/cpu/isa/kernels.inc     one #include line.
//   4. csrc/cpu/kernel_table.h      #include "bdgf/foo.h" and one line X(foo, FooArgs) in BDGF_CPU_KERNELS.
//   5. csrc/bindings_<group>.cpp    view the tensors (tensor_arg.h), check what would crash (check.h), release the GIL,
//                                   kernels().foo(args, num_threads). A new file: add bind_<group> to bindings.cpp and
//                                   the file to CMakeLists.txt.
//   6. csrc/cuda/foo.cuh, foo.cu    the CUDA kernel and its launch, where there is one (see cuda/launch.h).
//   7. tests/native/test_foo.py       against bdgf_fast.reference, on every level of _C.cpu_isas().
#define BDGF_ISA base
#include "cpu/kernel_table.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>

namespace bdgf {

extern const KernelTable kernels_scalar;
#ifdef BDGF_X86
extern const KernelTable kernels_avx2, kernels_avx512;
#endif
#ifdef BDGF_ARM64
extern const KernelTable kernels_neon;
#endif

namespace {

struct Level {
  const char* name;
  const KernelTable* table;  // null: not in this build
  bool (*runs_here)();
};

bool always() { return true; }
#ifdef BDGF_X86
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

const Level levels[] = {
    {"scalar", &kernels_scalar, always},
#ifdef BDGF_ARM64
    {"neon", &kernels_neon, always},
#else
    {"neon", nullptr, nullptr},
#endif
#ifdef BDGF_X86
    {"avx2", &kernels_avx2, has_avx2},
    {"avx512", &kernels_avx512, has_avx512},
#else
    {"avx2", nullptr, nullptr},
    {"avx512", nullptr, nullptr},
#endif
};

std::atomic<const KernelTable*> current{nullptr};

}  // namespace

int available_kernels(const KernelTable* out[4]) {
  int n = 0;
  for (const Level& level : levels)
    if (level.table && level.runs_here()) out[n++] = level.table;
  return n;
}

const char* select_kernels(const char* isa) {
  for (const Level& level : levels) {
    if (std::strcmp(level.name, isa) != 0) continue;
    if (!level.table) return "this build has no such level (it was compiled for another processor family)";
    if (!level.runs_here()) return "this CPU does not have those instructions";
    current = level.table;
    return nullptr;
  }
  return "known levels are scalar, neon, avx2 and avx512";
}

const KernelTable& kernels() {
  const KernelTable* table = current.load(std::memory_order_acquire);
  if (table) return *table;
  const KernelTable* found[4];
  table = found[available_kernels(found) - 1];
  current.store(table, std::memory_order_release);
  return *table;
}

}  // namespace bdgf
