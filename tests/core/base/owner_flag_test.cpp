#include "core/base/owner_flag.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>
#include <thread>

#include "core/base/lock.h"
#include "refused_barrier.h"
#include "waiting_thread.h"

namespace cmp {
namespace {

bool Take(OwnerFlag& flag) {
  flag.BeginTaking();
  return flag.EndTaking(BarrierOnEveryThread());
}

TEST(OwnerFlagTest, TheOwnerWaitsAsleepForWhoHasTakenIt) {
  OwnerFlag flag;
  ASSERT_TRUE(Take(flag));
  EXPECT_FALSE(flag.TryLock());
  EXPECT_TRUE(test::Sleeps([&] { const Held held(flag); }, [&] { flag.GiveBack(); }));
  EXPECT_TRUE(flag.TryLock());
}

TEST(OwnerFlagTest, WhoTakesItWaitsAsleepForTheOwner) {
  OwnerFlag flag;
  flag.Lock();
  bool taken = false;
  EXPECT_TRUE(test::Sleeps([&] { taken = Take(flag); }, [&] { flag.Unlock(); }));
  EXPECT_TRUE(taken);
}

TEST(OwnerFlagTest, AnOwnerThatStaysInsideFindsTheRequest) {
  OwnerFlag flag;
  flag.Lock();
  EXPECT_FALSE(Take(flag)) << "gives up";
  EXPECT_TRUE(flag.IsRequested());
  flag.Unlock();
  EXPECT_FALSE(flag.TryLock()) << "no hit before the request is honoured";
  flag.Lock();  // but it does not wait
  flag.Honour();
  flag.Unlock();
  EXPECT_TRUE(flag.TryLock());
}

TEST(OwnerFlagTest, ARequestOutlivesWhoTakesItForSomethingElse) {
  OwnerFlag flag;
  flag.Lock();
  EXPECT_FALSE(Take(flag));
  flag.Unlock();
  ASSERT_TRUE(Take(flag));
  flag.GiveBack();
  EXPECT_TRUE(flag.IsRequested());
  ASSERT_TRUE(Take(flag));
  flag.Honour();
  flag.GiveBack();
  EXPECT_TRUE(flag.TryLock());
}

TEST(OwnerFlagTest, WithoutABarrierNobodyElseHasIt) {
  OwnerFlag flag;
  const bool tried = test::WithoutBarriers([&] {
    errno = EBADF;
    EXPECT_FALSE(BarrierOnEveryThread());
    EXPECT_EQ(errno, EBADF);
    EXPECT_FALSE(Take(flag)) << "though the owner is not inside";
  });
  if (!tried) GTEST_SKIP() << "no filters of system calls here";
  EXPECT_TRUE(flag.IsRequested());
  EXPECT_TRUE(Take(flag)) << "where it is not refused";
  EXPECT_FALSE(flag.IsRequested());
  flag.Honour();
  flag.GiveBack();
  EXPECT_TRUE(flag.TryLock());
}

TEST(OwnerFlagTest, AnOrdinaryOneIsHadByWhoWaits) {
  OwnerFlag flag(OwnerFlag::Kind::kOrdinary);
  EXPECT_FALSE(flag.TryLock()) << "no hits";
  flag.BeginTaking();
  ASSERT_TRUE(flag.EndTaking(false));
  EXPECT_TRUE(test::Sleeps([&] { const Held held(flag); }, [&] { flag.GiveBack(); }));
  flag.Lock();
  EXPECT_FALSE(flag.EndTaking(false)) << "gives up";
  EXPECT_FALSE(flag.IsRequested());
  flag.Honour();
  flag.Unlock();
  ASSERT_TRUE(flag.EndTaking(true));
  flag.GiveBack();
  EXPECT_FALSE(flag.TryLock());
}

TEST(OwnerFlagTest, WhetherThereAreBarriers) {
  EXPECT_TRUE(HasBarriers());
  const bool tried = test::WithoutBarriers([] {
    errno = EBADF;
    EXPECT_FALSE(HasBarriers());
    EXPECT_EQ(errno, EBADF);
  });
  if (!tried) GTEST_SKIP() << "no filters of system calls here";
}

TEST(OwnerFlagTest, AForkedChildHasBarriers) {
  ASSERT_TRUE(BarrierOnEveryThread());
  const pid_t child = fork();
  if (child == 0) _exit(BarrierOnEveryThread() ? 0 : 1);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

// Without the barrier, compiled with -O2 on two processors, 23,082 of 5.7 million additions were
// lost in 3 million turns (tried; with it none).
TEST(OwnerFlagTest, OwnerAndOthersNeverHaveItAtOnce) {
  constexpr int kTimes = 20'000;
  OwnerFlag flag;
  std::mutex others;
  volatile int64_t count = 0;  // an addition that another one interrupts is lost
  constexpr int kAdditions = 20;
  const auto add = [&] {
    for (int i = 0; i < kAdditions; ++i) count = count + 1;
  };
  // So that they meet at ever other points.
  const auto stay_away = [](int64_t turn, int64_t most) {
    for (int64_t i = turn % most; i > 0; --i) asm volatile("");
  };
  std::atomic<int64_t> owners{0};
  std::atomic<bool> ended{false};
  std::thread owner([&] {
    while (!ended.load(std::memory_order_relaxed)) {
      if (!flag.TryLock()) {
        if (flag.IsRequested()) {
          const std::lock_guard lock(others);
          flag.Lock();
          flag.Honour();
        } else {
          flag.Lock();
        }
      }
      add();
      flag.Unlock();
      owners.store(owners.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
      stay_away(owners, 32);
    }
  });
  while (owners == 0) std::this_thread::yield();
  int64_t taken = 0;
  for (int i = 0; i < kTimes; ++i) {
    const std::lock_guard lock(others);
    if (!Take(flag)) continue;
    add();
    flag.GiveBack();
    ++taken;
    stay_away(i, 64);
  }
  ended = true;
  owner.join();
  EXPECT_EQ(count, kAdditions * (owners + taken));
  EXPECT_GT(taken, 0);
}

}  // namespace
}  // namespace cmp
