// Whose work something is: of no context, of one, or of one of several, and which is not known. As
// small as a pointer, and to ask whether a stream is quiet is the same two loads in each case.
#ifndef CMP_SHIM_WORK_WORK_OWNER_H_
#define CMP_SHIM_WORK_WORK_OWNER_H_

#include "core/base/own_line.h"
#include "core/pool/pool_instance.h"
#include "shim/work/context_work.h"

namespace cmp {

class WorkOwner {
 public:
  // No context that has a pool. Whatever is submitted changes nothing.
  static constexpr WorkOwner None() { return WorkOwner(&g_no_work); }
  // The context with this record; None(), if the record is g_no_work.
  static constexpr WorkOwner Of(ContextWork& work) { return WorkOwner(&work); }
  // One of several contexts: what is submitted counts for all of them, and no stream is quiet.
  static constexpr WorkOwner OneOfSeveral() { return WorkOwner(&g_work_of_several); }

  bool IsOneOfSeveral() const { return work_ == &g_work_of_several; }
  bool IsNone() const { return work_ == &g_no_work; }
  bool Is(const void* work) const { return work_ == work; }
  bool operator==(const WorkOwner&) const = default;

  // The record of the one context; else g_no_work or g_work_of_several, in which nothing is noted.
  ContextWork& work() const { return *work_; }

  // As ContextWork's.
  bool IsQuiet(StreamName stream) const { return work_->IsQuiet(stream); }
  void Enter(StreamName stream, bool overtakes, Visible visible) const {
    EnterIn(*this, stream, overtakes, visible);
  }
  void Note(StreamName stream, Visible visible) const { NoteIn(*this, stream, visible); }

 private:
  explicit constexpr WorkOwner(ContextWork* work) : work_(work) {}
  // By value: in a register.
  static void EnterIn(WorkOwner owner, StreamName stream, bool overtakes, Visible visible);
  static void NoteIn(WorkOwner owner, StreamName stream, Visible visible);

  ContextWork* work_;
};

// The owner of all work of the process, whatever its stream: the only context, none while none has
// a pool, or one of several: then the stream says which (work_of_stream.h). Written under the lock
// of made_contexts.cpp, with release; acquire: who finds a context here finds its record.
inline constinit OwnLine<WorkOwner> g_owner_of_all{WorkOwner::None()};
static_assert(decltype(g_owner_of_all)::is_always_lock_free);

// The owner of a context's work: itself, or none while it has no pool.
WorkOwner OwnerOfContext(ContextHandle handle);

// Visits the work of every context with a pool. A context may end meanwhile, and its record be used
// again: harmless for what is noted there (context_work.h).
template <typename Visitor>
void ForEachWork(Visitor visit) {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  if (pool == nullptr) return;
  pool->contexts().Glance([&](const ContextPool& context) { visit(WorkIn(context)); });
}

// Pays the debts of all contexts. For whoever begins a capture while none is under way.
void SettleDebts();
// A capture is about to begin, after whose real begin Captures::AfterBegin is to be called: no
// fence is recorded any more, and no context owes any order.
void BeforeCapture();

}  // namespace cmp

#endif  // CMP_SHIM_WORK_WORK_OWNER_H_
