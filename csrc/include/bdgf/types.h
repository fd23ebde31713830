// Storage types of 16 bits and their conversion by plain integer arithmetic; host only.
#pragma once
#include <stdint.h>
#include <string.h>

namespace bdgf {
struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

static inline __attribute__((always_inline)) float bits_to_float(uint32_t u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}
static inline __attribute__((always_inline)) uint32_t float_to_bits(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return u;
}

// To nearest, ties to even; NaN stays NaN.
static inline __attribute__((always_inline)) uint16_t float_to_bf16(float f) {
  uint32_t u = float_to_bits(f);
  return (f == f ? u + 0x7fffu + ((u >> 16) & 1u) : u | 0x00400000u) >> 16;
}
static inline __attribute__((always_inline)) uint16_t float_to_f16(float f) {
  uint32_t u = float_to_bits(f), sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  if (magnitude >= 0x477ff000u) return sign | 0x7c00u;  // 65520 and above round to infinity
  if (magnitude < 0x38800000u) {                        // below 2^-14: adding 0.5 leaves multiples of 2^-24
    return sign | (float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000u);
  }
  uint32_t odd = (magnitude >> 13) & 1u;
  return sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13);
}
static inline __attribute__((always_inline)) float f16_to_float(uint16_t h) {
  uint32_t sign = (h & 0x8000u) << 16, magnitude = h & 0x7fffu;
  if (magnitude >= 0x7c00u) return bits_to_float(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
  if (magnitude < 0x400u) return bits_to_float(sign | float_to_bits(magnitude * 0x1p-24f));
  return bits_to_float(sign | ((magnitude << 13) + 0x38000000u));
}

static inline __attribute__((always_inline)) float scalar_load(const float* p) { return *p; }
static inline __attribute__((always_inline)) float scalar_load(const bf16* p) {
  return bits_to_float((uint32_t)p->bits << 16);
}
static inline __attribute__((always_inline)) float scalar_load(const f16* p) { return f16_to_float(p->bits); }
static inline __attribute__((always_inline)) void scalar_store(float* p, float v) { *p = v; }
static inline __attribute__((always_inline)) void scalar_store(bf16* p, float v) { p->bits = float_to_bf16(v); }
static inline __attribute__((always_inline)) void scalar_store(f16* p, float v) { p->bits = float_to_f16(v); }

}  // namespace bdgf
