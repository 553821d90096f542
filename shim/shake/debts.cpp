#include "shim/shake/debts.h"

#include <algorithm>
#include <iterator>

#include "shim/record/shake_counts.h"
#include "shim/visible/visible_memory.h"

namespace cmp {

void ShakeDebts::Submit(const ShakenSubmission& submission, const ShakeCall& call,
                        const ShakeStream& stream) {
  for (ShakeSite*& site : freed_hosts_) {
    if (site == nullptr || site->free_thread != call.thread) continue;
    sites_.Later(*site, call);
    site = nullptr;
  }
  if (!submission.works) return;
  for (const ShakeStream& other : streams_) {
    Debt& debt = of_[streams_.IndexOf(other)].debt;
    if (debt.earlier.is_empty() || AreOrdered(other, stream)) continue;
    Execute(ShakeKind::kOrder, debt, &call);
    debt = {};
  }
  OfStream& of = of_[streams_.IndexOf(stream)];
  const Submitted submitted = {call, ++number_};
  of.work.Add(submitted);
  const bool visible = submission.visible || g_visible_memory.Exists() != Visible::kNothing;
  if (visible) of.visible.Add(submitted);
}

void ShakeDebts::Free(const CallSite* where, uint32_t thread, size_t bytes) {
  for (const ShakeStream& stream : streams_) {
    OfStream& of = of_[streams_.IndexOf(stream)];
    if (!of.work.is_empty()) of.debt = {of.work, where, thread, bytes};
    if (!of.visible.is_empty()) {
      Execute(ShakeKind::kHost, {of.visible, where, thread, bytes}, nullptr);
    }
    of.work = of.visible = {};
  }
}

void ShakeDebts::Execute(ShakeKind kind, const Debt& debt, const ShakeCall* later) {
  const ShakeSite* before = nullptr;
  for (const Submitted* submitted : {&debt.earlier.last, &debt.earlier.first}) {
    ShakeSite* const site = sites_.Get(kind, submitted->call);
    if (site == nullptr || site == before) continue;
    before = site;
    sites_.Freed(*site, debt.free_where, debt.free_thread, debt.free_bytes);
    sites_.Count(g_shake_counts.executions, site->count);
    if (later != nullptr) {
      sites_.Later(*site, *later);
      continue;
    }
    const auto place = std::find(std::begin(freed_hosts_), std::end(freed_hosts_), nullptr);
    if (place != std::end(freed_hosts_)) *place = site;
  }
}

void ShakeDebts::Waited(StreamName name, uint64_t begun) {
  for (const ShakeStream& stream : streams_) {
    if (!IsWaitedFor(name, stream)) continue;
    OfStream& of = of_[streams_.IndexOf(stream)];
    of.work.Done(begun);
    of.visible.Done(begun);
    of.debt.earlier.Done(begun);
  }
}

void ShakeDebts::ThreadEnds(uint32_t thread) {
  for (ShakeSite*& site : freed_hosts_) {
    if (site != nullptr && site->free_thread == thread) site = nullptr;
  }
}

}  // namespace cmp
