// The pitches that the driver gave: which pitch it chooses is its affair, but it chooses the same
// one for the same width and element size on the same device (tests/gpu checks it).
#ifndef CMP_SHIM_SERVICE_PITCHES_H_
#define CMP_SHIM_SERVICE_PITCHES_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/base/lock.h"
#include "core/contexts/context_pool.h"

namespace cmp {

// In both tables a later pitch of the same place replaces the earlier.
inline constexpr size_t PlaceOfPitch(size_t width, uint64_t element) {
  return width ^ width / 16 ^ width / 512 ^ element;
}

// The process's, by device: with a lock.
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

// The process's, by context: on the way to a hit there is no lock and no question about the device.
// A handle may come to mean a context of another device, but only after the first one's pool was
// closed, which changes the epoch. No table of each thread: static thread-local storage is scarce
// (tests/preload/test_binary.py).
class PitchesOfContexts {
 public:
  // In place of an element size, and none that a program can name: what the runtime asks for.
  static constexpr uint64_t kOfRuntime = uint64_t{1} << 32;

  constexpr PitchesOfContexts() = default;

  // The pitch in bytes that was given before, or 0.
  size_t Find(ContextHandle context, size_t width, uint64_t element) const {
    const Entry& entry = entries_[PlaceOf(context, width, element)];
    constexpr auto kOrder = std::memory_order_acquire;
    const uint64_t version = entry.version.load(kOrder);
    if (entry.width.load(kOrder) != width || entry.context.load(kOrder) != context ||
        entry.element.load(kOrder) != element ||
        entry.epoch.load(kOrder) != g_context_epoch.load(kOrder)) {
      return 0;
    }
    const size_t pitch = entry.pitch.load(kOrder);
    // Odd: being written. Who saw a field of a later entry sees its version here.
    const bool whole = version % 2 == 0 && entry.version.load(std::memory_order_relaxed) == version;
    return whole ? pitch : 0;
  }
  // For who is about to ask for a pitch, and then adds it: by then its context may have ended, and
  // the handle be another's; and where one is just ending nothing is added (HitsBarred).
  static uint64_t Now() { return g_context_epoch.load(std::memory_order_seq_cst); }
  void Add(ContextHandle context, size_t width, uint64_t element, size_t pitch, uint64_t epoch) {
    if (g_hits_barred.load(std::memory_order_seq_cst) != 0) return;
    if (Find(context, width, element) == pitch) return;
    Entry& entry = entries_[PlaceOf(context, width, element)];
    Held held(lock_);
    // As it is after a fork amid a write, too, where readers miss until here.
    const uint64_t writing = entry.version.load(std::memory_order_relaxed) | 1;
    entry.version.store(writing, std::memory_order_relaxed);
    constexpr auto kOrder = std::memory_order_release;  // of the version before each of them
    entry.context.store(context, kOrder);
    entry.epoch.store(epoch, kOrder);
    entry.width.store(width, kOrder);
    entry.pitch.store(pitch, kOrder);
    entry.element.store(element, kOrder);
    entry.version.store(writing + 1, std::memory_order_release);
  }
  // In a forked child: the lock may have been held by a thread that the child does not have.
  void Forget() { new (&lock_) Mutex; }

 private:
  struct alignas(64) Entry {
    std::atomic<uint64_t> version{0};
    std::atomic<ContextHandle> context{nullptr};
    std::atomic<uint64_t> epoch{0};
    std::atomic<size_t> width{0};
    std::atomic<size_t> pitch{0};
    std::atomic<uint64_t> element{0};
  };
  static constexpr size_t kEntries = 128;
  static size_t PlaceOf(ContextHandle context, size_t width, uint64_t element) {
    const auto bits = reinterpret_cast<uintptr_t>(context);
    return (PlaceOfPitch(width, element) ^ bits >> 6) % kEntries;
  }

  Mutex lock_;
  Entry entries_[kEntries];
};

inline constinit PitchesOfContexts g_context_pitches;

}  // namespace cmp

#endif  // CMP_SHIM_SERVICE_PITCHES_H_
