function(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "Unknown keywords given to slicerMacroBuildScriptedModule(): \"${MY_UNPARSED_ARGUMENTS}\"")
  endif()
  foreach(required NAME SCRIPTS)
    if(NOT MY_${required})
      message(FATAL_ERROR "${required} is mandatory")
    endif()
  endforeach()

  set(destination "${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}")
  if(MY_WITH_SUBDIR)
    get_filename_component(folder "${CMAKE_CURRENT_SOURCE_DIR}" NAME)
    set(destination "${destination}/${folder}")
  endif()

  set(copies)
  foreach(file ${MY_SCRIPTS} ${MY_RESOURCES})
    if("${file}" IN_LIST MY_SCRIPTS AND NOT "${file}" MATCHES "\\.py$")
      set(file "${file}.py")
    endif()
    set(source "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
    if(NOT EXISTS "${source}")
      message(FATAL_ERROR "slicerMacroBuildScriptedModule given nonexistent file '${file}'")
    endif()
    set(copy "${destination}/${file}")
    add_custom_command(OUTPUT "${copy}" DEPENDS "${source}" COMMAND ${CMAKE_COMMAND} -E copy "${source}" "${copy}")
    list(APPEND copies "${copy}")
  endforeach()
  add_custom_target(Copy${MY_NAME} ALL DEPENDS ${copies})

  # As CTK does: the folder is installed, so a file that was listed by a path with ".." stays behind.
  install(
    DIRECTORY "${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}/"
    DESTINATION "${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}"
    )
endfunction()

function(slicer_add_python_unittest)
  cmake_parse_arguments(MY "" "TESTNAME_PREFIX;SCRIPT" "SLICER_ARGS" ${ARGN})
  if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${MY_SCRIPT}")
    message(FATAL_ERROR "slicer_add_python_unittest: no ${MY_SCRIPT}")
  endif()
endfunction()

function(slicer_add_python_test)
  slicer_add_python_unittest(${ARGN})
endfunction()
