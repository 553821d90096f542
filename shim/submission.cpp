#include "shim/submission.h"

#include "core/rules.h"
#include "shim/owed.h"

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

// Default streams have the same name in each context.
void NoteElsewhere(StreamName stream, Visible visible, Devices devices) {
  if (!RuleIsOn(Rule::kCopiesInEveryContext)) return;
  OpenAllContexts();
  const bool is_default = stream == kLegacyStream || stream % 2 == 1;
  const WorkOwner own = OwnerOf(stream);
  ForEachWork([&](ContextWork& work) {
    if (own.Is(&work) || work.context() == nullptr ||
        (DeviceBit(work.context()->device()) & devices) == 0)
      return;
    const StreamName name = is_default ? kSeveralStreams : stream;
    if (visible != Visible::kNothing || !work.IsQuiet(name)) work.Note(name, visible);
  });
}

}  // namespace cmp
