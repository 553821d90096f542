#include "shim/captures.h"

#include <new>

namespace cmp {

namespace {

// Its address names the thread; a capture whose thread has gone keeps a name that a later thread
// may get, which then makes real calls for a while: safe.
thread_local constinit char t_thread_name = 0;

}  // namespace

bool Captures::OfThisThread() {
  Held held(lock_);
  for (const Capture& capture : captures_) {
    if (capture.used && capture.thread == &t_thread_name) return true;
  }
  return false;
}

void Captures::AfterBegin(CUstream stream, bool begun) {
  if (begun) {
    Held held(lock_);
    for (Capture& capture : captures_) {
      if (capture.used) continue;
      capture = Capture{stream, &t_thread_name, true};
      return;
    }
    // More captures at once than there are places: the count alone stays, and with it real calls.
    return;
  }
  under_way_.fetch_sub(1, std::memory_order_seq_cst);
}

void Captures::Ended(CUstream stream) {
  Held held(lock_);
  for (Capture& capture : captures_) {
    if (!capture.used || capture.stream != stream) continue;
    if (stream == CU_STREAM_PER_THREAD && capture.thread != &t_thread_name) continue;
    capture.used = false;
    under_way_.fetch_sub(1, std::memory_order_seq_cst);
    return;
  }
}

void Captures::Forget() {
  // The lock may have been held by a thread that the child does not have.
  under_way_.store(0, std::memory_order_seq_cst);
  recording_.store(0, std::memory_order_seq_cst);
  new (&lock_) Mutex;
  for (Capture& capture : captures_) capture = Capture{};
}

}  // namespace cmp
