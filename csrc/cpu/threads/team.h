// Where threads come from: openmp.cpp, runtime.cpp, dispatch.cpp or pool_alone.cpp, as CMakeLists.txt chose (BDGF_OPENMP).
#pragma once

namespace bdgf {

typedef void (*MemberFunction)(void* context, int member);
// Runs function(context, m) once for each m in 0 ... members - 1 at most, m = 0 in any case, on as many threads at a time, and
// returns when all that were started have ended. The function must not throw, and must do the work of members that never
// come. Not to be called from a member, nor in a forked child whose parent had threads.
void run_team(int members, MemberFunction function, void* context);

// "OpenMP", "the process's OpenMP", "libdispatch" or "std::thread".
const char* thread_source();

}  // namespace bdgf
