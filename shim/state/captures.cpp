#include "shim/state/captures.h"

#include <new>

#include "core/base/memory.h"
#include "core/base/statistics.h"
#include "core/base/thread_exit.h"
#include "core/pool/pool_instance.h"

namespace cmp {

namespace {

// Its address names the thread; a capture whose thread has gone keeps a name that a later thread
// may get, which then makes real calls for a while: safe.
thread_local constinit char t_thread_name = 0;

constinit ThreadExitHook g_thread_exit([] { g_captures.EndedWithThread(); });

}  // namespace

bool Captures::OfThisThread() {
  Held held(lock_);
  return Visit(
      [](const Capture& capture) { return capture.used && capture.thread == &t_thread_name; });
}

bool Captures::EnterSynchronising() {
  if (!EnterRecording()) return false;
  // Once a capture was begun in this process, one that begins may be waiting for its patience with
  // a synchronisation that is on its way into the driver: no more of them.
  const bool allowed = !ever_.load(std::memory_order_seq_cst);
  if (allowed) synchronising_.fetch_add(1, std::memory_order_seq_cst);
  LeaveRecording();
  return allowed;
}

bool Captures::BeforeBegin() {
  ever_.store(true, std::memory_order_seq_cst);
  const bool first = under_way_.fetch_add(1, std::memory_order_seq_cst) == 0;
  BarHits();
  for (Pause pause; recording_.load(std::memory_order_seq_cst) != 0;) pause.Wait();
  if (synchronising_.load(std::memory_order_seq_cst) != 0) {
    const uint64_t begin = NowNs();
    for (Pause pause;
         synchronising_.load(std::memory_order_seq_cst) != 0 && NowNs() - begin < kPatienceNs;) {
      pause.Wait();
    }
  }
  return first;
}

void Captures::AfterBegin(CUstream stream, ContextHandle context, bool begun) {
  if (!begun) {
    Leave();
    return;
  }
  if (stream == CU_STREAM_PER_THREAD) g_thread_exit.Arm();
  const Capture begun_now{stream, context, &t_thread_name, true};
  const auto put = [&](Capture& capture) {
    if (capture.used) return false;
    capture = begun_now;
    return true;
  };
  Held held(lock_);
  if (Visit(put)) return;
  // All places are taken. Without memory for more the count alone stays, and with it real calls.
  if (void* memory = MapPages(sizeof(Places))) {
    auto* more = new (memory) Places;
    more->more = places_.more;
    places_.more = more;
    put(more->captures[0]);
  }
}

void Captures::Ended(CUstream stream) {
  Held held(lock_);
  Visit([&](Capture& capture) {
    if (!capture.used || capture.stream != stream) return false;
    if (stream == CU_STREAM_PER_THREAD && capture.thread != &t_thread_name) return false;
    capture.used = false;
    Leave();
    return true;
  });
}

// The lock is held across cuStreamIsCapturing, which waits for nothing (52 ns measured) and never
// calls back.
void Captures::Revisit(const Driver& driver) {
  constexpr unsigned kEvery = 64;
  if (visits_.fetch_add(1, std::memory_order_relaxed) % kEvery != kEvery - 1) return;
  Held held(lock_);
  if (ending_ != 0) return;
  Visit([&](Capture& capture) {
    // Another thread's default stream cannot be asked from here.
    if (!capture.used ||
        (capture.stream == CU_STREAM_PER_THREAD && capture.thread != &t_thread_name)) {
      return false;
    }
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_ACTIVE;
    const CUresult asked = driver.stream_is_capturing(capture.stream, &status);
    const bool gone = asked == CUDA_ERROR_INVALID_HANDLE || asked == CUDA_ERROR_INVALID_CONTEXT ||
                      asked == CUDA_ERROR_CONTEXT_IS_DESTROYED;
    if (!gone && (asked != CUDA_SUCCESS || status != CU_STREAM_CAPTURE_STATUS_NONE)) return false;
    capture.used = false;
    Leave();
    return false;
  });
}

void Captures::EndedWithThread() {
  if (UnderWay()) Ended(CU_STREAM_PER_THREAD);
}

void Captures::EndedIn(ContextHandle context) {
  if (!UnderWay()) return;
  Held held(lock_);
  Visit([&](Capture& capture) {
    if (!capture.used || capture.context != context) return false;
    capture.used = false;
    Leave();
    return false;
  });
}

void Captures::Forget() {
  // The lock may have been held by a thread that the child does not have.
  under_way_.store(0, std::memory_order_seq_cst);
  g_hits_barred.store(0, std::memory_order_seq_cst);  // no others' reasons outlive a fork either
  recording_.store(0, std::memory_order_seq_cst);
  synchronising_.store(0, std::memory_order_seq_cst);
  new (&lock_) Mutex;
  ending_ = 0;
  Visit([](Capture& capture) {
    capture = Capture{};
    return false;
  });
}

}  // namespace cmp
