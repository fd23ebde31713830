#define BDGF_ISA scalar
#define BDGF_LANES 1
#include "cpu/isa/kernels.inc"
