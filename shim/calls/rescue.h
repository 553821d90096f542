// A call of the driver's that ran out of memory, where idle blocks of the pool may be what it
// lacked: they are released, and it is tried again. What fits without the pool fits with it.
//
// Not on suspicion: only while the memory that is really free, of a device whose memory it can
// take, is less than it can need, and not again while there is as much as when it did not help. Of
// a call whose need cannot be seen that is remembered for a second or two: it may be another's by
// then. Never where all of the need stands behind a pointer, as with an image of code. Nor where it
// could show: a thread that captures gets the real answer, and so does what would go into a
// capture.
//
// Step by step, and tried again after each that made room, so eight times at most: what the call
// says that it needs, of the current device, then of others; a gigabyte more, or all, the same;
// what another thread releases just now; and three times what other threads have in hand, for which
// it waits. Page-locked memory of the host comes before all that: what the call needs, then the
// rest, or what other threads have in hand.
#ifndef CMP_SHIM_CALLS_RESCUE_H_
#define CMP_SHIM_CALLS_RESCUE_H_

#include <cuda.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "core/contexts/device_links.h"

namespace cmp {

class Pool;
struct Driver;

// What a function can be short of (scripts/driver_table/effects.py).
enum class Need : uint8_t {
  kNothing,      // it is not tried again
  kUnknown,      // a gigabyte, which every other need comes with
  kUnknownHere,  // the same, of the current device
  kHost,         // the same, but first page-locked memory of the host, as its second argument says
  kAny,          // as much as the device has
  kGraph,        // the same; other devices may have begun with the graph before it failed
  kDescribed,    // the same; by what stands behind a pointer, so the next call may need less
  kDescribedHere,  // the same, of the current device
  kSized,          // of the current device, at least as much as its description says
  kBytes,          // what its second argument says
  kLimit,          // cuCtxSetLimit: what the limit means for the whole device
  kLaunch,         // local memory, code, or the heap that kernels allocate from
};

// Can it take the memory of the current device alone?
constexpr bool IsHere(Need need) {
  return need == Need::kUnknownHere || need == Need::kDescribedHere || need == Need::kSized ||
         need == Need::kLimit || need == Need::kLaunch;
}
// For how long is it known that a rescue did not help? For ever means: while as much is free.
enum class Remembered : uint8_t { kNever, kForAWhile, kForEver };
constexpr Remembered RememberedOf(Need need) {
  if (need == Need::kDescribed || need == Need::kDescribedHere) return Remembered::kNever;
  const bool seen = need != Need::kAny && need != Need::kGraph && need != Need::kSized;
  return seen ? Remembered::kForEver : Remembered::kForAWhile;
}

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

constexpr uint64_t SaturatedProduct(uint64_t one, uint64_t other) {
  uint64_t product = 0;
  return __builtin_mul_overflow(one, other, &product) ? ~uint64_t{0} : product;
}

// Of an element of an array, for each channel; 0: it may be less than a byte.
constexpr uint64_t BytesOfFormat(CUarray_format format) {
  switch (format) {
    case CU_AD_FORMAT_UNSIGNED_INT8:
    case CU_AD_FORMAT_SIGNED_INT8:
      return 1;
    case CU_AD_FORMAT_UNSIGNED_INT16:
    case CU_AD_FORMAT_SIGNED_INT16:
    case CU_AD_FORMAT_HALF:
      return 2;
    case CU_AD_FORMAT_UNSIGNED_INT32:
    case CU_AD_FORMAT_SIGNED_INT32:
    case CU_AD_FORMAT_FLOAT:
      return 4;
    default:
      return 0;
  }
}
constexpr uint64_t BytesOfArray(CUarray_format format, unsigned channels,
                                std::initializer_list<size_t> lengths) {
  uint64_t bytes = BytesOfFormat(format) * channels;
  for (const size_t length : lengths) bytes = SaturatedProduct(bytes, length == 0 ? 1 : length);
  return bytes;
}

// At least so many bytes does the call ask for; 0: that cannot be told. The driver pads rows.
template <typename... Arguments>
uint64_t LeastBytesOf(const Arguments&...) {
  return 0;
}
// cuMemAllocPitch
inline uint64_t LeastBytesOf(CUdeviceptr*, size_t*, size_t width, size_t height, unsigned) {
  return SaturatedProduct(width, height);
}
// cuArrayCreate, cuArray3DCreate, cuMipmappedArrayCreate
template <typename... More>
uint64_t LeastBytesOf(void*, const CUDA_ARRAY_DESCRIPTOR* of, const More&...) {
  return of == nullptr ? 0 : BytesOfArray(of->Format, of->NumChannels, {of->Width, of->Height});
}
template <typename... More>
uint64_t LeastBytesOf(void*, const CUDA_ARRAY3D_DESCRIPTOR* of, const More&...) {
  constexpr unsigned kMappedLater = 0x40 | 0x80;  // sparse, deferred: no memory of its own
  if (of == nullptr || (of->Flags & kMappedLater) != 0) return 0;
  return BytesOfArray(of->Format, of->NumChannels, {of->Width, of->Height, of->Depth});
}

// What is looked at of a call's arguments.
struct RescuedArguments {
  uint64_t first = 0;
  uint64_t second = 0;
  uint64_t least_bytes = 0;
  uint64_t all = 0;  // of all numbers and handles
  bool has_stream = false;
  CUstream stream = nullptr;

