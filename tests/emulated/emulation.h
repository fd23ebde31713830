// A block's threads as fibers on the CPU: what the stand-ins for CUDA's headers call. The threads of a warp meet at its
// collectives (shuffle, vote, __syncwarp), those of a block at its barriers; between two meetings a thread runs alone, and
// a warp runs until all of its threads wait at a barrier of the block. Which warp and which thread is next says the order:
// ascending, descending or random. A kernel that lacks a barrier gives different results in different orders.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional>

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace emulation {

struct Here {
  uint3 thread, block;
  dim3 block_size, grid_size;
};
extern Here here;

enum class Meeting { barrier, barrier_count, barrier_and, barrier_or, sync_warp, ballot, shuffle, shuffle_up, shuffle_down, shuffle_xor };

// Wait for all threads of the block.
int barrier(Meeting kind, int predicate);
// Wait for the lanes of `mask`; the value that this lane receives.
uint64_t meet(Meeting kind, unsigned mask, uint64_t value, int argument, int width);

// The block's shared memory of one declaration, filled with NaN bits when the block began.
void* shared(const void* tag, size_t bytes, size_t alignment);
void* dynamic_shared();
void at_most(unsigned threads);

constexpr size_t kStaticShared = 48 * 1024, kOptInShared = 99 * 1024;  // the smallest opt-in limit among sm_80, 90 and 120

void launch(const char* name, const void* kernel, dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body);
int set_shared_limit(const void* kernel, int bytes);

// What the runtime's cudaGetLastError gives and clears: 0, or an error whose sentence stays until the next one.
int take_error();
const char* error_text(int error);

// For the tests. order: "ascending", "descending", "random".
bool set_order(const char* order, uint64_t seed);
// Calls visit(name, launches so far) for each kernel.
void for_launched(const std::function<void(const char*, int64_t)>& visit);

template <class T>
T exchanged(Meeting kind, unsigned mask, T value, int argument, int width) {
  static_assert(sizeof(T) <= 8, "a shuffle moves at most eight bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  bits = meet(kind, mask, bits, argument, width);
  memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace emulation
