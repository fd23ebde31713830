// The words in which CUDA and the CPU emulation of tests/emulated differ. Everything else in csrc/cuda is plain CUDA C++
// that a C++ compiler takes once the stand-ins for CUDA's headers are on its include path. A kernel
//   * is launched by BDGF_LAUNCH(kernel, grid, block, dynamic bytes, stream, arguments...); a kernel with template
//     arguments in parentheses: BDGF_LAUNCH((kernel<T, 4>), ...)
//   * declares shared memory by BDGF_SHARED(float, tile, [32][33]) and BDGF_DYNAMIC_SHARED(float, buffer)
//   * opens with BDGF_THREADS(n) where it says __launch_bounds__(n): the emulation holds launches against it
//   * keeps what needs the chip (inline PTX, cp.async, mma) inside #ifdef __CUDA_ARCH__, with a plain path beside it.
#pragma once
#include <cuda_runtime.h>

#ifdef BDGF_CUDA_EMULATION
#define BDGF_LAUNCH(kernel, grid, block, bytes, stream, ...) \
  (void)(stream), emulation::launch(#kernel, reinterpret_cast<const void*>(kernel), grid, block, bytes, [=] { (kernel)(__VA_ARGS__); })
#define BDGF_SHARED(type, name, dims)                      \
  typedef type name##_in_shared dims;                      \
  static const char name##_tag = 0;                        \
  name##_in_shared& name = *static_cast<name##_in_shared*>( \
      emulation::shared(&name##_tag, sizeof(name##_in_shared), alignof(name##_in_shared)))
#define BDGF_DYNAMIC_SHARED(type, name) type* name = static_cast<type*>(emulation::dynamic_shared())
#define BDGF_THREADS(n) emulation::at_most(n)
#else
#define BDGF_LAUNCH(kernel, grid, block, bytes, stream, ...) kernel<<<grid, block, bytes, stream>>>(__VA_ARGS__)
#define BDGF_SHARED(type, name, dims) __shared__ type name dims
#define BDGF_DYNAMIC_SHARED(type, name)                        \
  extern __shared__ __align__(16) unsigned char bdgf_dynamic[]; \
  type* name = reinterpret_cast<type*>(bdgf_dynamic)
#define BDGF_THREADS(n)
#endif
