// A call on its way that waits on the host: what it waited for needs no order, and no free waits
// for it.
#ifndef CMP_SHIM_WORK_HOST_WAIT_H_
#define CMP_SHIM_WORK_HOST_WAIT_H_

#include "shim/shake/shake.h"
#include "shim/work/submission.h"

namespace cmp {

// For one stream, or kSeveralStreams for all work of the current context.
class [[nodiscard]] HostWait {
 public:
  explicit HostWait(StreamName stream);
  // For all work of this context.
  explicit HostWait(ContextHandle context);
  // The call returned.
  CUresult Done(CUresult status) {
    if (status == CUDA_SUCCESS && work_ != nullptr) {
      finished_ = work_->EndWait(waiting_);
      ShakeWaited(waiting_.stream, shake_begun_);
    }
    return status;
  }
  // Did it finish all work of the context?
  bool finished() const { return finished_; }

 private:
  void Begin(ContextWork& work, StreamName stream);

  bool finished_ = false;
  ContextWork* work_ = nullptr;  // nullptr: it is not known what the call waits for
  ContextWork::Waiting waiting_ = {};
  uint64_t shake_begun_;  // while CMP_SHAKE is on, and with work_
};

// A submission by call() that returns only once it, and with it all earlier work of its stream, is
// done: a synchronous copy to the host (CUDA runtime API, "API synchronization behavior").
template <typename Call>
CUresult SubmitAndWait(StreamName stream, Call call) {
  const WorkOwner of_all = g_owner_of_all.load(std::memory_order_acquire);
  const WorkOwner owner = OwnerToSubmit(of_all, stream);
  if (!owner.IsQuiet(stream)) owner.Enter(stream, false, Visible::kNothing);
  HostWait wait(stream);
  const CUresult status = wait.Done(call());
  if (!wait.finished() && IsToBeNoted(of_all, owner, stream)) NoteSubmitted(of_all, owner, stream);
  return status;
}

}  // namespace cmp

#endif  // CMP_SHIM_WORK_HOST_WAIT_H_
