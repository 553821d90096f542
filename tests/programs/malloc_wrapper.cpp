// Another tool's preload that wraps malloc and free through RTLD_NEXT. What is asked for while it
// looks them up comes from a little memory of its own, and is counted: a lookup should not
// allocate.
#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <atomic>

namespace {

struct Calls {
  void* (*malloc)(size_t);
  void* (*calloc)(size_t, size_t);
  void* (*realloc)(void*, size_t);
  void (*free)(void*);
};

alignas(64) char g_own[65536];
std::atomic<size_t> g_own_used{0};
std::atomic<int> g_during_lookups{0};
std::atomic<long> g_mallocs{0};
std::atomic<bool> g_found{false};
Calls g_calls;
thread_local bool t_looking_up = false;

bool IsOwn(const void* pointer) {
  return pointer >= g_own && pointer < static_cast<const void*>(g_own + sizeof(g_own));
}

void* Own(size_t bytes) {
  ++g_during_lookups;
  const size_t at = g_own_used.fetch_add((bytes + 63) / 64 * 64);
  return at + bytes <= sizeof(g_own) ? g_own + at : nullptr;
}

// Found anew by each thread that comes before it is known; all find the same.
const Calls* Next() {
  if (g_found.load()) return &g_calls;
  if (t_looking_up) return nullptr;
  t_looking_up = true;
  Calls calls;
  calls.malloc = reinterpret_cast<void* (*)(size_t)>(dlsym(RTLD_NEXT, "malloc"));
  calls.calloc = reinterpret_cast<void* (*)(size_t, size_t)>(dlsym(RTLD_NEXT, "calloc"));
  calls.realloc = reinterpret_cast<void* (*)(void*, size_t)>(dlsym(RTLD_NEXT, "realloc"));
  calls.free = reinterpret_cast<void (*)(void*)>(dlsym(RTLD_NEXT, "free"));
  t_looking_up = false;
  g_calls = calls;
  g_found.store(true);
  return &g_calls;
}

__attribute__((destructor)) void Report() {
  printf("# allocated during lookups: %d\n", g_during_lookups.load());
  printf("# mallocs: %ld\n", g_mallocs.load());
  fflush(stdout);
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT void* malloc(size_t bytes) noexcept {
  ++g_mallocs;
  const Calls* next = Next();
  return next == nullptr ? Own(bytes) : next->malloc(bytes);
}

EXPORT void* calloc(size_t count, size_t bytes) noexcept {
  const Calls* next = Next();
  return next == nullptr ? Own(count * bytes) : next->calloc(count, bytes);
}

EXPORT void* realloc(void* pointer, size_t bytes) noexcept {
  const Calls* next = Next();
  if (next != nullptr && !IsOwn(pointer)) return next->realloc(pointer, bytes);
  void* moved = malloc(bytes);
  if (moved != nullptr && pointer != nullptr) {
    const size_t rest = static_cast<size_t>(g_own + sizeof(g_own) - static_cast<char*>(pointer));
    memcpy(moved, pointer, bytes < rest ? bytes : rest);
  }
  return moved;
}

EXPORT void free(void* pointer) noexcept {
  if (pointer == nullptr || IsOwn(pointer)) return;
  const Calls* next = Next();
  if (next != nullptr) next->free(pointer);
}
