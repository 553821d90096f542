#include "shim/shake/threads.h"

#include <algorithm>
#include <iterator>

#include "shim/shake/call_sites.h"

namespace cmp {

uint32_t ShakeThreads::Begin() {
  const Held held(lock_);
  const auto place = std::find_if(std::begin(threads_), std::end(threads_),
                                  [](const Thread& thread) { return !thread.lives; });
  if (place == std::end(threads_)) return 0;
  place->lives = true;
  return static_cast<uint32_t>(place - threads_) + 1;
}

uint64_t ShakeThreads::Name(uint32_t number, uint64_t where) {
  const Held held(lock_);
  uint64_t name = 0;
  for (uint64_t turn = 0; name == 0; ++turn) {
    const uint64_t wanted = MixShake(where, turn);
    const bool taken = std::any_of(std::begin(threads_), std::end(threads_),
                                   [=](const Thread& other) { return other.name == wanted; });
    if (!taken) name = wanted;
  }
  return threads_[number - 1].name = name;
}

void ShakeThreads::End(uint32_t number) {
  const Held held(lock_);
  threads_[number - 1] = {};
}

}  // namespace cmp
