#include "shim/free_sync.h"

#include "core/context_wait.h"
#include "core/pool_instance.h"
#include "shim/captures.h"

namespace cmp {

namespace {

// Waits for all work of `context` submitted so far. kCaptureUnderWay: nothing was done.
constexpr int kCaptureUnderWay = 900;  // as CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
int WaitFor(Pool& pool, const Driver& driver, ContextPool& context) {
  ThreadCache* cache = pool.CacheFor(context);
  if (cache == nullptr) return kOutOfMemory;
  if (!g_captures.EnterRecording()) {
    pool.statistics().process().capture_real_calls.AddShared(1);
    return kCaptureUnderWay;
  }
  ContextWait wait(driver, *cache);
  int status = wait.Record();
  // With a recorded event the wait itself is harmless to captures; without, it is the wait that
  // must be kept from them.
  if (status != kSuccess || wait.recorded()) {
    g_captures.LeaveRecording();
    return status == kSuccess ? wait.WaitForEvent() : status;
  }
  if (g_captures.Ever()) {  // see captures.h
    g_captures.LeaveRecording();
    pool.statistics().process().capture_real_calls.AddShared(1);
    return kCaptureUnderWay;
  }
  g_captures.RecordingIsSynchronising();
  status = wait.WaitForAll();
  g_captures.LeaveSynchronising();
  return status;
}

}  // namespace

Settlement SettleFree(Pool& pool, const Driver& driver, Block* block) {
  ContextPool& context = *block->owner();
  if (!context.open() || g_exiting.load(std::memory_order_acquire)) return Settlement::kRealFree;
  const uint64_t begin = NowNs();
  int status = WaitFor(pool, driver, context);
  // Work of other contexts may use the block too (peer access and copies). That it waits for them
  // is more than the real call is known to do.
  pool.ForEachContext([&](ContextPool& other) {
    if (&other == &context || !other.open() || status != kSuccess) return;
    const int waited = WaitFor(pool, driver, other);
    if (IsBrokenContextStatus(waited)) {
      pool.CloseContext(other);  // whose work is over, then
    } else {
      status = waited;
    }
  });
  pool.statistics().CountWait(begin);
  if (status == kSuccess) return Settlement::kReady;
  // From now on the program gets the real calls, and with them the real errors. Other errors (a
  // capture that was begun where the shim cannot see it, a call from a host function, no memory for
  // an event) say nothing about the context: this one free is real.
  if (IsBrokenContextStatus(status)) pool.CloseContext(context);
  return Settlement::kRealFree;
}

}  // namespace cmp
