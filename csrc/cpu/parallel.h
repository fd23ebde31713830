// Threads for the CPU kernels. The ISA files see this header only; where threads come from is threads/team.h's business.
#pragma once
#include <stdint.h>

namespace bdgf {

typedef void (*TaskFunction)(const void* context, int64_t task);
// Runs tasks 0 ... tasks-1 on at most num_threads threads. Serial inside another parallel region and in a forked child of
// a process that had threads.
void run_tasks(int64_t tasks, int num_threads, TaskFunction function, const void* context);

namespace BDGF_ISA {

// parallel_for(tasks, num_threads, [&](int64_t task) {...}). The results must be the same for any number of threads: which numbers
// are added up, and in which order, must depend on the shapes alone, even where the tasks do not. The body must not throw.
template <class Body>
static inline void parallel_for(int64_t tasks, int num_threads, const Body& body) {
  run_tasks(
      tasks, num_threads, [](const void* context, int64_t task) { (*(const Body*)context)(task); }, &body);
}

}  // namespace BDGF_ISA
}  // namespace bdgf
