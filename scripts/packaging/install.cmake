# What is installed, and where. Afterwards the bare LD_PRELOAD=libcmp_preload.so works (run ldconfig
# where the library folder is one of the system's), find_package(cmp) gives cmp::cmp, and pkg-config
# knows cmp.
#
# In a wheel (scikit-build-core sets SKBUILD) the libraries lie in the Python package, which has the
# modules already; that of the pool as one file (a wheel has no links), for programs in Python, and
# without its headers.
if(SKBUILD)
  set(CMP_PACKAGE_DIR cmp_preload)
  install(TARGETS cmp_preload LIBRARY DESTINATION ${CMP_PACKAGE_DIR})
  install(PROGRAMS $<TARGET_FILE:cmp> DESTINATION ${CMP_PACKAGE_DIR} RENAME libcmp.so)
  install(TARGETS cmp-replay RUNTIME DESTINATION ${CMP_PACKAGE_DIR})
else()
  set(CMP_PACKAGE_DIR ${CMAKE_INSTALL_DATADIR}/cmp/cmp_preload)
  install(TARGETS cmp_preload)
  install(PROGRAMS scripts/cmp-preload DESTINATION ${CMAKE_INSTALL_BINDIR})
  install(DIRECTORY scripts/cmp_preload/ DESTINATION ${CMP_PACKAGE_DIR} FILES_MATCHING PATTERN "*.py"
          PATTERN "__pycache__" EXCLUDE)
  if(TARGET cmp-replay)
    install(TARGETS cmp-replay)
  endif()

  include(CMakePackageConfigHelpers)
  install(TARGETS cmp cmp_cuda_headers EXPORT cmp-targets)
  install(FILES core/cuda_memory_pool.h core/device_allocator.h core/device_buffer.h
                core/device_memory_resource.h core/rmm_resource.h core/stream_allocator.h
          DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/cmp/core)
  install(EXPORT cmp-targets NAMESPACE cmp:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/cmp)
  file(WRITE ${PROJECT_BINARY_DIR}/cmp-config.cmake
       "include(\${CMAKE_CURRENT_LIST_DIR}/cmp-targets.cmake)\n")
  write_basic_package_version_file(cmp-config-version.cmake COMPATIBILITY SameMinorVersion)
  install(FILES ${PROJECT_BINARY_DIR}/cmp-config.cmake ${PROJECT_BINARY_DIR}/cmp-config-version.cmake
          DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/cmp)
  file(RELATIVE_PATH CMP_PC_TO_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
  configure_file(scripts/packaging/cmp.pc.in cmp.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/cmp.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
  install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/cmp-preload RENAME copyright)
endif()

# The manual page, and what shells complete (scripts/generate-manual).
if(SKBUILD)
  set(CMP_SHARE_DIR ${SKBUILD_DATA_DIR}/share)
else()
  set(CMP_SHARE_DIR ${CMAKE_INSTALL_DATADIR})
endif()
configure_file(scripts/manual/cmp-preload.1.in cmp-preload.1 @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/cmp-preload.1 DESTINATION ${CMP_SHARE_DIR}/man/man1)
install(FILES scripts/manual/cmp-preload.bash RENAME cmp-preload
        DESTINATION ${CMP_SHARE_DIR}/bash-completion/completions)
install(FILES scripts/manual/_cmp-preload DESTINATION ${CMP_SHARE_DIR}/zsh/site-functions)
install(FILES scripts/manual/cmp-preload.fish DESTINATION ${CMP_SHARE_DIR}/fish/vendor_completions.d)

# The pages that messages of the command name.
install(DIRECTORY scripts/docs DESTINATION ${CMP_PACKAGE_DIR}
        PATTERN "__pycache__" EXCLUDE)
install(CODE "set(pages \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMP_PACKAGE_DIR}/docs\")")
install(SCRIPT scripts/packaging/name_sources.cmake)
