# isobit_embed_sql(LIBRARY FOLDER): FOLDER/NNNN_name.sql, in order, become `const struct store_migration
# store_migrations[]` of the library: the number in front of the name is the schema version they lead to.
function(isobit_embed_sql library folder)
  file(GLOB files CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${folder}/*.sql)
  list(SORT files)
  set(out ${CMAKE_BINARY_DIR}/generated/store_migrations.c)
  add_custom_command(
    OUTPUT ${out}
    COMMAND ${CMAKE_COMMAND} -DOUT=${out} "-DFILES=${files}" -P ${CMAKE_SOURCE_DIR}/cmake/EmbedSqlScript.cmake
    DEPENDS ${files} ${CMAKE_SOURCE_DIR}/cmake/EmbedSqlScript.cmake
    VERBATIM)
  target_sources(isobit_${library} PRIVATE ${out})
endfunction()
