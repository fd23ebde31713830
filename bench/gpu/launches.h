// Included before every file of csrc/cuda in place of a GPU: a launch is recorded, not made (launches.py).
#pragma once
#include <string.h>

#include "cuda/dialect.h"

#undef BDGF_LAUNCH
#define BDGF_LAUNCH(kernel, grid, block, bytes, stream, ...) \
  (void)(stream), recorded::Launch<(kernel)>::make(grid, block, bytes, __VA_ARGS__)

namespace recorded {

// `kernel` as the compiler writes a type that holds it.
void add(const char* kernel, dim3 grid, dim3 block, size_t bytes, const unsigned char* parameters, size_t size);

template <auto Kernel>
struct Launch;
template <class... A, void (*Kernel)(A...)>
struct Launch<Kernel> {
  static void make(dim3 grid, dim3 block, size_t bytes, A... arguments) {
    unsigned char parameters[4096] = {};
    size_t size = 0;
    ((size = (size + alignof(A) - 1) / alignof(A) * alignof(A), memcpy(parameters + size, &arguments, sizeof(A)), size += sizeof(A)), ...);
    add(__PRETTY_FUNCTION__, grid, block, bytes, parameters, size);
  }
};

}  // namespace recorded
