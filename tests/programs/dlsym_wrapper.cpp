// Another tool's preload that wraps dlsym, counts the lookups and passes them on. Built once for
// each way to find the dlsym to pass them on to:
//
//   VERSION  the C library's, by dlvsym: past every other preload
//   CHAIN    the next in the search order, asked of the C library's
//   NEXT     the next in the search order, asked by a plain call of dlsym. Alone, or as the first
//            of two, it would call itself.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include <atomic>

namespace {

using DlsymFunction = void* (*)(void* handle, const char* name);

#if defined(__aarch64__)
[[maybe_unused]] constexpr const char* kVersion = "GLIBC_2.17";
#else
[[maybe_unused]] constexpr const char* kVersion = "GLIBC_2.2.5";
#endif

std::atomic<DlsymFunction> g_next{nullptr};
std::atomic<int> g_seen{0};
thread_local int t_depth = 0;

// Calls nothing but lookups: a sanitizer's runtime comes here before anything else works.
DlsymFunction FindNext() {
#if defined(NEXT)
  return reinterpret_cast<DlsymFunction>(dlsym(RTLD_NEXT, "dlsym"));
#else
  const auto libc = reinterpret_cast<DlsymFunction>(dlvsym(RTLD_NEXT, "dlsym", kVersion));
#if defined(CHAIN)
  return reinterpret_cast<DlsymFunction>(libc(RTLD_NEXT, "dlsym"));
#else
  return libc;
#endif
#endif
}

__attribute__((destructor)) void Report() {
  printf("# dlsym: %d\n", g_seen.load());
  fflush(stdout);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void* dlsym(void* handle,
                                                              const char* name) noexcept {
  if (++t_depth > 8) {
    fprintf(stderr, "dlsym goes in circles\n");
    _Exit(9);
  }
  DlsymFunction next = g_next.load();
  if (next == nullptr) {
    next = FindNext();
    g_next.store(next);
  }
  ++g_seen;
  void* found = next(handle, name);
  --t_depth;
  return found;
}
