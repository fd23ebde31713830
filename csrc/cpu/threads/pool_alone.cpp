#include "cpu/threads/pool.h"

namespace bdgf {

const char* thread_source() { return "std::thread"; }
void run_team(int members, MemberFunction function, void* context) { run_pool(members, function, context); }

}  // namespace bdgf
