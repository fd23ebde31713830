// Selective scan, backward. For a channel and a state: x_l = a_l x_{l-1} + w_l B_l with the decay a_l = exp(delta_l A) and the
// drive w_l = delta_l u_l; y_l = sum_n C_l x_l + D u_l. From the last step back, lambda_l = g_l C_l + a_{l+1} lambda_{l+1} with
// g = dL/dy and lambda = dL/dx. Then dC_l = sum over channels of g_l x_l, dB_l = sum over channels of lambda_l w_l, and with
// e_l = lambda_l a_l x_{l-1}: dA = sum_l e_l delta_l, ddelta_l = u_l sum_n lambda_l B_l + sum_n e_l A,
// du_l = delta_l sum_n lambda_l B_l + D g_l. (bdgf/scan_step.h derives them, and has all names and the arithmetic of a step.)
//
// Nothing of the forward is kept: selective_scan_bwd.cu first launches the forward's kernel without outputs, for the states before
// the chunks (call.starts) and, where a sequence is cut into segments, for the states and the carries at their borders. A block
// then takes a segment chunk by chunk (64 steps) from its end: the states before every eight steps of the chunk are computed again
// and kept in shared memory; then, tile by tile (16 steps) and eight steps by eight, decays and states are computed once more into
// registers, and the adjoint runs back over them.
//
// dB and dC sum over channels: over the 8 to 32 channels of a warp by shuffles, over the warps of the tile through
// shared memory, over tiles by selective_scan_sum.cuh, always in the same order. Lane bits 0 and 1 permute the states
// that a thread's registers stand for (register i: state i ^ (lane & 3)), so that in each of the first two exchanges all lanes
// keep the same registers and send the same registers, without a select; B and C are staged in all four orders.
// dA, dD, d(delta_bias) and the gradients of constant B and C sum over steps and rows: a block sums over its own rows into
// call.sums, and selective_scan_block_sums_kernel adds up the blocks in a fixed order.
//
// Instructions per (step, channel, state), inner loops: at least 4 for each of the two times that the state is computed and 8 for
// the adjoint, 16; executed on sm_90 5.4, 5.9 and, with the sums over channels and states, 11.4.
#pragma once
#include "cuda/dialect.h"
#include "cuda/selective_scan_bwd_tile.cuh"

