// How the kernels divide a workspace that the caller allocates: run once with a null base to count the floats, then with the
// memory to hand them out, so that the size and the pieces cannot disagree.
#pragma once
#include <stdint.h>

#ifndef BDGF_ISA
#define BDGF_ISA base
#endif

// In the namespace of the instruction set, because an inline function compiled for AVX-512 must not serve an older processor.
namespace bdgf {
namespace BDGF_ISA {

static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t greatest_common_divisor(int64_t a, int64_t b) { return b ? greatest_common_divisor(b, a % b) : a; }

// Hands out a workspace in 64-byte aligned pieces; with a null base it only counts.
class Arena {
 public:
  explicit Arena(float* base) : base_(base) {}
  float* take(int64_t floats) {
    float* const p = base_ ? base_ + used : nullptr;
    used += ceil_div(floats, 16) * 16;
    return p;
  }
  int64_t used = 0;

 private:
  float* base_;
};

}  // namespace BDGF_ISA
}  // namespace bdgf
