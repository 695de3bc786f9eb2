cmake_minimum_required(VERSION 3.22)
# Include direction (top-level README, "Layout"): a folder may include only what is below it; a third-party header is seen by
# one module only, so that it can be swapped or faked there.
set(may_base base)
set(may_schema base schema)
set(may_kernels base kernels)
set(may_coordinator base schema coordinator)
set(may_worker base schema kernels worker)
set(may_analysis base schema analysis)

# header pattern => files that may include it
set(third_party
  "jansson\\.h => ^base/json\\.h$"
  "argp\\.h => ^base/cli\\.c$"
  "openssl/ => ^base/sha256\\.c$"
  "sqlite3\\.h => ^schema/store"
  "zmq\\.h => ^schema/link"
  "yaml\\.h => ^schema/sweep_yaml\\.c$"
  "hwloc\\.h => ^worker/topo\\.c$"
  "pcre2\\.h => ^worker/tok/"
  "utf8proc\\.h => ^worker/tok/"
  "zip\\.h => ^worker/ckpt/zipdir\\.c$"
  "zstd\\.h => ^(worker|analysis)/[a-z/]*zstd[a-z_]*\\.c$"
  "xxhash\\.h => ^worker/tok/"
  "dnnl => ^kernels/cpu/"
  "microhttpd\\.h => ^coordinator/http\\.c$"
  "cuda => ^kernels/cuda/")

set(bad "")
foreach(folder base schema kernels coordinator worker analysis)
  file(GLOB_RECURSE files RELATIVE ${ROOT} ${ROOT}/${folder}/*.[ch] ${ROOT}/${folder}/*.cu ${ROOT}/${folder}/*.cuh)
  foreach(file ${files})
    file(STRINGS ${ROOT}/${file} includes REGEX "^ *# *include")
    foreach(line ${includes})
      if(line MATCHES "\"([^\"]+)\"")
        set(target ${CMAKE_MATCH_1})
        string(REGEX REPLACE "/.*" "" top ${target})
        if(NOT target MATCHES "/" OR NOT top IN_LIST may_${folder})
          string(APPEND bad "${file}: includes \"${target}\", but ${folder}/ may include only: ${may_${folder}}\n")
        endif()
      elseif(line MATCHES "<([^>]+)>")
        set(target ${CMAKE_MATCH_1})
        foreach(rule ${third_party})
          string(REGEX REPLACE " => .*" "" header "${rule}")
          string(REGEX REPLACE "^.* => " "" allowed "${rule}")
          if(target MATCHES "^${header}" AND NOT file MATCHES "${allowed}")
            string(APPEND bad "${file}: includes <${target}>, which belongs to ${allowed}\n")
          endif()
        endforeach()
      endif()
    endforeach()
  endforeach()
endforeach()
if(bad)
  message(FATAL_ERROR "include direction:\n${bad}")
endif()
