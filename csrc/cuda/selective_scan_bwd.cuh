// Selective scan, backward. Nothing of the forward is kept. A unit is taken chunk by chunk from its end: the states
// before every eight steps of the chunk are computed again and kept in shared memory; then, tile by tile and eight steps
// by eight, decays and states are computed once more into registers and the recurrence is run backwards on them. The
// states before the chunks come from call.starts (selective_scan_fwd.cuh).
//
// dB and dC sum over channels: over the 8 to 32 channels of a warp by shuffles, over the warps of the tile through
// shared memory, over tiles by selective_scan_sum.cuh, always in the same order. Lane bits 0 and 1 permute the states
// that a thread's registers stand for (register i: state i ^ (lane & 3)), so that each of the first two exchanges keeps
// registers and sends registers that are the same for all lanes, without a select; B and C are staged in all four orders.
// What sums over rows (dA, dD, ...) is summed over the block's rows and left in call.sums.
//
// Instructions per (element, state), inner loops: at least 4 for each of the two times that the state is computed, 8 for
// the adjoint, and the reductions' share.
#pragma once
#include "cuda/dialect.h"
#include "cuda/selective_scan_tile.cuh"

namespace bdgf {
namespace BDGF_ISA {

constexpr int kOrders = 4;             // of four states
constexpr int kConstantRow = 20;       // pitch of a constant matrix's channels
constexpr int kTermRow = 33;           // pitch of a step's 16 terms of dB, then of dC
constexpr int kChunkGroups = kChunkSteps / kGroupSteps;
enum BackwardStream { kInU, kInDelta, kInB, kInC, kGradOut, kInZ, kGradU, kGradDelta, kGradZ, kGradB, kGradC, kBackwardStreams };
struct alignas(16) BackwardShared {
  ScanBlock block;
  Stream streams[kBackwardStreams];
};

static __host__ __device__ __forceinline__ int backward_matrix_row(int split) { return kOrders * kThreadStates * split + 4; }
static __host__ __device__ __forceinline__ int backward_matrix_floats(int split) {
  const int variable = kBackwardSteps * backward_matrix_row(split), constant = kTileChannels * kConstantRow;
  return variable > constant ? variable : constant;
}
// Floats of dynamic shared memory.
static inline size_t backward_shared_floats(int split, bool constant_b, bool constant_c) {
  const int threads = kTileChannels * split;
  return sizeof(BackwardShared) / 4 + 2 * backward_matrix_floats(split) + 2 * kBackwardStreams * kBackwardSteps + 3 * kBackwardSteps * kRow +
         2 * kTileChannels + (kChunkGroups + 1) * kThreadStates * threads + split * kBackwardSteps * kTermRow +
         (constant_b + constant_c) * kThreadStates * threads;
}

// One block's entries in call.sums: dA, then constant dB and dC [plane][channel][state of the slice], dD [plane][channel],
// d delta_bias [plane][channel].
struct SumLayout {
  int64_t matrix, b, c, skip, bias, all;
};
static __host__ __device__ __forceinline__ SumLayout sum_layout(const ScanCall& call) {
  SumLayout l;
  const int64_t lines = call.g.planes * call.a.dim;
  l.matrix = kThreadStates * call.g.split;
  l.b = lines * l.matrix;
  l.c = l.b + (call.a.constant_b ? lines * l.matrix : 0);
  l.skip = l.c + (call.a.constant_c ? lines * l.matrix : 0);
  l.bias = l.skip + lines;
  l.all = l.bias + lines;
  return l;
}

// Constant: [channel][state group][register]. Variable: [step][state group][order][register].
BDGF_DEV void fill_constant_orders(float* to, const ScanTensor& t, const ScanBlock& b, int split) {
  const int width = kThreadStates * split;
  for (int i = threadIdx.x; i < kTileChannels * width; i += blockDim.x) {
    const int c = i / width, e = i % width, n = e ^ (c & 3);
    const bool inside = c < b.channels && n < b.states;
    to[c * kConstantRow + e] = inside ? load_value(t, (b.channel + c) * t.channel + (b.slice * width + n) * t.state) : 0.0f;
  }
}
// B and C in one go: kBackwardSteps * split quadruples each, one of the two for each half of the threads.
BDGF_DEV void stage_orders(float* tile_b, float* tile_c, const SelectiveScanArgs& a, Lines lines_b, Lines lines_c,
                           bool with_c, int steps, int states, int split) {
  const int half = kBackwardSteps * split, item = threadIdx.x % half;
  const bool second = threadIdx.x >= half;
  if (second ? a.constant_c || !with_c : a.constant_b) return;
  const ScanTensor& t = second ? a.C : a.B;
  const bool along = along_steps(t, t.state);
  const int j = along ? item % kBackwardSteps : item / split, group = along ? item / kBackwardSteps : item % split;
  const int left = states - group * kThreadStates;
  const Walk w{j, group * kThreadStates, 0, 1, j < steps ? left : 0};
  float r[4];
  load_four(r, t.dtype, second ? lines_c.table : lines_b.table, second ? lines_c.across : lines_b.across, w, 0);
  float4* to = reinterpret_cast<float4*>((second ? tile_c : tile_b) + j * backward_matrix_row(split) + group * kOrders * kThreadStates);
  to[0] = make_float4(r[0], r[1], r[2], r[3]);
  to[1] = make_float4(r[1], r[0], r[3], r[2]);
  to[2] = make_float4(r[2], r[3], r[0], r[1]);
  to[3] = make_float4(r[3], r[2], r[1], r[0]);
}

__global__ void __launch_bounds__(kMostThreads, 4) selective_scan_backward_kernel(const ScanCall call) {
  BDGF_THREADS(kMostThreads);
  BDGF_DYNAMIC_SHARED(float, shared);
  const SelectiveScanArgs& a = call.a;
  const ScanGrid& g = call.g;
  const int thread = threadIdx.x, threads = blockDim.x, lane = thread % 32, split = g.split;
  const int matrix_row = backward_matrix_row(split);
  BackwardShared& block = *reinterpret_cast<BackwardShared*>(shared);
  const ScanBlock& b = block.block;
  float* const tile_b = shared + sizeof(BackwardShared) / 4;
  float* const tile_c = tile_b + backward_matrix_floats(split);
  int64_t* const tables = reinterpret_cast<int64_t*>(tile_c + backward_matrix_floats(split));
  float2* const pair = reinterpret_cast<float2*>(tables + kBackwardStreams * kBackwardSteps);  // (delta, u), then (d delta, d u)
  float* const tile_g = reinterpret_cast<float*>(pair + kBackwardSteps * kRow);               // d y, then y where there is a gate
  float* const bias = tile_g + kBackwardSteps * kRow;
  float* const skip = bias + kTileChannels;
  float* const marks = skip + kTileChannels + thread;  // [group of eight steps][register], every `threads` floats
  float* const edge = marks + kChunkGroups * kThreadStates * threads;  // [register]: a state or adjoint at a unit's border
  float* const terms = skip + kTileChannels + (kChunkGroups + 1) * kThreadStates * threads;  // [warp][step][kTermRow]
  float* const sums_b = terms + split * kBackwardSteps * kTermRow + thread;            // constant B, C: [register]
  float* const sums_c = sums_b + (a.constant_b ? kThreadStates * threads : 0);

  if (thread == 0) {
    const ScanBlock mine = scan_block(call);
    block.block = mine;
    block.streams[kInU] = input_stream(a.u, mine);
    block.streams[kInDelta] = delta_stream(a, mine);
    block.streams[kInB] = matrix_stream(a.B, mine, mine.group_b, split);
    block.streams[kInC] = matrix_stream(a.C, mine, mine.group_c, split);
    block.streams[kGradOut] = input_stream(a.grad_out, mine);
    block.streams[kInZ] = input_stream(a.z, mine);
    block.streams[kGradU] = target_stream(call.grad_u, mine, kByInput);
    block.streams[kGradDelta] = target_stream(call.grad_delta, mine, a.shared_delta ? kByInput : kByParameter);
    block.streams[kGradZ] = target_stream(call.grad_z, mine, kByInput);
    block.streams[kGradB] = matrix_target_stream(call.grad_B, mine, mine.group_b, split);
    block.streams[kGradC] = matrix_target_stream(call.grad_C, mine, mine.group_c, split);
  }
  __syncthreads();
  const int lanes = 32 / split, s = lane / lanes, c = thread / 32 * lanes + lane % lanes, order = lane & 3;
  const int64_t slice_state = b.slice * kThreadStates * split;
  // Register i stands for state (slice_state + s * 4 + (i ^ order)).
  const auto state_of = [&](int i) { return s * kThreadStates + (i ^ order); };
  const auto exists = [&](int i) { return c < b.channels && state_of(i) < b.states; };
  float A2[kThreadStates], grad_A[kThreadStates], adjoint[kThreadStates];
#pragma unroll
  for (int i = 0; i < kThreadStates; ++i) {
    A2[i] = exists(i) ? load_value(a.A, b.k * a.A.direction + (b.channel + c) * a.A.channel + (slice_state + state_of(i)) * a.A.state) * kScanLog2E : 0.0f;
    grad_A[i] = adjoint[i] = 0.0f;
    if (a.constant_b) sums_b[i * threads] = 0.0f;
    if (a.constant_c) sums_c[i * threads] = 0.0f;
  }
  float to_skip = 0.0f, to_bias = 0.0f;
  if (thread < kTileChannels) {
    const int64_t to = b.channel + thread;
    const bool inside = thread < b.channels;
    bias[thread] = inside && a.delta_bias.data ? load_value(a.delta_bias, b.k * a.delta_bias.direction + to * a.delta_bias.channel) : 0.0f;
    skip[thread] = inside && a.D.data && b.slice == 0 ? load_value(a.D, b.k * a.D.direction + to * a.D.channel) : 0.0f;
  }
  if (a.constant_b) fill_constant_orders(tile_b, a.B, b, split);
  if (a.constant_c) fill_constant_orders(tile_c, a.C, b, split);
  const float* const b_mine = tile_b + (a.constant_b ? c * kConstantRow + s * kThreadStates : (s * kOrders + order) * kThreadStates);
  const float* const c_mine = tile_c + (a.constant_c ? c * kConstantRow + s * kThreadStates : (s * kOrders + order) * kThreadStates);
  const int b_pitch = a.constant_b ? 0 : matrix_row, c_pitch = a.constant_c ? 0 : matrix_row;
  const bool along = along_steps(a.u, a.u.channel), gated = a.z.data != nullptr;
  const int elements = kBackwardSteps / split;
  const int64_t bundles = divide(g.units + g.bundle - 1, g.bundle);

  for (int64_t bundle = b.block * g.bundles_per_block; bundle < (b.block + 1) * g.bundles_per_block && bundle < bundles; ++bundle) {
    const int64_t unit = g.first_unit + bundle * g.bundle, rest = g.first_unit + g.units - unit;
    const int rows = rest < g.bundle ? (int)rest : g.bundle;
    const int64_t row_steps = unit_steps(call, unit), all = rows * row_steps;

    const auto lines = [&](int stream) { return Lines{tables + stream * kBackwardSteps, block.streams[stream].across}; };
    // Tile `first`: its tables, delta and u, and B (and all the rest that the adjoint needs).
    const auto stage = [&](int64_t first, int count, bool inputs, bool rest_too) {
      __syncthreads();  // the tile before is done with
      if (thread % kBackwardSteps < count) {
        const int j = thread % kBackwardSteps, r = rows > 1 ? j / (int)row_steps : 0;
        const Place p = place_of(call, b.way, unit + r, first + j - r * row_steps);
        fill_tables(tables, kBackwardSteps, j, block.streams, thread / kBackwardSteps, threads / kBackwardSteps,
                    rest_too ? kBackwardStreams : kInC, p);
      }
      __syncthreads();
      const Walk w = walk_tile(along, kBackwardSteps, kTileChannels, count, b.channels);
      if (inputs) stage_pairs(pair, a, lines(kInU), lines(kInDelta), Lines{}, bias, w, elements);
      stage_orders(tile_b, tile_c, a, lines(kInB), lines(kInC), rest_too, count, b.states, split);
      if (rest_too) {
#pragma unroll 1
        for (int i = 0; i < elements; i += 4) {
          float gy[4] = {}, z[4];
          if (a.grad_out.data) load_four(gy, a.grad_out.dtype, lines(kGradOut).table, lines(kGradOut).across, w, i);
          if (gated) load_four(z, a.z.dtype, lines(kInZ).table, lines(kInZ).across, w, i);
#pragma unroll
          for (int q = 0; q < 4; ++q) {
            const float v = gated && i + q < w.valid ? gy[q] * scan_silu<ScanMath>(z[q]) : gy[q];
            tile_g[(w.j + (i + q) * w.dj) * kRow + w.c + (i + q) * w.dc] = v;
          }
        }
      }
      __syncthreads();
    };

    const int64_t chunks = rows > 1 ? 1 : (all + kChunkSteps - 1) / kChunkSteps;
    for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
      const int64_t begin = chunk * kChunkSteps, steps = all - begin < kChunkSteps ? all - begin : kChunkSteps;
      int64_t staged = -1;  // the tile whose delta and u are in place
      if (rows == 1) {
        // Borders are rare: loops that are not unrolled, whose addresses would fill the registers.
#pragma unroll 1
        for (int i = 0; i < kThreadStates; ++i) {
          const int64_t n = slice_state + state_of(i);
          if (!exists(i)) marks[i * threads] = 0.0f;
          else if (chunk == 0) marks[i * threads] = state_before(call, b.k, unit, b.channel + c, n);
          else marks[i * threads] = __ldg(call.starts + start_index(call, b.k, unit, chunk, b.channel + c, n));
        }
        float x[kThreadStates];
#pragma unroll
        for (int i = 0; i < kThreadStates; ++i) x[i] = marks[i * threads];
        for (int t = 0; t + kGroupSteps < steps; t += kGroupSteps) {
          if (t % kBackwardSteps == 0) {
            staged = begin + t;
            stage(staged, smaller((int)steps - t, kBackwardSteps), true, false);
          }
#pragma unroll
          for (int j = 0; j < kGroupSteps; ++j) {
            const int at = t % kBackwardSteps + j;
            const float2 du = pair[at * kRow + c];
            const float4 b4 = *reinterpret_cast<const float4*>(b_mine + at * b_pitch);
            const float bs[kThreadStates] = {b4.x, b4.y, b4.z, b4.w};
            const float drive = du.x * du.y;
#pragma unroll
            for (int i = 0; i < kThreadStates; ++i) scan_step<ScanMath>(du.x, A2[i], drive, bs[i], x[i]);
          }
#pragma unroll
          for (int i = 0; i < kThreadStates; ++i) marks[((t / kGroupSteps + 1) * kThreadStates + i) * threads] = x[i];
        }
      }

      for (int tile = ((int)steps - 1) / kBackwardSteps * kBackwardSteps; tile >= 0; tile -= kBackwardSteps) {
        const int64_t first = begin + tile;
        const int count = smaller((int)steps - tile, kBackwardSteps);
        stage(first, count, staged != first, true);

        // Groups of up to eight steps; of a bundle, a group is a row.
        const int group_steps = rows > 1 ? (int)row_steps : kGroupSteps, groups = (count + group_steps - 1) / group_steps;
        for (int group = groups - 1; group >= 0; --group) {
          const int t = group * group_steps, n = smaller(count - t, group_steps);
          const int64_t row = rows > 1 ? unit + group : unit;
          const bool at_start = rows > 1 || first + t == 0, at_end = rows > 1 || first + t + n == row_steps;
          if (at_end) {
#pragma unroll 1
            for (int i = 0; i < kThreadStates; ++i) {
              const int64_t n = slice_state + state_of(i);
              edge[i * threads] = exists(i) ? adjoint_after(call, b.k, row, b.channel + c, n) : 0.0f;
              if (rows > 1) marks[i * threads] = exists(i) ? state_before(call, b.k, row, b.channel + c, n) : 0.0f;
            }
#pragma unroll
            for (int i = 0; i < kThreadStates; ++i) adjoint[i] = edge[i * threads];
          }
          float before[kThreadStates];
          const int mark = rows > 1 ? 0 : (tile + t) / kGroupSteps;
#pragma unroll
          for (int i = 0; i < kThreadStates; ++i) before[i] = marks[(mark * kThreadStates + i) * threads];
          float decay[kGroupSteps][kThreadStates], x[kGroupSteps][kThreadStates];
#pragma unroll
          for (int j = 0; j < kGroupSteps; ++j) {
            if (j < n) {
              const float2 du = pair[(t + j) * kRow + c];
              const float4 b4 = *reinterpret_cast<const float4*>(b_mine + (t + j) * b_pitch);
              const float bs[kThreadStates] = {b4.x, b4.y, b4.z, b4.w};
              const float drive = du.x * du.y;
#pragma unroll
              for (int i = 0; i < kThreadStates; ++i) {
                x[j][i] = j ? x[j - 1][i] : before[i];
                decay[j][i] = scan_step<ScanMath>(du.x, A2[i], drive, bs[i], x[j][i]);
              }
            }
          }
          float by_decay[kGroupSteps], by_drive[kGroupSteps], y[kGroupSteps];
#pragma unroll
          for (int j = kGroupSteps - 1; j >= 0; --j) {
            by_decay[j] = by_drive[j] = y[j] = 0.0f;
            if (j < n) {
              const float2 du = pair[(t + j) * kRow + c];
              const float gy = tile_g[(t + j) * kRow + c], drive = du.x * du.y;
              const float4 b4 = *reinterpret_cast<const float4*>(b_mine + (t + j) * b_pitch);
              const float4 c4 = *reinterpret_cast<const float4*>(c_mine + (t + j) * c_pitch);
              const float bs[kThreadStates] = {b4.x, b4.y, b4.z, b4.w}, cs[kThreadStates] = {c4.x, c4.y, c4.z, c4.w};
              if (gated) {
#pragma unroll
                for (int i = 0; i < kThreadStates; ++i) y[j] = fmaf(cs[i], x[j][i], y[j]);
              }
              float tb[kThreadStates], tc[kThreadStates];
#pragma unroll
              for (int i = 0; i < kThreadStates; ++i) {
                scan_adjoint_step<ScanMath>(decay[j][i], j ? x[j - 1][i] : before[i], x[j][i], du.x, drive, gy, A2[i], bs[i], cs[i],
                                            adjoint[i], by_decay[j], by_drive[j], grad_A[i], tb[i], tc[i]);
                if (a.constant_b) sums_b[i * threads] += tb[i];
                if (a.constant_c) sums_c[i * threads] += tc[i];
              }
              constexpr unsigned whole = 0xffffffffu;
              tb[0] += __shfl_xor_sync(whole, tb[2], 2), tb[1] += __shfl_xor_sync(whole, tb[3], 2);
              tc[0] += __shfl_xor_sync(whole, tc[2], 2), tc[1] += __shfl_xor_sync(whole, tc[3], 2);
              tb[0] += __shfl_xor_sync(whole, tb[1], 1), tc[0] += __shfl_xor_sync(whole, tc[1], 1);
              const bool upper = lane & 4;  // from here on these lanes are dC's
              float term = (upper ? tc[0] : tb[0]) + __shfl_xor_sync(whole, upper ? tb[0] : tc[0], 4);
              for (int by = 8; by < lanes; by *= 2) term += __shfl_xor_sync(whole, term, by);
              if (lane % lanes < 8) {
                terms[(thread / 32 * kBackwardSteps + t + j) * kTermRow + (upper ? 16 : 0) + s * kThreadStates + order] = term;
              }
            }
          }
          if (at_start && a.grad_initial.data && row % g.segments == 0) {
#pragma unroll
            for (int i = 0; i < kThreadStates; ++i) edge[i * threads] = adjoint[i];
#pragma unroll 1
            for (int i = 0; i < kThreadStates; ++i) {
              const ScanTensor& o = a.grad_initial;
              if (!exists(i)) continue;
              store_value(o, row / g.segments * o.batch + (b.channel + c) * o.channel + (slice_state + state_of(i)) * o.state, edge[i * threads]);
            }
          }
          fold_steps(by_decay, split, lane);
          fold_steps(by_drive, split, lane);
          if (gated) fold_steps(y, split, lane);
          __syncwarp();  // all lanes of the channel have read the pairs
          const int own = kGroupSteps / split;
#pragma unroll
          for (int i = 0; i < kGroupSteps; ++i) {
            if (i < own && s * own + i < n) {
              const int e = (t + s * own + i) * kRow + c;
              const float2 du = pair[e];
              const float gy = tile_g[e], D = skip[c];
              float to_delta = fmaf(by_decay[i], kScanLn2, du.y * by_drive[i]);
              if (a.softplus) to_delta *= scan_softplus_slope<ScanMath>(du.x);
              to_bias += to_delta;
              to_skip = fmaf(gy, du.y, to_skip);
              pair[e] = make_float2(to_delta, fmaf(du.x, by_drive[i], gy * D));
              if (gated) tile_g[e] = fmaf(D, du.y, y[i]);
            }
          }
        }
        __syncthreads();

        const Walk w = walk_tile(along, kBackwardSteps, kTileChannels, count, b.channels);
#pragma unroll 1
        for (int i = 0; i < elements; i += 4) {
          float to_delta[4], to_u[4], to_z[4], z[4], go[4] = {};
          const bool raw = call.grad_z.planes;  // y itself: the gate needs the sum of the planes
          const bool to_gate = call.grad_z.t.data != nullptr;
          if (to_gate && !raw) {
            load_four(z, a.z.dtype, lines(kInZ).table, lines(kInZ).across, w, i);
            if (a.grad_out.data) load_four(go, a.grad_out.dtype, lines(kGradOut).table, lines(kGradOut).across, w, i);
          }
#pragma unroll
          for (int q = 0; q < 4; ++q) {
            const int e = (w.j + (i + q) * w.dj) * kRow + w.c + (i + q) * w.dc;
            const float2 found = i + q < w.valid ? pair[e] : make_float2(0.0f, 0.0f);
            to_delta[q] = found.x, to_u[q] = found.y, to_z[q] = 0.0f;
            if (to_gate && i + q < w.valid) to_z[q] = raw ? tile_g[e] : go[q] * tile_g[e] * scan_silu_slope<ScanMath>(z[q]);
          }
          const auto leave = [&](const float(&r)[4], const ScanTarget& o, int slot) __attribute__((always_inline)) {
            if (o.t.data) store_four(r, o.t.dtype, lines(slot).table, lines(slot).across, w, i);
          };
          leave(to_delta, call.grad_delta, kGradDelta);
          leave(to_u, call.grad_u, kGradU);
          leave(to_z, call.grad_z, kGradZ);
        }
        const auto leave_terms = [&](const ScanTarget& o, int slot, int part) {
          if (!o.t.data) return;
          const Walk v = walk_tile(along_steps(o.t, o.t.state), kBackwardSteps, kThreadStates * split, count, b.states);
          for (int i = 0; i < v.valid; ++i) {  // kBackwardSteps * 4 split / (32 split) = 2 elements a thread
            const int j = v.j + i * v.dj, n = v.c + i * v.dc;
            float total = 0.0f;
            for (int warp = 0; warp < split; ++warp) total += terms[(warp * kBackwardSteps + j) * kTermRow + part + n];
            const int64_t at = lines(slot).table[j] + n * lines(slot).across;
            if (o.t.dtype == DType::f32) store_f32((float*)at, total);
            else if (o.t.dtype == DType::bf16) store_f32((__nv_bfloat16*)at, total);
            else store_f32((__half*)at, total);
          }
        };
        leave_terms(call.grad_B, kGradB, 0);
        leave_terms(call.grad_C, kGradC, 16);
      }
    }
  }

  for (int by = lanes; by < 32; by *= 2) {
    to_skip += __shfl_xor_sync(0xffffffffu, to_skip, by);
    to_bias += __shfl_xor_sync(0xffffffffu, to_bias, by);
  }
  if (c >= b.channels) return;
  const SumLayout l = sum_layout(call);
  float* const sums = call.sums + b.block * l.all;
  const int64_t line = b.plane * a.dim + b.channel + c;
#pragma unroll
  for (int i = 0; i < kThreadStates; ++i) {
    store_global(sums + line * l.matrix + state_of(i), grad_A[i]);
    if (a.constant_b) store_global(sums + l.b + line * l.matrix + state_of(i), sums_b[i * threads]);
    if (a.constant_c) store_global(sums + l.c + line * l.matrix + state_of(i), sums_c[i * threads]);
  }
  if (s == 0) {
    store_global(sums + l.skip + line, to_skip);
    store_global(sums + l.bias + line, to_bias);
  }
}

}  // namespace BDGF_ISA
}  // namespace bdgf
