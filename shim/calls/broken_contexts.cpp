// What a crashed kernel leaves: contexts that answer every call with its error. The program is told
// by the real calls alone, so the pool goes out of their way.
#include "core/driver/driver.h"
#include "core/pool/pool_instance.h"
#include "shim/calls/real_call.h"

namespace cmp {

namespace {

// The status is not enough to tell: some are answers to one call only (an import that fails with
// "unknown"), and it may be of a context that has no pool. (To ask for the free memory is harmless
// during captures: measured.)
bool IsBroken(const Driver& driver, ContextPool& context) {
  const Uncancelled uncancelled;
  const ContextPool::User user(context);
  if (!user.entered()) return false;
  auto* handle = static_cast<CUcontext>(context.identity().handle);
  CUresult status = driver.push_current(handle);
  if (status != CUDA_SUCCESS) return IsBrokenContextStatus(status);
  size_t free = 0;
  size_t total = 0;
  status = driver.mem_get_info(&free, &total);
  CUcontext popped = nullptr;
  driver.pop_current(&popped);
  return IsBrokenContextStatus(status);
}

}  // namespace

void NoteFailure(int status) {
  static thread_local constinit bool t_asks = false;  // the question is a real call as well
  if (!IsBrokenContextStatus(status) || t_asks) return;
  Pool* pool = g_pool.load(std::memory_order_acquire);
  const Driver* driver = LoadedDriver();
  if (pool == nullptr || driver == nullptr || g_exiting.load(std::memory_order_acquire)) return;
  t_asks = true;
  pool->ForEachContext([&](ContextPool& context) {
    if (context.may_work() && IsBroken(*driver, context)) pool->CloseContext(context);
  });
  t_asks = false;
}

// What is known of a crash the current context's id says, too (measured), and it waits for nothing.
void LookForCrash() {
  const Driver* driver = LoadedDriver();
  if (g_pool.load(std::memory_order_acquire) == nullptr || driver == nullptr ||
      driver->context_id == nullptr || g_exiting.load(std::memory_order_acquire)) {
    return;
  }
  unsigned long long id = 0;
  NoteFailure(driver->context_id(nullptr, &id));
}

}  // namespace cmp
