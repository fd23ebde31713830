#define BDGF_ISA base
#include "cpu/parallel.h"

#ifdef _OPENMP
#include <omp.h>
#endif
#ifndef _WIN32
#include <dirent.h>
#include <pthread.h>
#endif

#include <atomic>
#include <exception>

namespace bdgf {
namespace {

// A forked child has none of its parent's threads, but the OpenMP runtime it inherits still counts on them: the first
// parallel region would wait for ever. The pool may be torch's rather than ours, so ask the kernel, not ourselves.
std::atomic<bool> serial_only{false};
bool parent_had_threads = false;

#ifndef _WIN32
bool more_than_one_thread() {
  DIR* tasks = opendir("/proc/self/task");
  if (!tasks) return true;  // not Linux: be careful
  int entries = 0;
  while (entries < 4 && readdir(tasks)) ++entries;  // ".", ".." and one per thread
  closedir(tasks);
  return entries > 3;
}

void before_fork() { parent_had_threads = more_than_one_thread(); }
void in_child() {
  if (parent_had_threads) serial_only = true;
}
const int registered = pthread_atfork(before_fork, nullptr, in_child);
#endif

}  // namespace

bool built_with_openmp() {
#ifdef _OPENMP
  return true;
#else
  return false;
#endif
}

void run_tasks(int64_t tasks, int num_threads, TaskFunction function, const void* context) {
#ifdef _OPENMP
  if (num_threads > tasks) num_threads = static_cast<int>(tasks);
  if (num_threads > 1 && !serial_only && !omp_in_parallel()) {
    std::exception_ptr error;
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (int64_t task = 0; task < tasks; ++task) {
      try {
        function(context, task);
      } catch (...) {
#pragma omp critical(bdgf_task_error)
        if (!error) error = std::current_exception();
      }
    }
    if (error) std::rethrow_exception(error);
    return;
  }
#endif
  for (int64_t task = 0; task < tasks; ++task) function(context, task);
}

}  // namespace bdgf
