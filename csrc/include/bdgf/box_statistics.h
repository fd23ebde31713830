// box_statistics: each channel's centre value, then for every radius r the mean m over the (2 r + 1)^2 box around it and
// sqrt(max(mean of squares - m^2, 0) + kBoxEpsilon), and the gradient.
#pragma once
#include "bdgf/tensor_view.h"

namespace bdgf {

constexpr float kBoxEpsilon = 1e-6f;

struct BoxStatisticsArgs {
  TensorView x;          // [batch, C, H, W] f32 | f16 | bf16, any strides
  TensorView out;        // [batch, C (1 + 2 count), H - 2 reach, W - 2 reach], x's dtype, any strides; in the backward its gradient
  TensorView grad_x;     // like x; backward only
  TensorView workspace;  // contiguous f32
  const int64_t* radii;  // [count], each 0 ... reach
  int64_t count, reach;
};

constexpr int64_t kBoxStrip = 32;  // floats of a strip: columns whose rows are summed together

// Channels that lie side by side in a tile: one of a plane, a cache line of f32 where the channels are contiguous.
static inline __attribute__((always_inline)) int64_t box_step(bool channels_last, int64_t channels) {
  return !channels_last ? 1 : channels < 16 ? channels : 16;
}
// Outputs of a tile: rows and columns. A wide window makes a tall tile, whose margin is then a smaller share.
static inline __attribute__((always_inline)) int64_t box_rows(int64_t radius) { return radius <= 8 ? 32 : 64; }
static inline __attribute__((always_inline)) int64_t box_columns(int64_t step) { return step == 1 ? 256 : 32; }
// Floats of a row of column sums, with room for the last strip.
static inline __attribute__((always_inline)) int64_t box_line(int64_t columns, int64_t step, int64_t radius) {
  return ((columns + 2 * radius) * step + 15) / 16 * 16 + kBoxStrip;
}
// Floats of scratch of a thread: the strips of both moments, the column sums of a tile, the sums of four rows or of a strip.
static inline __attribute__((always_inline)) int64_t box_scratch(int64_t step, int64_t radius) {
  const int64_t rows = box_rows(radius), line = box_line(box_columns(step), step, radius);
  const int64_t sums = 8 * line > rows * kBoxStrip ? 8 * line : rows * kBoxStrip;
  return 2 * ((rows + 2 * radius) * kBoxStrip + 16) + 2 * rows * line + 16 + sums + 16;
}
// Floats of the backward's maps of a thread: two of the windows' slopes with their frame of zeros, one of the gradient.
static inline __attribute__((always_inline)) int64_t box_maps(int64_t step, int64_t reach, int64_t height, int64_t width) {
  return (2 * (height + 2 * reach) * (width + 2 * reach) + height * width) * step + 48;
}

}  // namespace bdgf
