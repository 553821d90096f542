// Which thread is which in every run. The order in which threads come is chance, handles and
// addresses change: so a thread is named by the place where it submits first, and by its turn among
// those that live and did so there. Threads that do the same may change places, and nothing else.
//
// Thread-safe. Its lock is taken last.
#ifndef CMP_SHIM_SHAKE_THREADS_H_
#define CMP_SHIM_SHAKE_THREADS_H_

#include <cstddef>
#include <cstdint>

#include "core/base/lock.h"

namespace cmp {

class ShakeThreads {
 public:
  // A thread has come. Its number, from 1 on: that of one that has ended if there is one. 0: there
  // are too many.
  uint32_t Begin();
  // The name of the calling thread, whose number this is; 0: it has submitted nothing yet.
  uint64_t NameOf(uint32_t number) const { return threads_[number - 1].name; }
  // It gets one. `where`: what is the same in every run of the place where it submits first.
  uint64_t Name(uint32_t number, uint64_t where);
  void End(uint32_t number);

 private:
  struct Thread {
    bool lives = false;
    uint64_t name = 0;  // written by the thread alone
  };
  static constexpr size_t kMost = 1024;

  Mutex lock_;
  Thread threads_[kMost] = {};
};

}  // namespace cmp

#endif  // CMP_SHIM_SHAKE_THREADS_H_
