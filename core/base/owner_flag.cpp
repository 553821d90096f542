#include "core/base/owner_flag.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/base/lock.h"

// Of Linux 4.14; the headers may be older.
#ifndef SYS_membarrier
#if defined(__x86_64__)
#define SYS_membarrier 324
#elif defined(__aarch64__)
#define SYS_membarrier 283
#endif
#endif

namespace cmp {

namespace {
constexpr int kQuery = 0;             // MEMBARRIER_CMD_QUERY: those that there are, in one word
constexpr int kBarrier = 1 << 3;      // MEMBARRIER_CMD_PRIVATE_EXPEDITED
constexpr int kRegister = 1 << 4;     // MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED
constexpr int kMostFlagPauses = 100;  // less than a tenth of a second

long Ask(int command) { return syscall(SYS_membarrier, command, 0, 0); }
bool Membarrier(int command) { return Ask(command) == 0; }
}  // namespace

bool HasBarriers() {
  const int error = errno;
  const long commands = Ask(kQuery);
  errno = error;
  return commands >= 0 && (commands & kBarrier) != 0 && (commands & kRegister) != 0;
}

bool BarrierOnEveryThread() {
  const int error = errno;
  // Before the first one the process must be registered, and so must a program after exec.
  const bool done = Membarrier(kBarrier) || (Membarrier(kRegister) && Membarrier(kBarrier));
  errno = error;
  return done;
}

void OwnerFlag::Await() {
  for (Pause pause;;) {
    if (IsOrdinary()) {
      if (Hold()) return;
    } else if (Enter()) {
      if (asked_.load(std::memory_order_acquire) != kTaken) return;
      Leave();
    }
    pause.Wait();
  }
}

bool OwnerFlag::EndTaking(bool barrier) {
  const bool ordinary = IsOrdinary();
  Pause pause;
  for (int i = 0; (barrier || ordinary) && i < kMostFlagPauses; ++i) {
    const bool out = ordinary  ? Hold()
                     : kLocked ? Enter()
                               : !inside_.load(std::memory_order_acquire);
    if (out) return true;
    pause.Wait();
  }
  if (ordinary) return false;                           // a stopped thread has it
  asked_.store(kRequested, std::memory_order_release);  // passes on what who had it before released
  return false;
}

void OwnerFlag::GiveBack() {
  if (IsOrdinary()) return Unlock();
  if constexpr (kLocked) Leave();
  asked_.store(requested_ ? kRequested : kNothing, std::memory_order_release);
}

}  // namespace cmp
