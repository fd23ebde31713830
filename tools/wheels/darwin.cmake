# Read after CMake's own settings for macOS, whose -bundle brings zig's linker down; Python loads a library as well.
set(CMAKE_SHARED_MODULE_CREATE_CXX_FLAGS "-shared -Wl,-headerpad_max_install_names")
