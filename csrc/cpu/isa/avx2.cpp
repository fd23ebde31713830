#define BDGF_ISA avx2
#define BDGF_LANES 8
#include "cpu/isa/kernels.inc"
