// What the scan's blocks leave to be added up, always in the same order: f32 partial results of directions, slices of states or
// channel tiles; each block's sums over its rows; and the states of the segments of a long sequence.
#pragma once
#include "cuda/dialect.h"
#include "cuda/selective_scan_launch.h"

namespace bdgf {
namespace BDGF_ISA {

BDGF_DEV float load_any(const ScanTensor& t, int64_t index) {
  return t.dtype == DType::f32 ? load_f32((const float*)t.data + index, t.dtype) : load_f32((const Narrow*)t.data + index, t.dtype);
}
BDGF_DEV void store_any(const ScanTensor& t, int64_t index, float v) {
  if (t.dtype == DType::f32) store_f32((float*)t.data + index, v, t.dtype);
  else store_f32((Narrow*)t.data + index, v, t.dtype);
}

// A warp takes all steps of a row, or all rows of a step, whichever lie next to each other.
__global__ void __launch_bounds__(256) selective_scan_partial_sums_kernel(const ScanCall call, const PartialSum m) {
  BDGF_THREADS(256);
  const int64_t across = m.of_states ? m.to.state : m.to.channel;
  const bool along = along_steps(m.to, across);
  const int64_t outer = along ? m.rows : m.steps, inner = along ? m.steps : m.rows;
  const int64_t tasks = m.segments * m.directions * m.groups * outer;
  for (int64_t task = (int64_t)blockIdx.x * 8 + threadIdx.x / 32; task < tasks; task += (int64_t)gridDim.x * 8) {
    int64_t rest = divide(task, outer);
    const int64_t o = task - rest * outer;
    const int64_t group = rest % m.groups;
    rest = divide(rest, m.groups);
    const int64_t k = rest % m.directions, u = divide(rest, m.directions), segment = m.first + u;
    const int64_t steps = m.by_segment ? steps_of_segment(call, segment) : m.steps;
    for (int64_t i = threadIdx.x % 32; i < inner; i += 32) {
      const int64_t row = along ? o : i, step = along ? i : o;
      if (step >= steps) continue;
      const float* from = m.from + u * m.segment + k * m.direction + group * m.group + row * m.row + step * m.step;
      float total = __ldg(from);
      for (int64_t partial = 1; partial < m.partials; ++partial) total += __ldg(from + partial * m.partial);
      int64_t batch = segment, position = step;
      if (m.by_segment) {
        const Position p = position_of(call, scan_direction(call.a, k), segment, step);
        batch = p.row;
        position = m.of_parameters ? p.parameter : p.input;
      }
      if (m.gate != PartialSum::kNoGate) {
        const ScanTensor& t = call.a.z;
        const float z = load_any(t, batch * t.batch + row * t.channel + position * t.step);
        if (m.gate == PartialSum::kGate) {
          total *= ScanMath::silu(z);
        } else {
          const ScanTensor& g = call.a.grad_out;
          const float grad = g.data ? load_any(g, batch * g.batch + row * g.channel + position * g.step) : 0.0f;
          total *= grad * scan_silu_slope<ScanMath>(z);
        }
      }
      store_any(m.to, batch * m.to.batch + k * m.to.direction + group * m.to.group + row * across + position * m.to.step, total);
    }
  }
}

// Adds up call.sums over `blocks` blocks: the gradients of A, constant B and C, D and delta_bias (blockIdx.y). A block takes 32
// elements, with eight threads for each.
__global__ void __launch_bounds__(256) selective_scan_block_sums_kernel(const ScanCall call, int64_t blocks, bool add) {
  BDGF_THREADS(256);
  BDGF_SHARED(float, parts, [8][33]);
  const SelectiveScanArgs& a = call.a;
  const int job = blockIdx.y, lane = threadIdx.x % 32, part = threadIdx.x / 32;
  const bool matrix = job < 3;
  const ScanTensor& to = job == 0 ? a.grad_A : job == 1 ? a.grad_B : job == 2 ? a.grad_C : job == 3 ? a.grad_D : a.grad_delta_bias;
  if (!to.data || (job == 1 && !a.constant_b) || (job == 2 && !a.constant_c)) return;
  const SumLayout l = sum_layout(call);
  const int64_t width = matrix ? l.matrix : 1, states = matrix ? a.states : 1;
  const int64_t element = (int64_t)blockIdx.x * 32 + lane, all = a.directions * a.dim * states;
  const int64_t n = element % states, channel = divide(element, states) % a.dim, k = divide(divide(element, states), a.dim);
  const int64_t slices = job == 4 ? call.g.slices : 1;
  const int64_t at = (job == 0 ? 0 : job == 1 ? l.b : job == 2 ? l.c : job == 3 ? l.skip : l.bias) +
                     ((k * call.g.slices + n / width) * a.dim + channel) * width + n % width;
  float total = 0.0f;
  if (element < all) {
    for (int64_t slice = 0; slice < slices; ++slice) {
      const float* from = call.sums + at + slice * a.dim * width;
      for (int64_t first = part; first < blocks; first += 64) {
        float v[8];  // in flight at the same time
#pragma unroll
        for (int q = 0; q < 8; ++q) v[q] = first + 8 * q < blocks ? __ldg(from + (first + 8 * q) * l.all) : 0.0f;
#pragma unroll
        for (int q = 0; q < 8; ++q) total += v[q];
      }
    }
  }
  parts[part][lane] = total;
  __syncthreads();
  if (part > 0 || element >= all) return;
  for (int i = 1; i < 8; ++i) total += parts[i][lane];
  float* out = static_cast<float*>(to.data) + k * to.direction + channel * to.channel + (matrix ? n * to.state : 0);
  *out = add ? *out + total : total;
}

// Turns what each segment contributes by itself into the true states (`backwards`: carries) at the segments' borders, in place: a
// segment that starts with x ends with exp(A delta_sum) x plus its own contribution, where delta_sum is the sum of its delta. The
// segment that is taken first holds the initial state (`backwards`: the gradient of the last state) already. A thread for each
// (row, direction, channel, state), eight segments' loads in flight. Forwards it also stores the last state.
__global__ void __launch_bounds__(128) selective_scan_borders_kernel(const ScanCall call, float* states, const float* delta_sums,
                                                                     int64_t rows, bool backwards) {
  BDGF_THREADS(128);
  const SelectiveScanArgs& a = call.a;
  const int64_t inside = a.directions * a.dim * a.states, all = rows * inside, segments_per_row = call.g.segments_per_row;
  for (int64_t i = (int64_t)blockIdx.x * 128 + threadIdx.x; i < all; i += (int64_t)gridDim.x * 128) {
    const int64_t row = divide(i, inside), at = i - row * inside;
    const int64_t direction_channel = divide(at, a.states), n = at - direction_channel * a.states;
    const int64_t k = divide(direction_channel, a.dim), channel = direction_channel - k * a.dim;
    const float A2 = load_parameter(a.A, k * a.A.direction + channel * a.A.channel + n * a.A.state) * kScanLog2E;
    float x = 0.0f;
    for (int64_t first = 0; first < segments_per_row; first += 8) {
      float own[8], delta_sum[8];
#pragma unroll
      for (int q = 0; q < 8; ++q) {
        if (first + q >= segments_per_row) break;
        const int64_t segment = row * segments_per_row + (backwards ? segments_per_row - 1 - first - q : first + q);
        own[q] = states[segment * inside + at];
        delta_sum[q] = __ldg(delta_sums + segment * a.directions * a.dim + direction_channel);
      }
#pragma unroll
      for (int q = 0; q < 8; ++q) {
        if (first + q >= segments_per_row) break;
        const int64_t segment = row * segments_per_row + (backwards ? segments_per_row - 1 - first - q : first + q);
        x = first + q == 0 ? own[q] : fmaf(ScanMath::exp2(A2 * delta_sum[q]), x, own[q]);
        states[segment * inside + at] = x;
      }
    }
    if (!backwards && a.last.data) {
      static_cast<float*>(a.last.data)[row * a.last.batch + channel * a.last.channel + n * a.last.state] = x;
    }
  }
}

}  // namespace BDGF_ISA
}  // namespace bdgf
