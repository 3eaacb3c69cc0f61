# Read by CMake right after llama.cpp's project(): its tools' library is half of the compile time, and Python uses none of it.
set(LLAMA_BUILD_COMMON OFF)
