#include "shim/work/submission.h"

#include "core/base/rules.h"
#include "shim/work/owed.h"

namespace cmp {

WorkOwner FindOwnerToSubmit(StreamName stream) {
  const WorkOwner owner = FindOwner(stream);
  const ContextPool* owed = t_owed.context;
  if (owed != nullptr && !owner.Is(owed->of_host)) [[unlikely]]
    PayOwed(&ProcessCounters::paid_by_other_contexts);
  return owner;
}

void NoteSubmitted(WorkOwner of_all, WorkOwner owner, StreamName stream, Visible visible) {
  const bool always = visible != Visible::kNothing;
  if (always || !owner.IsQuiet(stream)) owner.Note(stream, visible);
  if (g_owner_of_all.load(std::memory_order_acquire) == of_all) return;
  const WorkOwner now = OwnerOf(stream);
  if (now != owner && (always || !now.IsQuiet(stream))) now.Note(stream, visible);
}

void NoteElsewhere(StreamName stream, Visible visible, Devices devices) {
  if (!RuleIsOn(Rule::kCopiesInEveryContext)) return;
  OpenAllContexts();
  // In another context the name of a default stream would be that of another stream.
  const StreamName name = IsOfCurrentContext(stream) ? kSeveralStreams : stream;
  const WorkOwner own = OwnerOf(stream);
  ForEachWork([&](ContextWork& work) {
    if (own.Is(&work) || work.context() == nullptr ||
        (DeviceBit(work.context()->device()) & devices) == 0)
      return;
    if (visible != Visible::kNothing || !work.IsQuiet(name)) work.Note(name, visible);
  });
}

}  // namespace cmp
