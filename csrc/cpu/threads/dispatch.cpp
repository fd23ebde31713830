// Threads from libdispatch: Apple's compiler has no OpenMP, and the system moves these between fast and slow cores.
#include <dispatch/dispatch.h>

#include "cpu/threads/team.h"

namespace bdgf {
namespace {

struct Call {
  MemberFunction function;
  void* context;
};

}  // namespace

const char* thread_source() { return "libdispatch"; }

void run_team(int members, MemberFunction function, void* context) {
  Call call{function, context};
  dispatch_apply_f(static_cast<size_t>(members), DISPATCH_APPLY_AUTO, &call, [](void* given, size_t member) {
    const Call& wanted = *static_cast<const Call*>(given);
    wanted.function(wanted.context, static_cast<int>(member));
  });
}

}  // namespace bdgf
