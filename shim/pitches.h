// The pitches that the driver gave: which pitch it chooses is its affair, but it chooses the same
// one for the same width and element size on the same device (tests/gpu checks it).
#ifndef CMP_SHIM_PITCHES_H_
#define CMP_SHIM_PITCHES_H_

#include <cstddef>

#include "core/lock.h"

namespace cmp {

class Pitches {
 public:
  constexpr Pitches() = default;

  // The pitch in bytes that was given before, or 0.
  size_t Find(int device, size_t width, unsigned element) {
    Held held(lock_);
    const Entry& entry = EntryOf(device, width, element);
    return entry.device == device && entry.width == width && entry.element == element ? entry.pitch
                                                                                      : 0;
  }
  void Add(int device, size_t width, unsigned element, size_t pitch) {
    Held held(lock_);
    EntryOf(device, width, element) = Entry{device, element, width, pitch};
  }
  // In a forked child: the lock may have been held by a thread that the child does not have.
  void Forget() { new (&lock_) Mutex; }

 private:
  struct Entry {
    int device = 0;
    unsigned element = 0;
    size_t width = 0;
    size_t pitch = 0;
  };
  static constexpr size_t kEntries = 64;  // a later one of the same place replaces the earlier
  Entry& EntryOf(int device, size_t width, unsigned element) {
    return entries_[(width * 31 + width / kEntries + element + static_cast<size_t>(device)) %
                    kEntries];
  }

  Mutex lock_;
  Entry entries_[kEntries] = {};
};

inline constinit Pitches g_pitches;

}  // namespace cmp

#endif  // CMP_SHIM_PITCHES_H_
