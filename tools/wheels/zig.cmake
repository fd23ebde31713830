# The C++ compiler that the package `ziglang` carries, for the target that tools/wheels/build.py names in the environment.
set(CMAKE_SYSTEM_NAME $ENV{BDGF_SYSTEM})
set(CMAKE_SYSTEM_PROCESSOR $ENV{BDGF_PROCESSOR})
set(PYTHON_MODULE_EXTENSION $ENV{BDGF_SUFFIX})  # pybind11 would ask the Python that runs the build
# zig checks for undefined behaviour by default; the debug information of its C++ library would be linked in.
set(CMAKE_CXX_COMPILER $ENV{BDGF_ZIG} c++ -target $ENV{BDGF_TARGET} -g0 -fno-sanitize=undefined -Wno-unused-command-line-argument)
set(CMAKE_MODULE_LINKER_FLAGS_INIT -s)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)  # a first link builds the C++ library: once, not for each question
if(CMAKE_SYSTEM_NAME STREQUAL "Darwin")
  set(CMAKE_INSTALL_NAME_TOOL true)
  set(CMAKE_USER_MAKE_RULES_OVERRIDE_CXX ${CMAKE_CURRENT_LIST_DIR}/darwin.cmake)
  set(CMAKE_OSX_SYSROOT "" CACHE STRING "")
  set(CMAKE_OSX_DEPLOYMENT_TARGET "" CACHE STRING "")  # the target names it
  set(CMAKE_OSX_ARCHITECTURES "" CACHE STRING "")
endif()
