# isobit_flags: definitions, includes and warnings for everything we compile.
# isobit_strict: what only product code can take (test frameworks' macros trip -Wconversion).
add_library(isobit_flags INTERFACE)
target_include_directories(isobit_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_definitions(isobit_flags INTERFACE _GNU_SOURCE ISOBIT_VERSION="${PROJECT_VERSION}")
# No contraction: quantizer arithmetic is pinned to single rounded operations on every machine.
target_compile_options(isobit_flags INTERFACE
  -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wpointer-arith -Wundef
  -ffp-contract=off -fno-strict-aliasing
  $<$<C_COMPILER_ID:Clang>:-Wno-pass-failed> # a loop that clang does not vectorize under a sanitizer is no mistake
  $<$<BOOL:${ISOBIT_WERROR}>:-Werror>)
target_link_options(isobit_flags INTERFACE -Wl,--as-needed)

add_library(isobit_strict INTERFACE)
target_compile_options(isobit_strict INTERFACE -Wconversion -Wno-sign-conversion)
# GNU spellings we rely on (__int128, x86 intrinsics) are fine in C17 mode; pedantic would forbid them.

if(ISOBIT_SANITIZE)
  target_compile_options(isobit_flags INTERFACE
    -fsanitize=${ISOBIT_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(isobit_flags INTERFACE -fsanitize=${ISOBIT_SANITIZE})
endif()
if(ISOBIT_FUZZ)
  target_compile_options(isobit_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(ISOBIT_COVERAGE)
  target_compile_options(isobit_flags INTERFACE --coverage)
  target_link_options(isobit_flags INTERFACE --coverage)
endif()
