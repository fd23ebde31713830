// The scheduler of fibers behind emulation.h. One launch at a time, on the calling thread.
#include "emulation.h"

#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define SWITCH_BEGINS(save, bottom, size) __sanitizer_start_switch_fiber(save, bottom, size)
#define SWITCH_ENDS(saved, bottom, size) __sanitizer_finish_switch_fiber(saved, bottom, size)
#define UNPOISON(p, size) __asan_unpoison_memory_region(p, size)
#else
#define SWITCH_BEGINS(save, bottom, size)
#define SWITCH_ENDS(saved, bottom, size)
#define UNPOISON(p, size)
#endif

namespace emulation {

Here here;

namespace {

constexpr size_t kStack = 256 * 1024, kPage = 4096;
enum class State { ready, in_warp, in_block, done };
enum { kInvalidConfiguration = 9, kInvalidValue = 1, kLaunchFailure = 719 };

#ifdef __x86_64__
// Saves what the ABI asks to keep on the old stack, and returns on the new one.
extern "C" void emulation_switch(void** save, void* to);
asm(R"(
.text
.globl emulation_switch
.hidden emulation_switch
.type emulation_switch, @function
emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulation_switch, .-emulation_switch
)");
struct Context {
  void* stack = nullptr;
  void start(char* bottom, size_t size, void (*entry)()) {
    void** top = reinterpret_cast<void**>(bottom + size);
    *--top = nullptr;  // the entry's return address: it never returns
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    stack = top;
  }
  static void change(Context& from, Context& to) { emulation_switch(&from.stack, to.stack); }
};
#else
struct Context {
  ucontext_t context;
  void start(char* bottom, size_t size, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = bottom, context.uc_stack.ss_size = size, context.uc_link = nullptr;
    makecontext(&context, entry, 0);
  }
  static void change(Context& from, Context& to) { swapcontext(&from.context, &to.context); }
};
#endif

struct Fiber {
  char* bottom;
  Context context;
  void* fake_stack;
  State state;
  uint3 index;
  Meeting kind;
  unsigned mask;
  int argument, width;
  uint64_t value, result;
  bool given_up = false;

