// Threads of our own, where neither OpenMP nor libdispatch is at hand. They start when first needed, as many as the largest
// team asked for, sleep between calls and end with the process. Several callers may be served at once.
#include "cpu/threads/pool.h"

#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

namespace bdgf {
namespace {

struct Job {
  MemberFunction function;
  void* context;
  int members;
  int next = 1;     // the caller is member 0
  int running = 0;  // of the members that the pool took
  Job* behind = nullptr;
  std::condition_variable ended{};
};

class Pool {
 public:
  void run(Job& job) {
    {
      const std::lock_guard<std::mutex> guard(lock_);
      start(job.members - 1);
      Job** end = &first_;
      while (*end) end = &(*end)->behind;
      *end = &job;
    }
    for (int m = 1; m < job.members; ++m) wake_.notify_one();
    job.function(job.context, 0);
    std::unique_lock<std::mutex> guard(lock_);
    if (job.next < job.members) leave(job);  // whoever was not taken by now has nothing left to do
    job.ended.wait(guard, [&] { return job.running == 0; });
  }

 private:
  void start(int wanted) {
    try {
      for (; threads_ < wanted; ++threads_) std::thread([this] { serve(); }).detach();
    } catch (const std::system_error&) {
      // The system gives no more threads: those that run do the work.
    }
  }
  void leave(Job& job) {
    Job** at = &first_;
    while (*at != &job) at = &(*at)->behind;
    *at = job.behind;
  }
  void serve() {
    std::unique_lock<std::mutex> guard(lock_);
    for (;;) {
      wake_.wait(guard, [&] { return first_ != nullptr; });
      Job& job = *first_;
      const int member = job.next++;
      if (job.next == job.members) leave(job);
      ++job.running;
      guard.unlock();
      job.function(job.context, member);
      guard.lock();
      if (--job.running == 0) job.ended.notify_one();  // under the lock: the job is gone once its caller has it
    }
  }

  std::mutex lock_;
  std::condition_variable wake_;
  Job* first_ = nullptr;
  int threads_ = 0;
};

}  // namespace

void run_pool(int members, MemberFunction function, void* context) {
  static Pool& pool = *new Pool;  // never destroyed: its threads may wait in it until the process is gone
  Job job{function, context, members};
  pool.run(job);
}

}  // namespace bdgf