  template <typename... Arguments>
  static RescuedArguments Of(const Arguments&... arguments) {
    RescuedArguments of;
    int place = 0;
    (of.Add(place++, arguments), ...);
    of.least_bytes = LeastBytesOf(arguments...);
    of.all = Mixed(of.all, of.least_bytes);
    return of;
  }

 private:
  // Of a number, a handle or a name. 0 for structures, and for what points to something: the same
  // address may have something else at it, another address the same.
  template <typename Argument>
  static uint64_t Bits(const Argument& argument) {
    if constexpr (Handle<Argument>) {
      return reinterpret_cast<uintptr_t>(argument);
    } else if constexpr (std::is_integral_v<Argument> || std::is_enum_v<Argument>) {
      return static_cast<uint64_t>(argument);
    } else if constexpr (std::is_same_v<Argument, const char*>) {
      uint64_t bits = 0;
      for (const char* each = argument; each != nullptr && *each != '\0'; ++each) {
        bits = Mixed(bits, static_cast<unsigned char>(*each));
      }
      return bits;
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
    // In the first place it is where a new stream's handle goes.
    if constexpr (std::is_same_v<Argument, CUstream*>) {
      if (place != 0 && argument != nullptr) AddStream(*argument);
    }
    if constexpr (std::is_same_v<Argument, CUDA_GRAPH_INSTANTIATE_PARAMS*>) {
      const bool uploads =
          argument != nullptr && (argument->flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD) != 0;
      if (uploads) AddStream(argument->hUploadStream);
    }
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
  bool MakesRoomInHost();
  bool Lacks() const { return (here_ | elsewhere_) != 0; }
  bool IsVain() const;
  void Look();
  void Take(Step step);
  void Release(Devices devices, uint64_t needed);

  const Need need_;
  const CUresult status_;
  const RescuedArguments arguments_;
  std::atomic<uint64_t>& in_vain_;
  Pool* const pool_;
  const Driver* const driver_;
  size_t host_bytes_ = 0;   // to be released of page-locked memory next
  int step_ = kGiveUp;      // the next one
  uint64_t known_ = 0;      // bytes that it needs; 0: that is not known
  uint64_t most_ = 0;       // bytes that it can need
  uint64_t call_ = 0;       // this call with this much memory
  Devices here_ = 0;        // the current device, if it lacks memory that the pool may give
  Devices elsewhere_ = 0;   // others that do
  bool by_others_ = false;  // another thread is making room, or just did
  uint64_t releases_ = 0;   // of all threads before the latest try
  bool released_ = false;
  bool waited_ = false;
  int tries_ = 0;
};

}  // namespace cmp

#endif  // CMP_SHIM_CALLS_RESCUE_H_
