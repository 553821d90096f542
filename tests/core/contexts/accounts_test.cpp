#include "core/contexts/accounts.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace cmp {
namespace {

TEST(AccountsTest, IdleIsTheRest) {
  Accounts accounts({1.15, 0});
  accounts.AddReserved(100 * kMiB);
  EXPECT_EQ(accounts.idle(), 100 * kMiB);
  accounts.HandOut(60 * kMiB, 10 * kMiB);
  EXPECT_EQ(accounts.live(), 50 * kMiB);
  EXPECT_EQ(accounts.slack(), 10 * kMiB);
  EXPECT_EQ(accounts.idle(), 40 * kMiB);
  accounts.BeginLeaving(30 * kMiB);
  EXPECT_EQ(accounts.idle(), 10 * kMiB);
  accounts.SubtractReserved(30 * kMiB);
  accounts.EndLeaving(30 * kMiB);
  EXPECT_EQ(accounts.idle(), 10 * kMiB);
  accounts.TakeBack(60 * kMiB, 10 * kMiB);
  EXPECT_EQ(accounts.live(), 0u);
  EXPECT_EQ(accounts.slack(), 0u);
  EXPECT_EQ(accounts.idle(), 70 * kMiB);
}

TEST(AccountsTest, RoundingIsPartOfWhatIsLive) {
  Accounts accounts({1.15, 0});
  accounts.AddReserved(5000);
  accounts.HandOut(1000, 100);
  accounts.Settle(2000, 300);
  EXPECT_EQ(accounts.live(), 3000u);
  EXPECT_EQ(accounts.rounding(), 400u);
  EXPECT_EQ(accounts.slack(), 0u);
  EXPECT_EQ(accounts.idle(), 2000u);
  accounts.TakeBack(1000, 50);  // another block than the one above
  EXPECT_EQ(accounts.rounding(), 350u);
}

TEST(AccountsTest, WhatComesBackBeforeItWasSettledIsNoDebt) {
  Accounts accounts({1.15, 0});
  accounts.AddReserved(100);
  accounts.Settle(-30, 0);  // another cache took back what is not known to have been handed out
  EXPECT_EQ(accounts.live(), 0u);
  EXPECT_EQ(accounts.idle(), 100u);
  accounts.Settle(50, 0);
  EXPECT_EQ(accounts.live(), 20u);
}

TEST(AccountsTest, ThePeakOnlyRises) {
  Accounts accounts({1.15, 0});
  accounts.HandOut(1000);
  EXPECT_EQ(accounts.NotePeak(), 1000u);
  EXPECT_EQ(accounts.NotePeak(), 0u);
  accounts.HandOut(500);
  EXPECT_EQ(accounts.NotePeak(), 500u);
  accounts.TakeBack(1500);
  EXPECT_EQ(accounts.NotePeak(), 0u);
  EXPECT_EQ(accounts.peak(), 1500u);
}

TEST(AccountsTest, SlackAndBlocksInMotionAreNotInThePeak) {
  Accounts accounts({1.0, 0});
  accounts.AddReserved(1000 * kMiB);
  accounts.HandOut(100 * kMiB, 10 * kMiB);
  accounts.BeginLeaving(900 * kMiB);
  EXPECT_EQ(accounts.NotePeak(), 90 * kMiB);
}

TEST(AccountsTest, TheBoundIsOfThePeak) {
  Accounts accounts({1.15, 256 * kMiB});
  EXPECT_EQ(accounts.bound(), 256 * kMiB);
  EXPECT_EQ(accounts.reserve().headroom(), 64 * kMiB);
  accounts.HandOut(kGiB);
  accounts.NotePeak();
  const size_t of_peak = static_cast<size_t>(double(kGiB) * 1.15) + 256 * kMiB;
  EXPECT_EQ(accounts.bound(), of_peak);
  EXPECT_EQ(accounts.reserve().headroom(), (of_peak - kGiB) / 4);
  accounts.TakeBack(kGiB);
  accounts.NotePeak();
  EXPECT_EQ(accounts.bound(), of_peak);
}

TEST(AccountsTest, ABoundBelowWhatTheProgramHoldsLeavesNoHeadroom) {
  Accounts accounts({0, kMiB});
  accounts.HandOut(kGiB);
  accounts.NotePeak();
  EXPECT_EQ(accounts.bound(), kMiB);
  EXPECT_EQ(accounts.reserve().headroom(), 0u);
}

TEST(AccountsTest, ExcessIsWhatIsOverTheBoundAndNotLeavingYet) {
  Accounts accounts({1.15, 256 * kMiB});
  accounts.AddReserved(256 * kMiB);
  EXPECT_EQ(accounts.Excess(), 0u);
  accounts.AddReserved(10);
  EXPECT_EQ(accounts.Excess(), 10u);
  accounts.BeginLeaving(4);
  EXPECT_EQ(accounts.Excess(), 6u);
  accounts.BeginLeaving(16);
  EXPECT_EQ(accounts.Excess(), 0u);
}

TEST(AccountsTest, ThePeakOfSeveralThreadsIsNeverMoreThanTheyHeld) {
  Accounts accounts({1.0, 0});
  std::vector<std::thread> threads;
  for (int number = 0; number < 4; ++number) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20000; ++i) {
        accounts.AddReserved(64);
        accounts.HandOut(64);
        accounts.NotePeak();
        accounts.TakeBack(64);
        accounts.BeginLeaving(64);
        accounts.SubtractReserved(64);
        accounts.EndLeaving(64);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(accounts.peak(), 4 * 64u);
  EXPECT_EQ(accounts.reserved(), 0u);
  EXPECT_EQ(accounts.live(), 0u);
  EXPECT_EQ(accounts.leaving(), 0u);
}

}  // namespace
}  // namespace cmp
