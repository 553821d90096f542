// The C library's own functions, past preloads that wrap them.
#ifndef CMP_TESTS_PROGRAMS_LIBC_DLSYM_H_
#define CMP_TESTS_PROGRAMS_LIBC_DLSYM_H_

#include <dlfcn.h>

using DlsymFunction = void* (*)(void* handle, const char* name);

inline void* LibcFunction(const char* name) {
#if defined(__aarch64__)
  constexpr const char* kVersion = "GLIBC_2.17";
#else
  constexpr const char* kVersion = "GLIBC_2.2.5";
#endif
  return dlvsym(RTLD_NEXT, name, kVersion);
}

inline DlsymFunction LibcDlsym() {
  static const auto libc = reinterpret_cast<DlsymFunction>(LibcFunction("dlsym"));
  return libc;
}

#endif  // CMP_TESTS_PROGRAMS_LIBC_DLSYM_H_
