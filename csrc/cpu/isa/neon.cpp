#define BDGF_ISA neon
#define BDGF_LANES 4
#include "cpu/isa/kernels.inc"
