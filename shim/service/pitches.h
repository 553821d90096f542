// The pitches that the driver gave: which pitch it chooses is its affair, but it chooses the same
// one for the same width and element size on the same device (tests/gpu checks it).
#ifndef CMP_SHIM_SERVICE_PITCHES_H_
#define CMP_SHIM_SERVICE_PITCHES_H_

#include <cstddef>
#include <cstdint>

#include "core/base/lock.h"
#include "core/contexts/context_pool.h"

namespace cmp {

// In both tables a later pitch of the same place replaces the earlier.
inline constexpr size_t PlaceOfPitch(size_t width, uint64_t element) {
  return width ^ width / 16 ^ width / 512 ^ element;
}

// The process's, by device.
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
  static constexpr size_t kEntries = 512;
  Entry& EntryOf(int device, size_t width, unsigned element) {
    return entries_[(PlaceOfPitch(width, element) + static_cast<size_t>(device)) % kEntries];
  }

  Mutex lock_;
  Entry entries_[kEntries] = {};
};

inline constinit Pitches g_pitches;

// A thread's, by context: on the way to a hit there is no lock and no question about the device. A
// handle may come to mean a context of another device, but only after the first one's pool was
// closed, which changes the epoch.
class ThreadPitches {
 public:
  // In place of an element size, and none that a program can name: what the runtime asks for.
  static constexpr uint64_t kOfRuntime = uint64_t{1} << 32;

  // The pitch in bytes that was given before, or 0.
  size_t Find(ContextHandle context, size_t width, uint64_t element) const {
    const Entry& entry = entries_[PlaceOfPitch(width, element) % kEntries];
    const bool found = entry.width == width && entry.context == context &&
                       entry.element == element &&
                       entry.epoch == g_context_epoch.load(std::memory_order_acquire);
    return found ? entry.pitch : 0;
  }
  void Add(ContextHandle context, size_t width, uint64_t element, size_t pitch) {
    const uint64_t epoch = g_context_epoch.load(std::memory_order_acquire);
    entries_[PlaceOfPitch(width, element) % kEntries] = {context, epoch, width, pitch, element};
  }

 private:
  struct Entry {
    ContextHandle context = nullptr;
    uint64_t epoch = 0;
    size_t width = 0;
    size_t pitch = 0;
    uint64_t element = 0;
  };
  static constexpr size_t kEntries = 16;
  Entry entries_[kEntries] = {};
};

inline thread_local constinit ThreadPitches t_pitches;

}  // namespace cmp

#endif  // CMP_SHIM_SERVICE_PITCHES_H_
