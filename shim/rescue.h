// A call of the driver's that ran out of memory, where idle blocks of the pool may be what it
// lacked: they are released, and it is tried once more. What fits without the pool fits with it.
//
// Not on suspicion: only while the memory that is really free is less than the call can need, and
// not again while there is as much as when it did not help. Nor where it could show: a thread that
// captures gets the real answer, and so does what would go into a capture.
//
// Step by step, and tried again after each that made room: what the call says that it needs, of the
// current device, then of others; a gigabyte more, the same; and what other threads have in hand.
#ifndef CMP_SHIM_RESCUE_H_
#define CMP_SHIM_RESCUE_H_

#include <cuda.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "core/device_links.h"

namespace cmp {

class Pool;
struct Driver;

// What a function can be short of (scripts/driver_table/effects.py).
enum class Need : uint8_t {
  kNothing,  // it is not tried again
  kUnknown,  // a gigabyte, which every other need comes with
  kAny,      // as much as the device has
  kBytes,    // what its second argument says
  kLimit,    // cuCtxSetLimit: what the limit means for the whole device
  kLaunch,   // local memory, code, or the heap that kernels allocate from
};

// "Out of resources" is what a launch answers whose heap finds no room; mostly it means registers.
constexpr bool MayLackMemory(Need need, CUresult status) {
  return need != Need::kNothing &&
         (status == CUDA_ERROR_OUT_OF_MEMORY ||
          (need == Need::kLaunch && status == CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES));
}

// A number for both, not 0.
constexpr uint64_t Mixed(uint64_t one, uint64_t other) {
  uint64_t mixed =
      (one ^ (other + 0x9E3779B97F4A7C15 + (one << 6) + (one >> 2))) * 0xBF58476D1CE4E5B9;
  mixed ^= mixed >> 31;
  return mixed | 1;
}

// Points to what no header describes.
template <typename Argument>
concept Handle =
    std::is_pointer_v<Argument> && std::is_class_v<std::remove_pointer_t<Argument>> && !requires {
  sizeof(std::remove_pointer_t<Argument>);
};

// What is looked at of a call's arguments.
struct RescuedArguments {
  uint64_t first = 0;
  uint64_t second = 0;
  uint64_t all = 0;  // of all numbers and handles
  bool has_stream = false;
  CUstream stream = nullptr;

  template <typename... Arguments>
  static RescuedArguments Of(const Arguments&... arguments) {
    RescuedArguments of;
    int place = 0;
    (of.Add(place++, arguments), ...);
    return of;
  }

 private:
  // Of a number or a handle. 0 for structures, and for what points to something: the same address
  // may have something else at it, another address the same.
  template <typename Argument>
  static uint64_t Bits(const Argument& argument) {
    if constexpr (Handle<Argument>) {
      return reinterpret_cast<uintptr_t>(argument);
    } else if constexpr (std::is_integral_v<Argument> || std::is_enum_v<Argument>) {
      return static_cast<uint64_t>(argument);
    } else {
      return 0;
    }
  }

  template <typename Argument>
  void Add(int place, const Argument& argument) {
    if (place == 0) first = Bits(argument);
    if (place == 1) second = Bits(argument);
    all = Mixed(all, Bits(argument));
    if constexpr (std::is_same_v<Argument, CUstream>) AddStream(argument);
    if constexpr (std::is_same_v<Argument, const CUlaunchConfig*>) {
      if (argument == nullptr) return;
      AddStream(argument->hStream);
      for (const unsigned number :
           {argument->gridDimX, argument->gridDimY, argument->gridDimZ, argument->blockDimX,
            argument->blockDimY, argument->blockDimZ, argument->sharedMemBytes}) {
        all = Mixed(all, number);
      }
    }
  }
  void AddStream(CUstream of_call) {
    has_stream = true;
    stream = of_call;
  }
};

// Option values that the driver writes into, such as the size of a log: a second try must be told
// what the first was.
class OptionValues {
 public:
  OptionValues(void** values, unsigned count) : values_(values) {
    if (values == nullptr || count > kMost) return;
    for (; count_ < count; ++count_) kept_[count_] = values[count_];
  }
  void Restore() const {
    for (unsigned i = 0; i < count_; ++i) values_[i] = kept_[i];
  }

 private:
  static constexpr unsigned kMost = 64;  // there are not so many options
  void** values_;
  unsigned count_ = 0;
  void* kept_[kMost];
};
struct NoOptionValues {
  void Restore() const {}
};
// Of cuModuleLoadDataEx; of cuLibraryLoadData and cuLibraryLoadFromFile.
inline OptionValues OptionValuesOf(void*, const void*, unsigned count, void*, void** values) {
  return {values, count};
}
inline OptionValues OptionValuesOf(void*, const void*, void*, void** values, unsigned count, void*,
                                   void**, unsigned) {
  return {values, count};
}
// Before the first try.
template <typename... Arguments>
auto KeptOptionValues(const Arguments&... arguments) {
  if constexpr (requires { OptionValuesOf(arguments...); }) {
    return OptionValuesOf(arguments...);
  } else {
    return NoOptionValues{};
  }
}

// One call that failed. Its function remembers in `in_vain` the call and the memory for which a
// rescue did not help; 0: none.
class [[nodiscard]] Rescue {
 public:
  Rescue(Need need, CUresult status, const RescuedArguments& arguments,
         std::atomic<uint64_t>& in_vain);
  // Was room made, so that the call, which answered `status`, is worth another try?
  bool MakesRoom(CUresult status);
  // It is not tried any more: its last answer, which is the program's.
  CUresult Done(CUresult status);

 private:
  // In this order. Then the waits for other threads, a few.
  enum Step {
    kKnownHere,
    kKnownElsewhere,
    kMostHere,
    kMostElsewhere,
    kByOthers,
    kWait,
    kGiveUp = 8
  };

  bool Allowed() const;
  bool Look();
  void Take(Step step);
  void Release(Devices devices, uint64_t needed);

  const Need need_;
  const CUresult status_;
  const RescuedArguments arguments_;
  std::atomic<uint64_t>& in_vain_;
  Pool* const pool_;
  const Driver* const driver_;
  int step_ = kGiveUp;      // the next one
  uint64_t known_ = 0;      // bytes that it needs; 0: that is not known
  uint64_t most_ = 0;       // bytes that it can need
  uint64_t call_ = 0;       // this call with this much memory
  Devices here_ = 0;        // the current device, if it lacks memory
  Devices elsewhere_ = 0;   // others that do
  bool by_others_ = false;  // another thread has just made room
  uint64_t releases_ = 0;   // of all threads before the latest try
  bool released_ = false;
  int tries_ = 0;
};

}  // namespace cmp

#endif  // CMP_SHIM_RESCUE_H_
