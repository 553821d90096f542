#include "system.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cstdarg>
#include <map>

namespace {

constexpr uint64_t kSecond = 1'000'000'000;

bool g_inside = false;
uint64_t g_now = 0;
std::map<void*, size_t> g_pages;  // mapped by the input

}  // namespace

namespace cmp::fuzz {

System::System() {
  g_inside = true;
  g_now = 1000 * kSecond;
}

System::~System() {
  g_inside = false;
  for (const auto& [pages, bytes] : g_pages) munmap(pages, bytes);
  g_pages.clear();
}

void System::Pass(uint64_t ns) { g_now += ns; }

}  // namespace cmp::fuzz

extern "C" {

void* __real_mmap(void* address, size_t bytes, int access, int flags, int file, off_t offset);
void* __wrap_mmap(void* address, size_t bytes, int access, int flags, int file, off_t offset) {
  void* pages = __real_mmap(address, bytes, access, flags, file, offset);
  if (g_inside && pages != MAP_FAILED) g_pages[pages] = bytes;
  return pages;
}

int __real_munmap(void* address, size_t bytes);
int __wrap_munmap(void* address, size_t bytes) {
  if (g_inside) g_pages.erase(address);
  return __real_munmap(address, bytes);
}

int __real_clock_gettime(clockid_t clock, timespec* now);
int __wrap_clock_gettime(clockid_t clock, timespec* now) {
  if (!g_inside) return __real_clock_gettime(clock, now);
  *now = {static_cast<time_t>(g_now / kSecond),
          static_cast<decltype(now->tv_nsec)>(g_now % kSecond)};
  return 0;
}

// NOLINTNEXTLINE(cert-dcl50-cpp)
long __wrap_syscall(long number, ...) {  // core/base/lock.cpp sleeps by it, and makes no other
  if (number != SYS_nanosleep) return -1;
  std::va_list arguments;
  va_start(arguments, number);
  const auto* time = va_arg(arguments, const timespec*);
  va_end(arguments);
  cmp::fuzz::System::Pass(static_cast<uint64_t>(time->tv_nsec));
  return 0;
}
}
