#define BDGF_ISA base
#include "cpu/parallel.h"

#ifndef _WIN32
#include <dirent.h>
#include <pthread.h>
#endif

#include <atomic>
#include <exception>
#include <mutex>

#include "cpu/threads/team.h"

namespace bdgf {
namespace {

// A forked child has none of its parent's threads, but the run-time library it inherits (OpenMP's, libdispatch, our pool)
// still counts on them: the first parallel region would wait for ever. The threads may be torch's rather than ours, so
// ask the kernel, not ourselves.
std::atomic<bool> serial_only{false};

#ifndef _WIN32
bool parent_had_threads = false;

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

thread_local bool inside = false;  // of a region: what it calls runs on this thread

constexpr int kMostThreads = 256;
constexpr int64_t kPieces = 8;  // of a share: how finely work moves from a slow core to a fast one

// Tasks in contiguous shares, one a member of the team, so that a core meets the same memory from call to call; a member
// that is done helps the others, so that the slow half of a processor, or a member that was late or never came, holds
// nobody up.
struct Region {
  struct alignas(64) Share {
    std::atomic<int64_t> next;
    int64_t end;
  };
  TaskFunction function;
  const void* context;
  int members;
  Share shares[kMostThreads];
  std::mutex lock;
  std::exception_ptr error;

  Region(int64_t tasks, int members, TaskFunction function, const void* context)
      : function(function), context(context), members(members) {
    for (int m = 0; m < members; ++m) {
      shares[m].next.store(tasks * m / members, std::memory_order_relaxed);
      shares[m].end = tasks * (m + 1) / members;
    }
  }
  void work_off(Share& share) {
    const int64_t left = share.end - share.next.load(std::memory_order_relaxed);
    const int64_t piece = left > kPieces ? left / kPieces : 1;
    for (;;) {
      const int64_t first = share.next.fetch_add(piece, std::memory_order_relaxed);
      if (first >= share.end) return;
      const int64_t last = first + piece < share.end ? first + piece : share.end;
      for (int64_t task = first; task < last; ++task) function(context, task);
    }
  }
  static void run_member(void* self, int member) {
    Region& region = *static_cast<Region*>(self);
    inside = true;
    for (int k = 0; k < region.members; ++k) {
      try {
        region.work_off(region.shares[(member + k) % region.members]);
      } catch (...) {
        const std::lock_guard<std::mutex> guard(region.lock);
        if (!region.error) region.error = std::current_exception();
      }
    }
    inside = false;
  }
};

}  // namespace

void run_tasks(int64_t tasks, int num_threads, TaskFunction function, const void* context) {
  if (num_threads > kMostThreads) num_threads = kMostThreads;
  if (num_threads > tasks) num_threads = static_cast<int>(tasks);
  if (num_threads > 1 && !serial_only && !inside) {
    Region region(tasks, num_threads, function, context);
    run_team(num_threads, &Region::run_member, &region);
    if (region.error) std::rethrow_exception(region.error);
    return;
  }
  for (int64_t task = 0; task < tasks; ++task) function(context, task);
}

}  // namespace bdgf
