#pragma once
#include "cpu/threads/team.h"

namespace bdgf {

void run_pool(int members, MemberFunction function, void* context);  // as run_team, on threads of our own

}  // namespace bdgf
