// A real call of the driver's. Its status is looked at: a kernel that crashed shows in the status
// of whatever call comes next, and from then on the program must get the real errors. And a call
// that ran out of memory is tried again, a few times, where idle blocks made room for it.
#ifndef CMP_SHIM_CALLS_REAL_CALL_H_
#define CMP_SHIM_CALLS_REAL_CALL_H_

#include <cuda.h>

#include <atomic>
#include <cstddef>

#include "shim/calls/rescue.h"

namespace cmp {

// Calls of the pool into the real runtime come back to the driver's entry points: while this is
// not 0 in a thread, they are real.
inline thread_local constinit int t_inside_real = 0;

class [[nodiscard]] InsideReal {
 public:
  InsideReal() { ++t_inside_real; }
  ~InsideReal() { --t_inside_real; }
  InsideReal(const InsideReal&) = delete;
  InsideReal& operator=(const InsideReal&) = delete;
};

// A real call returned `status`, no success. If that is of a broken context, the pool is off for
// all that answer so from now on. (Measured: once a crash was reported, every context of the
// process answers with it.)
void NoteFailure(int status);
// The same after a call that may have found out about a crash and says nothing.
void LookForCrash();

// Where a real call leads. It may change once more, from the symbol to what a lookup gave for it:
// both are the same function to the program.
class RealFunction {
 public:
  constexpr RealFunction() = default;
  void* address() const { return function_.load(std::memory_order_relaxed); }
  // release: what is called was there before.
  void Set(void* function) { function_.store(function, std::memory_order_release); }
  bool operator==(std::nullptr_t) const { return address() == nullptr; }

 protected:
  std::atomic<uint64_t>& in_vain() const { return in_vain_; }  // for Rescue

 private:
  std::atomic<void*> function_{nullptr};
  mutable std::atomic<uint64_t> in_vain_{0};
};

// `kNeed`: what its function can be short of. The usual path costs a compare, and keeps the
// arguments for another try.
template <typename Function, Need kNeed = Need::kNothing>
class RealCall;

template <typename... Parameters, Need kNeed>
class RealCall<CUresult (*)(Parameters...), kNeed> : public RealFunction {
 public:
  CUresult operator()(Parameters... arguments) const {
    if constexpr (kNeed == Need::kNothing) {
      return Once(arguments...);
    } else {
      const auto options = KeptOptionValues(arguments...);
      const CUresult status = Call(arguments...);
      if (status == CUDA_SUCCESS) [[likely]]
        return status;
      return Failed(status, options, arguments...);
    }
  }
  // For the pool itself, which has its own way where memory is short: not tried again.
  CUresult Once(Parameters... arguments) const {
    const CUresult status = Call(arguments...);
    if (status != CUDA_SUCCESS) [[unlikely]]
      NoteFailure(status);
    return status;
  }

 private:
  CUresult Call(Parameters... arguments) const {
    return reinterpret_cast<CUresult (*)(Parameters...)>(address())(arguments...);
  }
  template <typename Options>
  [[gnu::noinline, gnu::cold]] CUresult Failed(CUresult status, const Options& options,
                                               Parameters... arguments) const {
    NoteFailure(status);
    if (!MayLackMemory(kNeed, status)) return status;
    Rescue rescue(kNeed, status, RescuedArguments::Of(arguments...), in_vain());
    while (rescue.MakesRoom(status)) {
      options.Restore();
      status = Call(arguments...);
      if (status != CUDA_SUCCESS) NoteFailure(status);
    }
    return rescue.Done(status);
  }
};

}  // namespace cmp

#endif  // CMP_SHIM_CALLS_REAL_CALL_H_
