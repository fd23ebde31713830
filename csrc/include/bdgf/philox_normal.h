// philox_normal: out[b, ...] = standard normals addressed by NoiseAddress.
#pragma once
#include "bdgf/noise.h"
#include "bdgf/tensor_view.h"

namespace bdgf {

struct PhiloxNormalArgs {
  TensorView out;  // [batch, ...] contiguous, f32 | f16 | bf16
  NoiseAddress noise;
};

}  // namespace bdgf