  Fiber() {
    char* p = static_cast<char*>(mmap(nullptr, kStack + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    mprotect(p, kPage, PROT_NONE);
    bottom = p + kPage;
  }
};

struct Allocation {
  const void* tag;
  size_t bytes;
  std::unique_ptr<char[]> data;
};

std::vector<std::unique_ptr<Fiber>> fibers;  // kept from launch to launch
std::vector<Allocation> allocations;         // of this launch
std::unique_ptr<char[]> dynamic_memory;
unsigned count;                              // threads of the block
Fiber* current;
Context scheduler;
const void* scheduler_bottom;
size_t scheduler_size;
const std::function<void()>* body;
std::string failure, last_error_text;
int last_error;
std::map<const void*, size_t> shared_limits;
std::map<std::string, int64_t> launched;

enum Order { kAscending, kDescending, kRandom } order;
uint64_t order_seed;
std::mt19937_64 generator;

void leave([[maybe_unused]] bool for_good) {
  Fiber* me = current;
  SWITCH_BEGINS(for_good ? nullptr : &me->fake_stack, scheduler_bottom, scheduler_size);
  Context::change(me->context, scheduler);
  SWITCH_ENDS(me->fake_stack, nullptr, nullptr);
}

// Gives the launch up; the threads stay where they are and are never resumed.
void fail(const std::string& what) {
  if (failure.empty()) failure = what;
  current->state = State::done;
  leave(false);
}

void enter() {
  SWITCH_ENDS(nullptr, &scheduler_bottom, &scheduler_size);
  (*body)();
  current->state = State::done;
  leave(true);
}

void resume(Fiber& fiber) {
  void* fake_stack = nullptr;
  current = &fiber;
  here.thread = fiber.index;
  SWITCH_BEGINS(&fake_stack, fiber.bottom, kStack);
  Context::change(scheduler, fiber.context);
  SWITCH_ENDS(fake_stack, nullptr, nullptr);
  (void)fake_stack;
  current = nullptr;
}

const char* name_of(Meeting kind) {
  static const char* const names[] = {"__syncthreads", "__syncthreads_count", "__syncthreads_and", "__syncthreads_or", "__syncwarp",
                                      "a vote", "__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"};
  return names[static_cast<int>(kind)];
}

// visit(i) for all i below n, in the order asked for, until it returns false.
template <class Visit>
void in_order(unsigned n, const Visit& visit) {
  if (order != kRandom) {
    for (unsigned i = 0; i < n; ++i)
      if (!visit(order == kDescending ? n - 1 - i : i)) return;
    return;
  }
  uint8_t list[32];  // warps, or lanes of a warp
  for (unsigned i = 0; i < n; ++i) list[i] = static_cast<uint8_t>(i);
  for (unsigned i = n; i-- > 0;) {
    std::swap(list[i], list[generator() % (i + 1)]);
    if (!visit(list[i])) return;
  }
}

// Runs a warp until its threads are done or wait at the block's barrier; in random order, one round of its threads.
bool run_warp(unsigned warp) {
  const unsigned first = 32 * warp, lanes = std::min(32u, count - first);
  bool any = false, moved = true;
  while (moved && failure.empty()) {
    moved = false;
    in_order(lanes, [&](unsigned lane) {
      Fiber& fiber = *fibers[first + lane];
      if (fiber.state != State::ready) return true;
      moved = any = true;
      resume(fiber);
      return failure.empty();
    });
    if (order == kRandom) break;
  }
  return any;
}

bool release_barrier() {
  unsigned waiting = 0, done = 0, total = 0;
  Meeting kind{};
  bool mixed = false;
  for (unsigned i = 0; i < count; ++i) {
    const Fiber& fiber = *fibers[i];
    done += fiber.state == State::done;
    if (fiber.state != State::in_block) continue;
    mixed |= waiting && kind != fiber.kind;
    kind = fiber.kind, ++waiting, total += fiber.value != 0;
  }
  if (done == count) return false;
  if (waiting != count || mixed) {
    std::string what = "the threads of a block do not meet:";
    for (unsigned i = 0; i < count; ++i) {
      const Fiber& fiber = *fibers[i];
      if (i < 4 || i + 2 > count || fiber.state != fibers[i - 1]->state)
        what += " thread " + std::to_string(i) + (fiber.state == State::done ? " has returned," : " waits at " + std::string(name_of(fiber.kind)) + ",");
    }
    failure = what.substr(0, 600);
    return false;
  }
  const unsigned result = kind == Meeting::barrier_and ? total == count : kind == Meeting::barrier_or ? total > 0 : total;
  for (unsigned i = 0; i < count; ++i) fibers[i]->state = State::ready, fibers[i]->result = result;
  return true;
}

void run_block() {
  for (Allocation& a : allocations) memset(a.data.get(), 0xff, a.bytes);
  for (unsigned i = 0; i < count; ++i) {
    Fiber& fiber = *fibers[i];
    if (fiber.given_up) {
      UNPOISON(fiber.bottom, kStack);
      fiber.given_up = false;
    }
    fiber.context.start(fiber.bottom, kStack, enter);
    fiber.fake_stack = nullptr, fiber.state = State::ready;
    const dim3& size = here.block_size;
    fiber.index = {i % size.x, i / size.x % size.y, i / size.x / size.y};
  }
  const unsigned warps = (count + 31) / 32;
  do {
    for (bool moved = true; moved && failure.empty();) {
      moved = false;
      in_order(warps, [&](unsigned warp) { return moved |= run_warp(warp), failure.empty(); });
    }
  } while (failure.empty() && release_barrier());
}

void report(int error, const char* name, const std::string& what) {
  last_error = error;
  last_error_text = std::string(name) + ": " + what;
}

}  // namespace

int barrier(Meeting kind, int predicate) {
  Fiber& me = *current;
  me.kind = kind, me.value = predicate != 0, me.state = State::in_block;
  leave(false);
  return static_cast<int>(me.result);
}

uint64_t meet(Meeting kind, unsigned mask, uint64_t value, int argument, int width) {
  Fiber& me = *current;
  auto wrong = [&](const std::string& what) { fail(name_of(kind) + (": " + what)); };
  const unsigned self = here.thread.x + here.block_size.x * (here.thread.y + here.block_size.y * here.thread.z);
  const unsigned first = self / 32 * 32, lane = self % 32;
  me.kind = kind, me.mask = mask, me.value = value, me.argument = argument, me.width = width;
  me.state = State::in_warp;
  if (!(mask >> lane & 1)) wrong("lane " + std::to_string(lane) + " is not in its own mask");
  if (width < 1 || width > 32 || (width & (width - 1))) wrong("width " + std::to_string(width));
  bool all = true;
  for (unsigned l = 0; l < 32; ++l) {
    if (!(mask >> l & 1)) continue;
    if (first + l >= count) wrong("the mask names lane " + std::to_string(l) + ", which the block does not have");
    const Fiber& other = *fibers[first + l];
    if (other.state == State::done) wrong("the mask names lane " + std::to_string(l) + ", which has returned");
    all &= other.state == State::in_warp && other.mask == mask && other.kind == kind;
  }
  if (all) {  // the last to come works it out for everybody
    uint64_t votes = 0;
    for (unsigned l = 0; l < 32; ++l)
      if (mask >> l & 1) votes |= static_cast<uint64_t>(fibers[first + l]->value != 0) << l;
    for (unsigned l = 0; l < 32; ++l) {
      if (!(mask >> l & 1)) continue;
      Fiber& other = *fibers[first + l];
      const int segment = static_cast<int>(l) / other.width * other.width, last = segment + other.width - 1;
      int from = static_cast<int>(l);
      switch (kind) {
        case Meeting::shuffle: from = segment + (other.argument & (other.width - 1)); break;
        case Meeting::shuffle_up: from -= other.argument; if (from < segment) from = static_cast<int>(l); break;
        case Meeting::shuffle_down: from += other.argument; if (from > last) from = static_cast<int>(l); break;
        case Meeting::shuffle_xor: from ^= other.argument; if (from > last) from = static_cast<int>(l); break;
        default: break;
      }
      other.result = kind == Meeting::ballot ? votes : kind == Meeting::sync_warp ? 0 : mask >> from & 1 ? fibers[first + from]->value : ~uint64_t{0};
      other.state = State::ready;
    }
  }
  leave(false);
  return me.result;
}

void* shared(const void* tag, size_t bytes, size_t) {
  for (Allocation& a : allocations)
    if (a.tag == tag) return a.data.get();
  size_t total = bytes;
  for (Allocation& a : allocations) total += a.bytes;
  if (total > kStaticShared) fail("declares " + std::to_string(total) + " bytes of shared memory; it takes 49152");
  allocations.push_back({tag, bytes, std::unique_ptr<char[]>(new char[bytes])});
  memset(allocations.back().data.get(), 0xff, bytes);
  return allocations.back().data.get();
}

void* dynamic_shared() { return dynamic_memory.get(); }

void at_most(unsigned threads) {
  if (count > threads) fail("has " + std::to_string(count) + " threads a block; its launch bound is " + std::to_string(threads));
}

int set_shared_limit(const void* kernel, int bytes) {
  if (bytes < 0 || static_cast<size_t>(bytes) > kOptInShared) return kInvalidValue;
  return shared_limits[kernel] = static_cast<size_t>(bytes), 0;
}

void launch(const char* name, const void* kernel, dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& run) {
  const auto limit = shared_limits.find(kernel);
  const size_t most = std::max(kStaticShared, limit == shared_limits.end() ? 0 : limit->second);
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    return report(kInvalidConfiguration, name, "grid (" + std::to_string(grid.x) + ", " + std::to_string(grid.y) + ", " + std::to_string(grid.z) + ")");
  if (!threads || threads > 1024 || block.x > 1024 || block.y > 1024 || block.z > 64)
    return report(kInvalidConfiguration, name, "block of " + std::to_string(threads) + " threads");
  if (shared_bytes > most) return report(kInvalidValue, name, std::to_string(shared_bytes) + " bytes of dynamic shared memory; its limit is " + std::to_string(most));
  ++launched[name];
  failure.clear();
  allocations.clear();
  count = static_cast<unsigned>(threads);
  while (fibers.size() < count) fibers.push_back(std::make_unique<Fiber>());
  body = &run;
  here.block_size = block, here.grid_size = grid;
  generator.seed(order_seed);
  dynamic_memory.reset(new char[shared_bytes]);
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  const uint64_t shift = order == kRandom ? generator() % blocks : 0;
  for (uint64_t i = 0; i < blocks && failure.empty(); ++i) {
    const uint64_t b = order == kDescending ? blocks - 1 - i : (i + shift) % blocks;
    here.block = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y), static_cast<unsigned>(b / grid.x / grid.y)};
    memset(dynamic_memory.get(), 0xff, shared_bytes);
    run_block();
  }
  allocations.clear();
  dynamic_memory.reset();
  for (unsigned i = 0; i < count && !failure.empty(); ++i) fibers[i]->given_up = true;
  if (!failure.empty()) report(kLaunchFailure, name, failure);
}

int take_error() {
  const int error = last_error;
  last_error = 0;
  return error;
}
const char* error_text(int) { return last_error_text.c_str(); }

bool set_order(const char* name, uint64_t seed) {
  const std::string text = name;
  if (text != "ascending" && text != "descending" && text != "random") return false;
  order = text == "ascending" ? kAscending : text == "descending" ? kDescending : kRandom;
  order_seed = seed;
  return true;
}

void for_launched(const std::function<void(const char*, int64_t)>& visit) {
  for (const auto& [name, times] : launched) visit(name.c_str(), times);
}

}  // namespace emulation
