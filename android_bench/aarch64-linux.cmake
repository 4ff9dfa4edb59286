# Cross compiling with ziglang from PyPI: `pip install ziglang`, Python on the PATH.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER python3 -m ziglang cc)
set(CMAKE_C_COMPILER_TARGET aarch64-linux-gnu.2.34)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
