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

TEST(MutexTest, WhoIsDoneMeanwhileDoesNotWait) {
  Mutex mutex;
  mutex.Lock();
  int asked = 0;
  EXPECT_FALSE(mutex.LockUnless([&] { return ++asked == 3; }));
  EXPECT_EQ(asked, 3);
  EXPECT_TRUE(Sleeps(
      [&] {
        ASSERT_TRUE(mutex.LockUnless([] { return false; }));
        const Held held(mutex, Taken::kYes);
      },
      [&] { mutex.Unlock(); }));
  EXPECT_TRUE(mutex.LockUnless([] { return true; })) << "nobody has it";
  mutex.Unlock();
}

TEST(BellTest, WakesWhoSleepsAndWhoComesLater) {
  constexpr long kLong = 999'999'999;
  Bell bell;
  errno = EBADF;
  EXPECT_FALSE(bell.Sleep(1));
  bell.Ring();
  bell.Ring();
  EXPECT_TRUE(bell.Sleep(kLong));
  EXPECT_FALSE(bell.Sleep(1)) << "two that nobody heard are one";
  EXPECT_EQ(errno, EBADF);
  EXPECT_TRUE(Sleeps(
      [&] {
        while (!bell.Sleep(kLong)) {
        }
      },
      [&] { bell.Ring(); }));
}

TEST(BellTest, IsNoCancellationPoint) {
  EXPECT_TRUE(ReturnsThoughCancelled([] {
    Bell bell;
    bell.Sleep(1000);
    bell.Ring();
  }));
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
