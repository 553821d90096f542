#include "shim/shake/shake.h"

#include <new>

#include "core/base/memory.h"
#include "core/base/warnings.h"
#include "shim/record/shake_counts.h"
#include "shim/shake/shaker.h"

namespace cmp {

void BeginShake(const Options& options) {
  if (options.shake == kShakeOff || options.mode != Mode::kPool) return;
  const bool records = options.shake == kShakeRecord;
  if (!records && options.free_sync != FreeSync::kNone && options.free_sync != FreeSync::kOrder) {
    return PrintWarning("CMP_SHAKE does nothing: with a seed it needs CMP_FREE_SYNC=none or order");
  }
  void* memory = MapPages(sizeof(Shaker));
  if (memory == nullptr) return PrintWarning("CMP_SHAKE does nothing: there is no memory for it");
  auto* shaker = new (memory) Shaker;
  if (!shaker->Begin(options)) return;
  g_shake_counts.on.store(true, std::memory_order_relaxed);
  g_shaker.store(shaker, std::memory_order_release);
  shaker->BeginReport(options.shake_report);
}

void EndShake() {
  if (Shaker* shaker = TheShaker()) shaker->End();
}

Shaken::Shaken(const ShakenSubmission& submission) : shaker_(*TheShaker()) {
  shaker_.Before(submission, *this);
}

Shaken::~Shaken() {
  if (is_later_) shaker_.After(*this);
}

void ShakeFree(size_t bytes) { TheShaker()->Free(bytes); }
uint64_t ShakeWaitSlow(StreamName stream) { return TheShaker()->Wait(stream); }
void ShakeWaitedSlow(StreamName stream, uint64_t begun) { TheShaker()->Waited(stream, begun); }
void ShakeStreamEndsSlow(StreamName stream) { TheShaker()->StreamEnds(stream); }
void ShakeContextEndsSlow() { TheShaker()->ContextEnds(); }

}  // namespace cmp
