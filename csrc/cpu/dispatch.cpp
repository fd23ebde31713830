// Which instruction set level runs. How an operation is added: docs/adding_an_operation.md.
#define BDGF_ISA base
#include "cpu/kernel_table.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>

#ifdef BDGF_X86
#include <cpuid.h>
#endif

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
// Asked of the processor itself: not every compiler's run-time library answers __builtin_cpu_supports rightly.
struct Cpuid {
  bool avx2 = false, avx512 = false;
  Cpuid() {
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid_count(1, 0, &a, &b, &c, &d)) return;
    const unsigned fma = 1u << 12, xsave = 1u << 27, avx = 1u << 28, f16c = 1u << 29;
    if ((c & (fma | xsave | avx | f16c)) != (fma | xsave | avx | f16c)) return;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));  // the registers that the operating system keeps
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
    const unsigned f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31, all = f | dq | bw | vl;
    avx2 = (low & 0x6) == 0x6 && (b & (1u << 5));
    avx512 = avx2 && (low & 0xe6) == 0xe6 && (b & all) == all;
  }
};
const Cpuid& cpuid() {
  static const Cpuid found;
  return found;
}
bool has_avx2() { return cpuid().avx2; }
bool has_avx512() { return cpuid().avx512; }
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
