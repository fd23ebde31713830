// Threads from whichever OpenMP library the process already holds (torch's, mostly), found by name when first needed: one
// team for both, and nothing to link. A second team would have to share the cores with the first, which spins for a while
// after each of its regions. Where none is found, threads of our own (pool.cpp).
#include <dlfcn.h>

#include "cpu/threads/pool.h"
#include "cpu/threads/team.h"

namespace bdgf {
namespace {

// GNU's entry points (since GOMP 4.0, 2013); LLVM's and Intel's libraries have them too. Torch's library is asked first, with
// what it links: Python opens it for itself alone, so that not every torch has its OpenMP among the names of the whole process.
struct OpenMP {
  void (*parallel)(void (*function)(void*), void* data, unsigned threads, unsigned flags) = nullptr;
  int (*thread_num)() = nullptr;
  OpenMP() {
    if (void* torch = dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD)) look_in(torch);
    if (!found()) look_in(RTLD_DEFAULT);
  }
  void look_in(void* libraries) {
    parallel = reinterpret_cast<decltype(parallel)>(dlsym(libraries, "GOMP_parallel"));
    thread_num = reinterpret_cast<decltype(thread_num)>(dlsym(libraries, "omp_get_thread_num"));
  }
  bool found() const { return parallel && thread_num; }
};
const OpenMP& openmp() {
  static const OpenMP library;
  return library;
}

struct Call {
  MemberFunction function;
  void* context;
};

}  // namespace

const char* thread_source() { return openmp().found() ? "the process's OpenMP" : "std::thread"; }

void run_team(int members, MemberFunction function, void* context) {
  if (!openmp().found()) return run_pool(members, function, context);
  Call call{function, context};
  openmp().parallel(
      [](void* given) {
        const Call& wanted = *static_cast<const Call*>(given);
        wanted.function(wanted.context, openmp().thread_num());
      },
      &call, static_cast<unsigned>(members), 0);
}

}  // namespace bdgf
