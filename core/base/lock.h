// The locks of the pool. Order (a thread that holds one may take only those below it):
//
//   process        first use, table of contexts, made contexts  (one per process each)
//   takers         who waits for blocks in others' hands        (one per device)
//   captures       captures under way                           (one per process)
//   recorder       a context's fences: who records              (one per context)
//   poller         a context's fences: who asks                 (one per context)
//   work           what was submitted to a context              (one per context)
//   fence queue    a context's recorded fences                  (one per context)
//   page-locked    heaps of page-locked memory; what may idle   (one per process each)
//   cache list     a context's list of thread caches            (one per context)
//   cache flag     one thread cache                             (one per thread and context)
//   spare          caches and lists of contexts that ended      (one per process each)
//   tier lock      one free list of a context's global pool     (one per list)
//   record lock    a context's block records                    (one per context)
//   slab lock      slabs of records that no context has         (one per process)
//   reserve lock   what a context released for its bound        (one per context)
//   arena lock     bookkeeping memory                           (one per process)
//
// Those of the statistics, and of the shim's trace, pitches, events and visible memory, are taken
// last or alone, those of its kept pools and of deep loads alone. No lock is held across a CUDA
// call, but for the recorder's and the poller's (fences.h), that of the captures (captures.cpp) and
// that of the kept pools (kept_pools.h), which say why.
//
// Who waits sleeps: beside a real-time thread that only yields, no ordinary thread on its processor
// would ever get to what it waits for. No wait of ours is a cancellation point: a thread that ended
// in one would leave locks and counts behind.
#ifndef CMP_CORE_BASE_LOCK_H_
#define CMP_CORE_BASE_LOCK_H_

#include <pthread.h>

#include <atomic>
#include <cstdint>

namespace cmp {

class Mutex {
 public:
  constexpr Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;
  void Lock() { pthread_mutex_lock(&mutex_); }
  // Asks done() while another thread has the lock, for about two microseconds, before it sleeps for
  // it. False: it was done, and the lock is not held.
  template <typename Done>
  [[nodiscard]] bool LockUnless(Done done) {
    constexpr int kMostLooks = 50;
    for (int i = 0; !TryLock(); ++i) {
      if (done()) return false;
      if (i == kMostLooks) {
        Lock();
        break;
      }
      Relax();
    }
    return true;
  }
  void Unlock() { pthread_mutex_unlock(&mutex_); }
  [[nodiscard]] bool TryLock() { return pthread_mutex_trylock(&mutex_) == 0; }
  // False: not within a tenth of a second. For what runs at exit, which a signal handler may have
  // called on the very thread that holds it.
  [[nodiscard]] bool LockSoon();

 private:
  static void Relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
};

// Sleeps: no cancellation point, and errno stays as it was.
void SleepNs(long ns);

// What one thread sleeps on until another rings. Not forgotten: who sleeps after that wakes at
// once.
class Bell {
 public:
  // Release: who wakes by it sees what was done before. A system call, unless it has rung already.
  void Ring();
  // Sleeps as above, at most `ns`. True: it has rung since this was true last; acquire.
  bool Sleep(long ns);

 private:
  std::atomic<uint32_t> rung_{0};
};

// A wait for what takes no lock to wait for, asked for again and again: yields a few times, then
// sleeps for longer and longer.
class Pause {
 public:
  void Wait();

 private:
  uint32_t waits_ = 0;
};

// While it lives, the calling thread is not cancelled: around calls that are, or may make, what
// POSIX calls a cancellation point, where a lock is held or a count raised.
class [[nodiscard]] Uncancelled {
 public:
  Uncancelled() { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_); }
  ~Uncancelled() { pthread_setcancelstate(before_, nullptr); }
  Uncancelled(const Uncancelled&) = delete;
  Uncancelled& operator=(const Uncancelled&) = delete;

 private:
  int before_ = PTHREAD_CANCEL_ENABLE;
};

enum class Taken { kYes };

template <typename LockType>
class [[nodiscard]] Held {
 public:
  explicit Held(LockType& lock) : lock_(lock) { lock_.Lock(); }
  Held(LockType& lock, Taken) : lock_(lock) {}  // by the caller already
  ~Held() { lock_.Unlock(); }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

 private:
  LockType& lock_;
};

}  // namespace cmp

#endif  // CMP_CORE_BASE_LOCK_H_
