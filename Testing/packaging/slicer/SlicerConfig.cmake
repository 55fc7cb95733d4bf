# What `find_package(Slicer)` gives an extension, as far as installing scripted modules needs it.
# Stands in for Slicer's SlicerConfig.cmake, UseSlicer.cmake, SlicerMacroBuildScriptedModule.cmake, SlicerMacroPythonTesting.cmake
# and SlicerExtensionCPack.cmake, and for CTK's ctkMacroCompilePythonScript.cmake: it takes the same keywords, refuses what they
# refuse, and puts a file where they put it.

set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/ExtensionMetadata.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/Nothing.cmake")
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR "lib/Slicer-5.10/qt-scripted-modules")
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR "${Slicer_QTSCRIPTEDMODULES_LIB_DIR}")
