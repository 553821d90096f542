#include "core/base/lock.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "waiting_thread.h"

namespace cmp {
namespace {

using test::ReturnsThoughCancelled;
using test::Sleeps;

TEST(MutexTest, WhoWaitsSleeps) {
  Mutex mutex;
  mutex.Lock();
  EXPECT_TRUE(Sleeps([&] { const Held held(mutex); }, [&] { mutex.Unlock(); }));
}

TEST(PauseTest, IsNoCancellationPoint) {
  EXPECT_TRUE(ReturnsThoughCancelled([] {
    Pause pause;
    for (int i = 0; i < 40; ++i) pause.Wait();
  }));
}

TEST(PauseTest, LeavesErrnoAsItWas) {
  errno = EBADF;
  SleepNs(-1);
  EXPECT_EQ(errno, EBADF);
}

TEST(UncancelledTest, CallsThatAreCancellationPointsReturn) {
  EXPECT_TRUE(ReturnsThoughCancelled([] {
    const Uncancelled outer;
    { const Uncancelled inner; }
    pthread_testcancel();
  }));
}

}  // namespace
}  // namespace cmp
