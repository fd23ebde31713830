// Threads from OpenMP: torch's own team, where both use one library.
#include <omp.h>

#include "cpu/threads/team.h"

namespace bdgf {

const char* thread_source() { return "OpenMP"; }

void run_team(int members, MemberFunction function, void* context) {
#pragma omp parallel num_threads(members)
  function(context, omp_get_thread_num());
}

}  // namespace bdgf
