// Where in the program a call came from: the innermost calls outside CUDA's own libraries and this
// one, as a library and offsets in it, which are the same in every run. Some of them, as the
// innermost may be one for all: a wrapper of the program's, or of the runtime where that is linked
// statically (as nvcc does unless told otherwise).
#ifndef CMP_SHIM_SHAKE_CALL_SITES_H_
#define CMP_SHIM_SHAKE_CALL_SITES_H_

#include <cstddef>
#include <cstdint>

#include "core/base/lock.h"

namespace cmp {

struct CallSite {
  static constexpr size_t kMost = 6;
  struct Frame {
    const char* library = nullptr;  // its file's name without the folder
    uintptr_t offset = 0;           // of the last byte of the call instruction
  };
  uint64_t hash = 0;  // the same in every run
  size_t count = 0;   // 0: not known
  Frame frames[kMost];

  // "app+0x1234<app+0x567", the innermost call first; "-" if it is not known.
  void Print(char* text, size_t bytes) const;
};
inline constexpr CallSite kUnknownCallSite;

class CallSites {
 public:
  // Finds the C compiler's unwinder, which most processes have. Without it all sites are unknown.
  void Begin();
  // Of the calling thread. What it returns stays. Thread-safe.
  const CallSite* Here();

 private:
  enum class Owner : uint8_t { kProgram, kCuda, kThisLibrary };
  struct Object {
    uintptr_t begin;
    uintptr_t end;
    Owner owner;
    char name[64];
  };
  struct Walk;
  // A way up the stack that was gone before. Where every return address still stands in its place,
  // from the same frame on, it would be gone again: some loads in place of 16,000 instructions.
  struct KnownWalk {
    static constexpr size_t kMost = 20;
    struct Return {
      uintptr_t place;
      uintptr_t address;
    };
    uintptr_t frame = 0;  // of Here; 0: none
    size_t count = 0;
    Return returns[kMost] = {};
    const CallSite* site = nullptr;

    bool StillStands(uintptr_t from) const;
  };
  static int Visit(void* frame, void* walk);
  static void NoteReturn(Walk& walk, void* frame, uintptr_t address);
  // REQUIRES: lock_ held
  const Object* KnownObject(uintptr_t address) const;
  // nullptr: it is in no library, or there are too many.
  const Object* ObjectOf(uintptr_t address);
  const CallSite* Intern(const CallSite& site);

  static constexpr size_t kMostObjects = 512;
  static constexpr size_t kPlaces = 4096;
  // Calls of one function have the same frame.
  static constexpr size_t kKnownFrames = 256;
  static constexpr size_t kKnownOfFrame = 8;

  int (*backtrace_)(int (*visit)(void* frame, void* data), void* data) = nullptr;
  uintptr_t (*address_of_)(void* frame) = nullptr;
  uintptr_t (*stack_of_)(void* frame) = nullptr;
  Mutex lock_;
  size_t object_count_ = 0;
  size_t site_count_ = 0;
  Object objects_[kMostObjects] = {};
  CallSite sites_[kPlaces] = {};
  size_t next_known_ = 0;
  KnownWalk known_[kKnownFrames][kKnownOfFrame] = {};
};

// A good hash of both.
inline uint64_t MixShake(uint64_t value, uint64_t more) {
  value = (value + 0x9e3779b97f4a7c15) ^ (more * 0xff51afd7ed558ccd);
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

}  // namespace cmp

#endif  // CMP_SHIM_SHAKE_CALL_SITES_H_
