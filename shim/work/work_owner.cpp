#include "shim/work/work_owner.h"

#include "shim/state/captures.h"

namespace cmp {

void WorkOwner::EnterIn(WorkOwner owner, StreamName stream, bool overtakes, Visible visible) {
  if (!owner.IsOneOfSeveral()) [[likely]]
    return owner.work_->Enter(stream, overtakes, visible);
  ForEachWork([=](ContextWork& work) { work.Enter(stream, overtakes, visible); });
}

void WorkOwner::NoteIn(WorkOwner owner, StreamName stream, Visible visible) {
  if (!owner.IsOneOfSeveral()) [[likely]]
    return owner.work_->Note(stream, visible);
  ForEachWork([=](ContextWork& work) { work.Note(stream, visible); });
}

WorkOwner OwnerOfContext(ContextHandle handle) {
  const Pool* pool = g_pool.load(std::memory_order_acquire);
  WorkOwner owner = WorkOwner::None();
  if (pool == nullptr || handle == nullptr) return owner;
  pool->contexts().Glance([&](const ContextPool& context) {
    if (context.handle() == handle) owner = WorkOwner::Of(WorkIn(context));
  });
  return owner;
}

void SettleDebts() {
  if (const Driver* driver = LoadedDriver()) {
    ForEachWork([&](ContextWork& work) { work.Settle(*driver); });
  }
}

void BeforeCapture() {
  if (g_captures.BeforeBegin()) SettleDebts();
  for (Pause pause; AnyDebt();) pause.Wait();
}

}  // namespace cmp