namespace bdgf {
namespace BDGF_ISA {

// -------------------------------------------------------------------------------------------- the recurrence, again
// Computes the states before each group of steps of a chunk, into `kept`. Returns the first step of the tile whose delta and u are
// still staged, or -1.
template <class T, bool kConstant>
BDGF_DEV_METHOD int BackwardScan<T, kConstant>::keep_states(int chunk, int steps) {
  const bool from_zero = chunk == 0 && !has_states_before(call);
  if (from_zero) {
#pragma unroll
    for (int i = 0; i < kThreadStates; ++i) kept[i] = 0.0f;
  }
  // Borders are rare: loops that are not unrolled, whose addresses would fill the registers.
#pragma unroll 1
  for (int i = 0; i < kThreadStates && !from_zero; ++i) {
    if (!exists(i)) kept[i] = 0.0f;
    else if (chunk == 0) kept[i] = state_before(call, b.k, pack.segment, b.channel + c, state(i));
    else kept[i] = __ldg(call.starts + start_index(call, b.k, pack.segment, chunk, b.channel + c, state(i)));
  }
  int staged = -1;
  float now[kThreadStates];
#pragma unroll
  for (int i = 0; i < kThreadStates; ++i) now[i] = kept[i];
#pragma unroll 1
  for (int t = 0; t + kGroupSteps < steps; t += kGroupSteps) {
    if (t % kBackwardSteps == 0) {
      staged = t;
      stage((int64_t)chunk * kChunkSteps + t, smaller(steps - t, kBackwardSteps), true, false);
    }
#pragma unroll
    for (int j = 0; j < kGroupSteps; ++j) {
      const int at = t % kBackwardSteps + j;
      const float2 delta_u = pair[at * kRow + c];
      const StateQuad bs = load_quad(b_mine + at * b_pitch);
      const float drive = delta_u.x * delta_u.y;
#pragma unroll
      for (int i = 0; i < kThreadStates; ++i) scan_step<ScanMath>(delta_u.x, A2[i], drive, bs.v[i], now[i]);
    }
#pragma unroll
    for (int i = 0; i < kThreadStates; ++i) kept[(t / kGroupSteps + 1) * kThreadStates + i] = now[i];
  }
  return staged;
}
// Runs and records step j of the group at step t of the tile; `before` is the state before the group.
template <class T, bool kConstant>
BDGF_DEV_METHOD void BackwardScan<T, kConstant>::record(int t, int j, const float* before) {
  const float2 delta_u = pair[(t + j) * kRow + c];
  const StateQuad bs = load_quad(b_mine + (t + j) * b_pitch);
  const float drive = delta_u.x * delta_u.y;
#pragma unroll
  for (int i = 0; i < kThreadStates; ++i) {
    x[j][i] = j ? x[j - 1][i] : before[i];
    decay[j][i] = scan_step<ScanMath>(delta_u.x, A2[i], drive, bs.v[i], x[j][i]);
  }
}

// -------------------------------------------------------------------------------------------- the adjoint
// The adjoint over a staged tile, group by group. A group has eight steps; in a pack it is one row, whose steps are rounded up to a
// multiple of four. `tile` is the first step of the tile in its chunk, `count` the number of steps that are staged.
template <class T, bool kConstant>
BDGF_DEV_METHOD void BackwardScan<T, kConstant>::tile_back(int chunk, int tile, int count) {
  // The steps that a group has, without the empty ones after a packed row's end: those count for nothing, although e_l is not 0
  // there where the last state has a gradient.
  const int most = packed() ? (int)pack.steps : kGroupSteps;
#pragma unroll 1
  for (int t = (count - 1) / row_slot(most) * row_slot(most); t >= 0; t -= row_slot(most)) {
    const int n = smaller(count - t, most);
    const int64_t segment = packed() ? pack.segment + t / row_slot(most) : pack.segment;
    if (packed() || (int64_t)chunk * kChunkSteps + tile + t + n == pack.steps) load_borders(segment);
    const float* const before = kept + (packed() ? 0 : (tile + t) / kGroupSteps) * kThreadStates;
#pragma unroll
    for (int j = 0; j < kFoldSteps; ++j) record(t, j, before);
    if (n > kFoldSteps) {
#pragma unroll
      for (int j = kFoldSteps; j < kGroupSteps; ++j) record(t, j, before);
      four_back(t, kFoldSteps, n, before);
    }
    four_back(t, 0, n, before);
    if (a.grad_initial.data && (packed() || chunk * kChunkSteps + tile + t == 0)) store_grad_initial(segment);
  }
  __syncthreads();
}
// Loads what the adjoint carries into a segment from the one after it and, in a pack, the state before the segment.
template <class T, bool kConstant>
BDGF_DEV_METHOD void BackwardScan<T, kConstant>::load_borders(int64_t segment) {
  const bool zero = !has_adjoint_after(call) && !(packed() && has_states_before(call));
  if (zero) {
#pragma unroll
    for (int i = 0; i < kThreadStates; ++i) carry[i] = 0.0f;
    if (packed()) {
#pragma unroll
      for (int i = 0; i < kThreadStates; ++i) kept[i] = 0.0f;
    }
    return;
  }
#pragma unroll 1
  for (int i = 0; i < kThreadStates; ++i) {
    kept[kEdge + i] = exists(i) ? adjoint_after(call, b.k, segment, b.channel + c, state(i)) : 0.0f;
    if (packed()) kept[i] = exists(i) ? state_before(call, b.k, segment, b.channel + c, state(i)) : 0.0f;
  }
#pragma unroll
  for (int i = 0; i < kThreadStates; ++i) carry[i] = kept[kEdge + i];
}
template <class T, bool kConstant>
BDGF_DEV_METHOD void BackwardScan<T, kConstant>::store_grad_initial(int64_t segment) {
  const int64_t row = divide(segment, call.g.segments_per_row);
#pragma unroll
  for (int i = 0; i < kThreadStates; ++i) kept[kEdge + i] = carry[i];
#pragma unroll 1
  for (int i = 0; i < kThreadStates; ++i) {
    const ScanTensor& o = a.grad_initial;
    if (!exists(i) || segment != row * call.g.segments_per_row) continue;
    static_cast<float*>(o.data)[row * o.batch + (b.channel + c) * o.channel + state(i) * o.state] = kept[kEdge + i];
  }
}

// Four recorded steps, `from` ... `from` + 3 of the group at step t of the tile, backwards; `n` steps of the group exist.
template <class T, bool kConstant>
BDGF_DEV_METHOD void BackwardScan<T, kConstant>::four_back(int t, int from, int n, const float* before) {
  FourSteps f;
  if (gated) recompute_y(f, t + from, from);
#pragma unroll
  for (int i = kFoldSteps - 1; i >= 0; --i) step_back(f, i, t, from + i, before);
  fold_terms(f, t + from);
  finish_gradients(f, t, from, n);
}
template <class T, bool kConstant>
BDGF_DEV_METHOD void BackwardScan<T, kConstant>::recompute_y(FourSteps& f, int at, int from) {
#pragma unroll
  for (int i = 0; i < kFoldSteps; ++i) {
    const StateQuad cs = load_quad(c_mine + (at + i) * c_pitch);
    const float(&now)[kThreadStates] = x[from + i];
    f.y[i] = fmaf(cs.v[0], now[0], fmaf(cs.v[1], now[1], fmaf(cs.v[2], now[2], cs.v[3] * now[3])));
  }
  fold_steps(f.y, split, lane);
}
// The adjoint of step j of the group at step t, which is number i of its four, and the sums of its terms of dB and dC over the
// channels of eight lanes: of these, lane bits 0 and 1 then say which state's sum a lane holds, bit 2 whether it is of dB or dC.
template <class T, bool kConstant>
BDGF_DEV_METHOD void BackwardScan<T, kConstant>::step_back(FourSteps& f, int i, int t, int j, const float* before) {
  constexpr unsigned whole = 0xffffffffu;
  const float2 delta_u = pair[(t + j) * kRow + c];
  const float gy = tile_g[(t + j) * kRow + c], drive = delta_u.x * delta_u.y;
  const StateQuad bs = load_quad(b_mine + (t + j) * b_pitch), cs = load_quad(c_mine + (t + j) * c_pitch);
  f.grad_delta_decay[i] = f.grad_drive[i] = 0.0f;
  float term_b[kThreadStates], term_c[kThreadStates];
#pragma unroll
  for (int n = 0; n < kThreadStates; ++n) {
    const float state_before = j ? x[j - 1][n] : before[n];
    const float lambda = scan_adjoint_step<ScanMath>(decay[j][n], state_before, delta_u.x, gy, A2[n], bs.v[n], cs.v[n], carry[n],
                                                     f.grad_delta_decay[i], f.grad_drive[i], grad_A[n]);
    term_b[n] = lambda * drive;
    term_c[n] = gy * x[j][n];
  }
  if (kConstant && a.constant_b) {
#pragma unroll
    for (int n = 0; n < kThreadStates; ++n) kept[kSumB + n] += term_b[n];
  }
  if (kConstant && a.constant_c) {
#pragma unroll
    for (int n = 0; n < kThreadStates; ++n) kept[kSumC + n] += term_c[n];
  }
  term_b[0] += __shfl_xor_sync(whole, term_b[2], 2);
  term_b[1] += __shfl_xor_sync(whole, term_b[3], 2);
  term_c[0] += __shfl_xor_sync(whole, term_c[2], 2);
  term_c[1] += __shfl_xor_sync(whole, term_c[3], 2);
  term_b[0] += __shfl_xor_sync(whole, term_b[1], 1);
  term_c[0] += __shfl_xor_sync(whole, term_c[1], 1);
  const bool upper = lane & 4;  // from here on these lanes hold the terms of dC, the others those of dB
  f.term[i] = (upper ? term_c[0] : term_b[0]) + __shfl_xor_sync(whole, upper ? term_b[0] : term_c[0], 4);
}
// The rest of the sums of dB and dC over a warp's channels.
template <class T, bool kConstant>
BDGF_DEV_METHOD void BackwardScan<T, kConstant>::fold_terms(FourSteps& f, int at) {
  constexpr unsigned whole = 0xffffffffu;
  if (split < 4) {
#pragma unroll
    for (int i = 0; i < kFoldSteps; ++i) f.term[i] += __shfl_xor_sync(whole, f.term[i], 8);
  }
  if (split < 2) {
#pragma unroll
    for (int i = 0; i < kFoldSteps; ++i) f.term[i] += __shfl_xor_sync(whole, f.term[i], 16);
  }
  if (lane % lanes < 8) {
    float* const row = terms + (thread / 32 * kBackwardSteps + at) * kTermRow;
    float* const to = row + (lane & 4 ? 16 : 0) + s * kThreadStates + order;
#pragma unroll
    for (int i = 0; i < kFoldSteps; ++i) to[i * kTermRow] = f.term[i];
  }
}
// Sums over the states, and computes ddelta, du and, with a gate, y from them; adds to the sums of dD and d(delta_bias).
template <class T, bool kConstant>
BDGF_DEV_METHOD void BackwardScan<T, kConstant>::finish_gradients(FourSteps& f, int t, int from, int n) {
  fold_steps(f.grad_delta_decay, split, lane);
  fold_steps(f.grad_drive, split, lane);
  __syncwarp();  // all lanes of the channel have read these pairs
#pragma unroll
  for (int i = 0; i < kFoldSteps; ++i) {
    const int at = from + s * own + i;
    if (i < own && at < n) {
      const int e = (t + at) * kRow + c;
      const float2 delta_u = pair[e];
      const float gy = tile_g[e], D = skip[c];
      float grad_delta = scan_grad_delta<ScanMath>(f.grad_delta_decay[i], f.grad_drive[i], delta_u.y);
      if (a.softplus) grad_delta *= scan_softplus_slope<ScanMath>(delta_u.x);
      sum_bias += grad_delta;
      sum_D = fmaf(gy, delta_u.y, sum_D);
      pair[e] = make_float2(grad_delta, fmaf(delta_u.x, f.grad_drive[i], gy * D));
      if (gated) tile_g[e] = fmaf(D, delta_u.y, f.y[i]);
    }
  }
}

template <class T, bool kConstant>
__global__ void __launch_bounds__(kMostThreads, 3) selective_scan_bwd_kernel(const ScanCall call) {
  BDGF_THREADS(kMostThreads);
  BDGF_DYNAMIC_SHARED(float, shared);
  BackwardScan<T, kConstant> scan(call, shared);
  scan.start();
  for (int index = 0; scan.next_pack(index); ++index) {
    for (int chunk = scan.last_chunk(); chunk >= 0; --chunk) {
      const int steps = scan.steps_of_chunk(chunk);
      int staged = scan.packed() ? -1 : scan.keep_states(chunk, steps);
#pragma unroll 1
      for (int tile = (steps - 1) / kBackwardSteps * kBackwardSteps; tile >= 0; tile -= kBackwardSteps) {
        const int count = smaller(steps - tile, kBackwardSteps);
        scan.stage((int64_t)chunk * kChunkSteps + tile, count, staged != tile, true);
        staged = -1;
        scan.tile_back(chunk, tile, count);
        scan.store_tile();
      }
    }
  }
  scan.store_sums();
}

}  // namespace BDGF_ISA
}  // namespace bdgf
