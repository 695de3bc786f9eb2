# isobit_embed_text(LIBRARY FOLDER): every file of FOLDER becomes `const char embed_<name>[]` of the library, ended by a NUL, where
# <name> is the file's with _ for what no C name can have: report.css is embed_report_css. Who uses one declares it.
function(isobit_embed_text library folder)
  file(GLOB files CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${folder}/*)
  list(SORT files)
  string(MAKE_C_IDENTIFIER ${folder} name)
  set(out ${CMAKE_BINARY_DIR}/generated/embed_${name}.c)
  add_custom_command(
    OUTPUT ${out}
    COMMAND ${CMAKE_COMMAND} -DOUT=${out} "-DFILES=${files}" -P ${CMAKE_SOURCE_DIR}/cmake/EmbedTextScript.cmake
    DEPENDS ${files} ${CMAKE_SOURCE_DIR}/cmake/EmbedTextScript.cmake
    VERBATIM)
  target_sources(isobit_${library} PRIVATE ${out})
endfunction()
