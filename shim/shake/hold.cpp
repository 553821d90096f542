#include "shim/shake/hold.h"

#include <new>

#include "core/base/memory.h"

namespace cmp {

bool HoldWords::Begin(const Driver& driver) {
  if (driver.wait_value == nullptr || driver.write_value == nullptr ||
      driver.host_register == nullptr) {
    return false;
  }
  void* pages = MapPages(kBytes);
  if (pages == nullptr) return false;
  words_ = static_cast<Word*>(pages);
  for (size_t i = 0; i < kCount; ++i) new (&words_[i]) Word;
  return true;
}

CUresult HoldWords::Register(const Driver& driver) {
  constexpr unsigned kPortable = 1;
  constexpr unsigned kMapped = 2;
  return driver.host_register(words_, kBytes, kPortable | kMapped);
}

HoldWords::Word& HoldWords::WordOf(const HoldTarget& target) {
  return *reinterpret_cast<Word*>(target.word);
}

HoldTarget HoldWords::Take() {
  for (size_t i = 0; i < kCount; ++i) {
    Word& word = words_[next_];
    next_ = (next_ + 1) % kCount;
    if (word.awaited && word.value.load(std::memory_order_acquire) == word.target) {
      word.awaited = false;
    }
    if (word.awaited) continue;
    word.target += 2;
    return {&word.value, word.target};
  }
  return {};
}

void HoldWords::DeviceWillWrite(const HoldTarget& target, bool will) {
  WordOf(target).awaited = will;
}

bool HoldWords::LetGo(const HoldTarget& target) {
  Word& word = WordOf(target);
  if (word.value.exchange(target.value + 1, std::memory_order_acq_rel) != target.value) {
    return false;
  }
  word.awaited = false;
  return true;
}

}  // namespace cmp
