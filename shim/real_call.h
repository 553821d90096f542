// A real call of the driver's. Its status is looked at: a kernel that crashed shows in the status
// of whatever call comes next, and from then on the program must get the real errors.
#ifndef CMP_SHIM_REAL_CALL_H_
#define CMP_SHIM_REAL_CALL_H_

#include <cuda.h>

#include <atomic>
#include <cstddef>

namespace cmp {

// A real call returned `status`, no success. If that is of a broken context, the pool is off for
// all that answer so from now on. (Measured: once a crash was reported, every context of the
// process answers with it.)
void NoteFailure(int status);

// Where a real call leads. It may change once more, from the symbol to what a lookup gave for it:
// both are the same function to the program.
class RealFunction {
 public:
  constexpr RealFunction() = default;
  void* address() const { return function_.load(std::memory_order_relaxed); }
  // release: what is called was there before.
  void Set(void* function) { function_.store(function, std::memory_order_release); }
  bool operator==(std::nullptr_t) const { return address() == nullptr; }

 private:
  std::atomic<void*> function_{nullptr};
};

template <typename Function>
class RealCall;

template <typename... Parameters>
class RealCall<CUresult (*)(Parameters...)> : public RealFunction {
 public:
  CUresult operator()(Parameters... arguments) const {
    const auto function = reinterpret_cast<CUresult (*)(Parameters...)>(address());
    const CUresult status = function(arguments...);
    if (status != CUDA_SUCCESS) [[unlikely]]
      NoteFailure(status);
    return status;
  }
};

}  // namespace cmp

#endif  // CMP_SHIM_REAL_CALL_H_
