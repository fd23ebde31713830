// The selective scan in float64, for gradcheck: plain loops, one channel and one state after the other.
#pragma once
#include "bdgf/selective_scan.h"

namespace bdgf {

void selective_scan_fwd_f64(const SelectiveScanArgs& a, int num_threads);
void selective_scan_bwd_f64(const SelectiveScanArgs& a, int num_threads);

}  // namespace bdgf
