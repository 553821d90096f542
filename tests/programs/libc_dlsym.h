// The C library's own dlsym, for preloads that wrap it.
#ifndef CMP_TESTS_PROGRAMS_LIBC_DLSYM_H_
#define CMP_TESTS_PROGRAMS_LIBC_DLSYM_H_

#include <dlfcn.h>

using DlsymFunction = void* (*)(void* handle, const char* name);

inline DlsymFunction LibcDlsym() {
#if defined(__aarch64__)
  constexpr const char* kVersion = "GLIBC_2.17";
#else
  constexpr const char* kVersion = "GLIBC_2.2.5";
#endif
  static const auto libc = reinterpret_cast<DlsymFunction>(dlvsym(RTLD_NEXT, "dlsym", kVersion));
  return libc;
}

#endif  // CMP_TESTS_PROGRAMS_LIBC_DLSYM_H_
