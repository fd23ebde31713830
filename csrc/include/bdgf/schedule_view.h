// A noise schedule and the timestep of each sample.
#pragma once
#include <stdint.h>

namespace bdgf {

struct ScheduleView {
  const int64_t* t;  // [batch], stride t_stride, each in 0 ... T-1 (checked before a CPU kernel runs)
  int64_t t_stride;
  const float* sqrt_abar;  // [T]
  const float* sqrt_rest;  // [T], sqrt(1 - abar)
  int64_t steps;           // T
};

}  // namespace bdgf
