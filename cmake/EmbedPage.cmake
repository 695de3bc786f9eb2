# isobit_embed_page(LIBRARY FOLDER): the files of FOLDER become `const struct page_file page_files[]` of the library.
function(isobit_embed_page library folder)
  file(GLOB files CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${folder}/*.html ${CMAKE_SOURCE_DIR}/${folder}/*.css
       ${CMAKE_SOURCE_DIR}/${folder}/*.js ${CMAKE_SOURCE_DIR}/${folder}/*.svg)
  set(out ${CMAKE_BINARY_DIR}/generated/page_files.c)
  add_custom_command(
    OUTPUT ${out}
    COMMAND ${CMAKE_COMMAND} -DOUT=${out} "-DFILES=${files}" -P ${CMAKE_SOURCE_DIR}/cmake/EmbedPageScript.cmake
    DEPENDS ${files} ${CMAKE_SOURCE_DIR}/cmake/EmbedPageScript.cmake
    VERBATIM)
  target_sources(isobit_${library} PRIVATE ${out})
endfunction()
