cmake_minimum_required(VERSION 3.22)
# Every header compiles alone and opens with a comment that says what it is.
file(GLOB_RECURSE headers RELATIVE ${ROOT} ${ROOT}/base/*.h ${ROOT}/schema/*.h ${ROOT}/kernels/*.h
     ${ROOT}/coordinator/*.h ${ROOT}/worker/*.h ${ROOT}/analysis/*.h ${ROOT}/tests/*.h)
# a *_body.h is code that several files compile, once for each instruction set
list(FILTER headers EXCLUDE REGEX "^kernels/cuda/|_body\\.h$")
set(bad "")
foreach(header ${headers})
  file(READ ${ROOT}/${header} start LIMIT 64)
  if(NOT start MATCHES "^/\\*")
    string(APPEND bad "${header}: does not open with a comment\n")
  endif()
  execute_process(COMMAND ${CC} -std=gnu17 -D_GNU_SOURCE -I${ROOT} -Wall -Wextra -Werror -fsyntax-only -x c ${ROOT}/${header}
                  RESULT_VARIABLE rc ERROR_VARIABLE text)
  if(NOT rc EQUAL 0 AND NOT text MATCHES "pragma once in main file")
    string(APPEND bad "${header}: does not compile alone:\n${text}\n")
  endif()
endforeach()
if(bad)
  message(FATAL_ERROR "headers:\n${bad}")
endif()
