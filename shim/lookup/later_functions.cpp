#include "shim/lookup/later_functions.h"

#include <stdio.h>
#include <string.h>

#include <atomic>

namespace cmp {

namespace {

constexpr int kMostNames = 16;
enum class Name { kNone, kBeingWritten, kWritten };
constinit std::atomic<Name> g_states[kMostNames] = {};
constinit char g_names[kMostNames][64] = {};

}  // namespace

void NoteLaterFunction(const char* name) {
  for (int i = 0; i < kMostNames; ++i) {
    Name state = Name::kNone;
    if (g_states[i].compare_exchange_strong(state, Name::kBeingWritten)) {
      snprintf(g_names[i], sizeof(g_names[i]), "%s", name);
      g_states[i].store(Name::kWritten, std::memory_order_release);
      return;
    }
    if (state == Name::kWritten && strncmp(g_names[i], name, sizeof(g_names[i]) - 1) == 0) return;
  }
}

const char* LaterFunction(int number) {
  const bool is_there =
      number < kMostNames && g_states[number].load(std::memory_order_acquire) == Name::kWritten;
  return is_there ? g_names[number] : nullptr;
}

}  // namespace cmp
