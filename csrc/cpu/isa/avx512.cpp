#define BDGF_ISA avx512
#define BDGF_LANES 16
#include "cpu/isa/kernels.inc"
