// The contexts that the program made, also those in which nothing was allocated: their work may use
// the blocks of others, so the first submission to such a context gives it a pool
// (work_of_stream.cpp), unless a call is on its way that may end it. And which of them have a pool:
// that decides whether there is an owner of all work (g_owner_of_all).
#ifndef CMP_SHIM_WORK_MADE_CONTEXTS_H_
#define CMP_SHIM_WORK_MADE_CONTEXTS_H_

#include <cuda.h>

#include <cstdint>

#include "core/base/types.h"

namespace cmp {

class ContextWork;

inline constexpr CUdevice kNotPrimary = -1;
// The program has made a context, or retained a device's primary one again.
void ContextIsThere(ContextHandle handle, CUdevice primary_of);
// The handle of a device's primary context, nullptr if the program has made none.
ContextHandle PrimaryMade(CUdevice device);
// Has the program given up all references to it that were seen being taken? A green context's may
// be left.
bool PrimaryIsReleased(CUdevice device);

// Visits the handles of all such contexts, without a lock; one that is made or ends meanwhile may
// be visited or not. MadeContextsChanges() says another number after a visit than before it if that
// was so, or if a context has lost its pool meanwhile.
void ForEachMadeContext(void (*visit)(ContextHandle handle));
uint64_t MadeContextsChanges();

// A call is on its way that may end a context: no submission gives it a pool meanwhile.
class [[nodiscard]] ContextEnding {
 public:
  explicit ContextEnding(ContextHandle handle);
  ~ContextEnding();
  ContextEnding(const ContextEnding&) = delete;
  ContextEnding& operator=(const ContextEnding&) = delete;
  // The call gives up a reference. True: it may be the last, though such as are not seen being
  // taken (by green contexts, cuCtxAttach) may be left.
  bool GivesUpLast();
  void GaveUpNone();  // it failed
  // It has ended; another thread's new context may have its handle by now.
  void Ended() { ended_ = true; }

 private:
  struct MadeContext* made_ = nullptr;
  uint64_t times_ = 0;
  bool ended_ = false;
};

// A context is getting a pool because of a submission. It does not end meanwhile.
class [[nodiscard]] ContextOpening {
 public:
  explicit ContextOpening(ContextHandle handle);
  ~ContextOpening();
  ContextOpening(const ContextOpening&) = delete;
  ContextOpening& operator=(const ContextOpening&) = delete;
  // False: it ends, or is not known.
  bool allowed() const { return allowed_; }

 private:
  bool allowed_;
};

// A context got its pool, with this record, or lost it.
void ContextHasPool(ContextWork& work);
void ContextHasNoPool(ContextWork& work);

// In a forked child: nothing of the parent's.
void ForgetContexts();

}  // namespace cmp

#endif  // CMP_SHIM_WORK_MADE_CONTEXTS_H_
