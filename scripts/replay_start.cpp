// What cmp-replay takes from nowhere else, so that it needs the C library alone and starts on every
// one since 2.17, as the library that it replays under does: memory for the standard containers,
// the end where one of them would throw, and the entry into main.
#include <cstdio>
#include <cstdlib>
#include <new>

#include "core/base/libc_versions.h"

namespace {

[[noreturn]] void End(const char* what) {
  std::fprintf(stderr, "cmp-replay: %s\n", what);
  std::exit(1);
}

void* Memory(void* made) {
  if (made == nullptr) End("out of memory");
  return made;
}

}  // namespace

void* operator new(size_t bytes) { return Memory(std::malloc(bytes != 0 ? bytes : 1)); }
void* operator new[](size_t bytes) { return operator new(bytes); }
void* operator new(size_t bytes, std::align_val_t alignment) {
  void* made = nullptr;
  return Memory(posix_memalign(&made, static_cast<size_t>(alignment), bytes) == 0 ? made : nullptr);
}
void operator delete(void* made) noexcept { std::free(made); }
void operator delete[](void* made) noexcept { std::free(made); }
void operator delete(void* made, size_t) noexcept { std::free(made); }
void operator delete[](void* made, size_t) noexcept { std::free(made); }
void operator delete(void* made, std::align_val_t) noexcept { std::free(made); }
void operator delete(void* made, size_t, std::align_val_t) noexcept { std::free(made); }

// libstdc++ calls these, by these names, for want of exceptions in its headers. Weak: where a newer
// one's headers call others of its own beside them, the linker takes all of them from there.
namespace std {
// NOLINTBEGIN(bugprone-reserved-identifier)
[[gnu::weak]] void __throw_bad_alloc() { End("out of memory"); }
[[gnu::weak]] void __throw_bad_array_new_length() { End("out of memory"); }
[[gnu::weak]] void __throw_length_error(const char* what) { End(what); }
[[gnu::weak]] void __throw_logic_error(const char* what) { End(what); }
[[gnu::weak]] void __throw_out_of_range_fmt(const char* what, ...) { End(what); }
[[gnu::weak]] void __throw_system_error(int) { End("a wait failed"); }
// NOLINTEND(bugprone-reserved-identifier)
}  // namespace std

#if defined(CMP_OLDEST)
// What enters main got a newer version in 2.34, which differs in who calls static constructors;
// this program has none. The linker gives us its caller (--wrap).
extern "C" {
using Main = int(int, char**, char**);
int cmp_libc_start_main(Main*, int, char**, void (*)(), void (*)(), void (*)(), void*);
__asm__(".symver cmp_libc_start_main,__libc_start_main@" CMP_OLDEST);
// NOLINTNEXTLINE(bugprone-reserved-identifier)
int __wrap___libc_start_main(Main* main, int count, char** arguments, void (*initialise)(),
                             void (*finish)(), void (*unload)(), void* stack) {
  return cmp_libc_start_main(main, count, arguments, initialise, finish, unload, stack);
}
}
#endif
