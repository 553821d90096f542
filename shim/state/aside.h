// Stepping aside. The pool rests on what it cannot check afterwards: that it sees every submission,
// that a real call is the driver's own, that a wait covers what it seems to. Where the shim finds
// that this is not so, it serves nothing any more: every call is real, as without it, and what the
// program holds is really freed when it is freed.
//
// Invariant: a process that has stepped aside does not come back.
#ifndef CMP_SHIM_STATE_ASIDE_H_
#define CMP_SHIM_STATE_ASIDE_H_

#include <atomic>

#include "core/pool/pool.h"

namespace cmp {

inline constinit std::atomic<bool> g_aside{false};
inline bool IsAside() { return g_aside.load(std::memory_order_acquire); }

// Is it wrong, so that a line says it, or what the documents say, so that the statistics are
// enough?
enum class AsideIs { kWrong, kDocumented };

// From now on every call is real, for `reason`, which completes "every call is real: ...". The
// first reason stays. Idle memory is given back. Thread-safe.
void StepAside(AsideIs what, const char* reason);

// The reason, nullptr while the pool serves.
const char* AsideReason();

// The pool that serves the current context, or none: none does.
inline HeldContext ServingContext(Pool& pool, const Driver& driver) {
  if (IsAside()) return {};
  HeldContext context = pool.CurrentContextPool(driver);
  // It may have been opened after everything was closed; see StepAside.
  if (!context || !g_aside.load(std::memory_order_seq_cst)) return context;
  pool.CloseContext(*context);
  return {};
}

}  // namespace cmp

#endif  // CMP_SHIM_STATE_ASIDE_H_
