// run_tasks on its own. With BDGF_THREADS_MAIN a program (tests/native/test_check.py builds it under ThreadSanitizer).
#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#ifndef _WIN32
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "cpu/parallel.h"

namespace check {
namespace {

namespace base = bdgf::base;

bool each_task_once(int64_t tasks, int threads) {
  std::vector<std::atomic<int>> seen(static_cast<size_t>(tasks));
  base::parallel_for(tasks, threads, [&](int64_t task) { ++seen[static_cast<size_t>(task)]; });
  for (const auto& times : seen)
    if (times != 1) return false;
  return true;
}

// How many threads at most were inside at the same time.
int most_at_once(int64_t tasks, int threads) {
  std::atomic<int> inside{0}, most{0};
  base::parallel_for(tasks, threads, [&](int64_t) {
    const int now = ++inside;
    for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {}
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    --inside;
  });
  return most;
}

bool error_arrives() {
  std::atomic<int> ran{0};
  try {
    base::parallel_for(64, 4, [&](int64_t task) {
      ++ran;
      if (task == 63) throw std::runtime_error("task 63");
    });
  } catch (const std::runtime_error& error) {
    return std::string(error.what()) == "task 63" && ran == 64;
  }
  return false;
}

bool nested_is_serial() {
  std::atomic<int> sum{0};
  std::atomic<bool> strayed{false};
  base::parallel_for(8, 4, [&](int64_t) {
    const auto here = std::this_thread::get_id();
    base::parallel_for(8, 4, [&](int64_t) {
      if (std::this_thread::get_id() != here) strayed = true;
      ++sum;
    });
  });
  return sum == 64 && !strayed;
}

bool many_callers() {
  std::atomic<bool> good{true};
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&good] {
      for (int i = 0; i < 50; ++i)
        if (!each_task_once(17, 3)) good = false;
    });
  }
  for (std::thread& caller : callers) caller.join();
  return good;
}

#ifndef _WIN32
bool forked_child_finishes() {
  each_task_once(64, 4);
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    const auto here = std::this_thread::get_id();
    bool alone = true;
    base::parallel_for(64, 4, [&](int64_t) { alone = alone && std::this_thread::get_id() == here; });
    _exit(alone ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 && each_task_once(64, 4);
}
#endif

}  // namespace

void check_threads(std::vector<std::string>& problems) {
  const auto hold = [&](bool good, const std::string& what) {
    if (!good) problems.push_back("threads: " + what);
  };
  for (int64_t tasks : {0, 1, 2, 3, 7, 64, 1000, 4099})
    for (int threads : {1, 2, 3, 8, 300}) {
      hold(each_task_once(tasks, threads), std::to_string(tasks) + " tasks on " + std::to_string(threads) + " threads did not run once each");
    }
  hold(most_at_once(40, 8) > 1, "eight threads asked for, and one ran at a time");
  hold(most_at_once(24, 2) <= 2, "more than the two threads asked for ran at once");
  hold(most_at_once(4, 1) == 1, "more than the one thread asked for ran at once");
  hold(error_arrives(), "an exception of a task did not reach the caller");
  hold(nested_is_serial(), "a region inside a region left its thread");
  hold(many_callers(), "several callers at once disturb each other");
#ifndef _WIN32
  hold(forked_child_finishes(), "a forked child does not run its tasks by itself");
#endif
}

}  // namespace check

#ifdef BDGF_THREADS_MAIN
#include <cstdio>
int main() {
  std::vector<std::string> problems;
  check::check_threads(problems);
  for (const std::string& problem : problems) std::printf("%s\n", problem.c_str());
  std::printf("%zu problems\n", problems.size());
  return problems.empty() ? 0 : 1;
}
#endif
