# Imported targets dep_<name>. Versions are Debian bookworm's; Ubuntu 24.04's work too.
find_package(PkgConfig REQUIRED)

function(isobit_dep name)
  pkg_check_modules(${name} REQUIRED IMPORTED_TARGET ${ARGN})
  add_library(dep_${name} INTERFACE)
  target_link_libraries(dep_${name} INTERFACE PkgConfig::${name})
endfunction()

isobit_dep(jansson jansson>=2.13)
isobit_dep(crypto libcrypto)
isobit_dep(sqlite sqlite3>=3.37) # STRICT tables
isobit_dep(zmq libzmq>=4.3)
isobit_dep(yaml yaml-0.1)
isobit_dep(microhttpd libmicrohttpd)
isobit_dep(pcre2 libpcre2-8)
isobit_dep(utf8proc libutf8proc)
isobit_dep(hwloc hwloc>=2.0)
isobit_dep(zstd libzstd)
isobit_dep(zip libzip)
isobit_dep(xxhash libxxhash)

# oneDNN 2.6 (Debian 12) or 3.x (Ubuntu 24.04). Its CMake package asks for OpenCL's development files, which the CPU
# engine does not need, so the header and the library are looked up directly.
find_path(DNNL_INCLUDE_DIR dnnl.h REQUIRED)
find_library(DNNL_LIBRARY dnnl REQUIRED)
add_library(dep_dnnl INTERFACE)
target_include_directories(dep_dnnl SYSTEM INTERFACE ${DNNL_INCLUDE_DIR})
target_link_libraries(dep_dnnl INTERFACE ${DNNL_LIBRARY})

find_package(OpenMP REQUIRED COMPONENTS C)
add_library(dep_openmp INTERFACE)
target_link_libraries(dep_openmp INTERFACE OpenMP::OpenMP_C)

find_package(Threads REQUIRED)
add_library(dep_pthread INTERFACE)
target_link_libraries(dep_pthread INTERFACE Threads::Threads)

add_library(dep_m INTERFACE)
target_link_libraries(dep_m INTERFACE m)
add_library(dep_dl INTERFACE)
target_link_libraries(dep_dl INTERFACE ${CMAKE_DL_LIBS})
