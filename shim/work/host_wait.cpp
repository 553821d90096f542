#include "shim/work/host_wait.h"

namespace cmp {

HostWait::HostWait(StreamName stream) {
  const Driver* driver = LoadedDriver();
  const WorkOwner owner = OwnerOf(stream);
  if (driver == nullptr || owner.IsOneOfSeveral() || owner.IsNone()) return;
  Begin(owner.work(), stream);
  // Afterwards: if it is its work now, then what Begin found is not another context's.
  if (work_ != nullptr && IsOfCurrentContext(stream) && !work_->IsOf(CurrentContext(*driver)))
    work_ = nullptr;
}

HostWait::HostWait(ContextHandle context) {
  const WorkOwner owner = OwnerOfContext(context);
  if (owner.IsNone()) return;
  Begin(owner.work(), kSeveralStreams);
  if (work_ != nullptr && !work_->IsOf(context)) work_ = nullptr;
}

// Of a context without unfinished work nothing changes by a wait.
void HostWait::Begin(ContextWork& work, StreamName stream) {
  if (work.IsIdle()) return;
  if (TheShaker() != nullptr) [[unlikely]]
    shake_begun_ = ShakeWaitSlow(stream);
  work_ = &work;
  waiting_ = work.BeginWait(stream);
}

}  // namespace cmp
