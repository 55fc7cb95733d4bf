# Writes the metadata that the Extensions Manager would read, for the tests.
file(WRITE "${CMAKE_BINARY_DIR}/metadata.txt" "")
foreach(key HOMEPAGE CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  if("${EXTENSION_${key}}" STREQUAL "")
    message(FATAL_ERROR "EXTENSION_${key} must be set")
  endif()
  file(APPEND "${CMAKE_BINARY_DIR}/metadata.txt" "${key}=${EXTENSION_${key}}\n")
endforeach()
