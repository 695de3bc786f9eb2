# The module isobit-cuda.so, which isobit-worker opens when a device "cuda:N" is asked for. ISOBIT_CUDA: AUTO builds it
# where a toolkit is found, ON insists, OFF leaves it out. Programs never link CUDA themselves.
set_property(CACHE ISOBIT_CUDA PROPERTY STRINGS AUTO ON OFF)
if(NOT ISOBIT_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "ISOBIT_CUDA is '${ISOBIT_CUDA}'; it can be AUTO, ON or OFF")
endif()
if(ISOBIT_CUDA STREQUAL OFF)
  return()
endif()

include(CheckLanguage)
check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
  find_package(CUDAToolkit 12.0)
endif()
if(NOT CMAKE_CUDA_COMPILER OR NOT CUDAToolkit_FOUND OR NOT TARGET CUDA::cublasLt)
  if(ISOBIT_CUDA STREQUAL ON)
    message(FATAL_ERROR "ISOBIT_CUDA=ON needs nvcc and cuBLAS of CUDA 12 or newer; put nvcc in PATH or set CUDACXX")
  endif()
  message(STATUS "No CUDA toolkit: building without the module isobit-cuda.so")
  return()
endif()

if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real 90-virtual) # A100; H100, H200; newer ones through PTX
endif()
enable_language(CUDA)

file(GLOB cuda_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/cuda/*.cu)
add_library(isobit-cuda MODULE ${cuda_sources})
set_target_properties(isobit-cuda PROPERTIES
  PREFIX "" CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON
  CUDA_VISIBILITY_PRESET hidden POSITION_INDEPENDENT_CODE ON
  LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
target_include_directories(isobit-cuda PRIVATE ${CMAKE_SOURCE_DIR})
# Contraction is off as everywhere: where a fused operation is meant, it is written.
target_compile_options(isobit-cuda PRIVATE
  --fmad=false -Xcompiler=-Wall,-Wextra,-ffp-contract=off
  $<$<BOOL:${ISOBIT_WERROR}>:-Werror=all-warnings>)
if(ISOBIT_WERROR)
  set_target_properties(isobit-cuda PROPERTIES CUDA_COMPILER_LAUNCHER ${CMAKE_SOURCE_DIR}/cmake/nvcc-strict.sh)
endif()
target_compile_definitions(isobit-cuda PRIVATE _GNU_SOURCE ISOBIT_VERSION="${PROJECT_VERSION}")
if("${CMAKE_CUDA_ARCHITECTURES}" MATCHES "90a") # Hopper's asynchronous matrix instructions
  target_compile_definitions(isobit-cuda PRIVATE ISOBIT_HAS_SM_90A)
endif()
# Errors and small memory come from base, linked in and hidden. The archive by its path: its flags are for C.
set_target_properties(isobit_base PROPERTIES POSITION_INDEPENDENT_CODE ON)
add_dependencies(isobit-cuda isobit_base)
target_link_libraries(isobit-cuda PRIVATE $<TARGET_FILE:isobit_base> CUDA::cudart_static CUDA::cublasLt)
set_property(TARGET isobit-cuda APPEND PROPERTY LINK_DEPENDS $<TARGET_FILE:isobit_base>)
target_link_options(isobit-cuda PRIVATE -Wl,--exclude-libs,ALL -Wl,--as-needed)
install(TARGETS isobit-cuda LIBRARY DESTINATION lib/isobit)
