#include "shim/visible/visible_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <thread>
#include <vector>

namespace cmp {
namespace {

class VisibleMemoryTest : public testing::Test {
 protected:
  static VisibleMemory::Range Range(uintptr_t begin, uintptr_t end, Visible what = Visible::kCopies,
                                    uint64_t context = 0) {
    return {begin, end, context, what};
  }
  VisibleMemory memory_;
};

TEST_F(VisibleMemoryTest, PageLockedIsWhatLiesInARange) {
  EXPECT_FALSE(memory_.IsPageLocked(0x1000));
  memory_.Add(Range(0x1000, 0x2000));
  memory_.Add(Range(0x4000, 0x5000));
  EXPECT_FALSE(memory_.IsPageLocked(0xfff));
  EXPECT_TRUE(memory_.IsPageLocked(0x1000));
  EXPECT_TRUE(memory_.IsPageLocked(0x1fff));
  EXPECT_FALSE(memory_.IsPageLocked(0x2000));
  EXPECT_TRUE(memory_.IsPageLocked(0x4800));
  EXPECT_EQ(memory_.Remove(0x1800).end, 0u) << "it begins elsewhere";
  EXPECT_EQ(memory_.Remove(0x1000).end, 0x2000u);
  EXPECT_FALSE(memory_.IsPageLocked(0x1000));
  EXPECT_TRUE(memory_.HasPageLocked());
  memory_.Remove(0x4000);
  EXPECT_FALSE(memory_.HasPageLocked());
}

TEST_F(VisibleMemoryTest, ManagedMemoryExistsAsLongAsItsRange) {
  EXPECT_EQ(memory_.Exists(), Visible::kNothing);
  memory_.Add(Range(0x1000, 0x2000, Visible::kManaged));
  EXPECT_EQ(memory_.Exists(), Visible::kManaged);
  EXPECT_FALSE(memory_.IsPageLocked(0x1000));
  memory_.Remove(0x1000);
  EXPECT_EQ(memory_.Exists(), Visible::kNothing);
}

// A block that is handed out again is a new range, of what it was asked for.
TEST_F(VisibleMemoryTest, ARangeBecomesSomethingElse) {
  memory_.Add(Range(0x1000, 0x2000));
  memory_.SetWhat(0x1000, Visible::kMapped);
  EXPECT_EQ(memory_.Exists(), Visible::kMapped);
  memory_.SetWhat(0x1000, Visible::kCopies);
  EXPECT_EQ(memory_.Exists(), Visible::kNothing);
  memory_.SetWhat(0x1800, Visible::kCopies);
  EXPECT_EQ(memory_.Exists(), Visible::kNothing);
  memory_.SetWhat(0x1800, Visible::kMapped);
  EXPECT_EQ(memory_.Exists(), Visible::kMapped) << "there was no memory to list it";
}

TEST_F(VisibleMemoryTest, PageLockedMemoryIsMappedOnceItsDevicePointerIsAskedFor) {
  memory_.Add(Range(0x1000, 0x2000));
  EXPECT_EQ(memory_.Exists(), Visible::kNothing);
  memory_.SetMapped(0x3000);
  EXPECT_EQ(memory_.Exists(), Visible::kNothing);
  memory_.SetMapped(0x1004);
  EXPECT_EQ(memory_.Exists(), Visible::kMapped);
  EXPECT_TRUE(memory_.IsPageLocked(0x1000));
  memory_.Remove(0x1000);
  EXPECT_EQ(memory_.Exists(), Visible::kNothing);
}

TEST_F(VisibleMemoryTest, WhatIsSharedForGoodStays) {
  memory_.NoteForGood(Visible::kExports);
  memory_.Add(Range(0x1000, 0x2000, Visible::kManaged));
  EXPECT_EQ(memory_.Exists(), Visible::kManaged) << "in the order of the list";
  memory_.Remove(0x1000);
  EXPECT_EQ(memory_.Exists(), Visible::kExports);
}

TEST_F(VisibleMemoryTest, RangesEndWithTheirContext) {
  memory_.Add(Range(0x1000, 0x2000, Visible::kMapped, 1));
  memory_.Add(Range(0x2000, 0x3000, Visible::kCopies, 2));
  memory_.Add(Range(0x3000, 0x4000, Visible::kCopies, 1));
  memory_.ContextEnds(1);
  EXPECT_FALSE(memory_.IsPageLocked(0x1000));
  EXPECT_TRUE(memory_.IsPageLocked(0x2000));
  EXPECT_FALSE(memory_.IsPageLocked(0x3000));
  EXPECT_EQ(memory_.Exists(), Visible::kNothing);
}

TEST_F(VisibleMemoryTest, ARangeReplacesWhatLayThereBefore) {
  memory_.Add(Range(0x1000, 0x2000, Visible::kManaged));
  memory_.Add(Range(0x2000, 0x3000));
  memory_.Add(Range(0x3000, 0x4000));
  memory_.Add(Range(0x1800, 0x3800));
  EXPECT_FALSE(memory_.IsPageLocked(0x1000));
  EXPECT_TRUE(memory_.IsPageLocked(0x3000));
  EXPECT_FALSE(memory_.IsPageLocked(0x3900));
  EXPECT_EQ(memory_.Exists(), Visible::kNothing);
}

TEST_F(VisibleMemoryTest, ThousandsOfRangesAreFound) {
  std::mt19937 random(5);
  std::map<uintptr_t, uintptr_t> expected;
  for (int i = 0; i < 20000; ++i) {
    const uintptr_t begin = 0x10000 + uintptr_t{0x1000} * (random() % 2000);
    if (expected.erase(begin) != 0) {
      EXPECT_EQ(memory_.Remove(begin).begin, begin);
    } else {
      const uintptr_t end = begin + 1 + random() % 0x1000;
      expected[begin] = end;
      memory_.Add(Range(begin, end));
    }
    const uintptr_t address = 0x10000 + random() % (0x1000 * 2000);
    const auto above = expected.upper_bound(address);
    const bool inside = above != expected.begin() && address < std::prev(above)->second;
    ASSERT_EQ(memory_.IsPageLocked(address), inside);
  }
}

// Found by measuring: each registration moved all ranges above it, and looked at every one.
TEST_F(VisibleMemoryTest, AChangeCostsHardlyMoreAmongManyRanges) {
  constexpr uintptr_t kRanges = 50000;
  std::mt19937 random(7);
  std::vector<uintptr_t> begins(kRanges);
  for (uintptr_t i = 0; i < kRanges; ++i) begins[i] = 0x10000 + i * 0x2000;
  const auto downwards = [&] { std::reverse(begins.begin(), begins.end()); };
  const auto shuffle = [&] { std::shuffle(begins.begin(), begins.end(), random); };
  const auto steps = [this](auto change) {
    const uint64_t before = memory_.steps();
    change();
    return memory_.steps() - before;
  };
  constexpr uint64_t kMost = kRanges * 100;  // two walks of 2 log2(ranges) each, and some
  for (int order = 0; order < 3; ++order) {
    if (order == 1) downwards();
    if (order == 2) shuffle();
    EXPECT_LT(steps([&] {
                for (const uintptr_t begin : begins) memory_.Add(Range(begin, begin + 0x1000));
              }),
              kMost);
    EXPECT_TRUE(memory_.IsPageLocked(begins[kRanges / 2] + 0x800));
    EXPECT_LT(steps([&] {
                for (const uintptr_t begin : begins) EXPECT_NE(memory_.Remove(begin).end, 0u);
              }),
              kMost);
    EXPECT_FALSE(memory_.HasRanges());
  }
}

TEST_F(VisibleMemoryTest, KindsAreCountedAsRangesComeAndGo) {
  memory_.Add(Range(0x1000, 0x2000, Visible::kManaged));
  memory_.Add(Range(0x3000, 0x4000, Visible::kManaged));
  memory_.Add(Range(0x5000, 0x6000, Visible::kMapped, 3));
  memory_.Remove(0x1000);
  EXPECT_EQ(memory_.Exists(), Visible::kManaged);
  memory_.Remove(0x3000);
  EXPECT_EQ(memory_.Exists(), Visible::kMapped);
  EXPECT_TRUE(memory_.HasPageLocked());
  memory_.ContextEnds(3);
  EXPECT_EQ(memory_.Exists(), Visible::kNothing);
  EXPECT_FALSE(memory_.HasPageLocked());
  EXPECT_FALSE(memory_.HasRanges());
}

TEST_F(VisibleMemoryTest, ReadersSeeWhatStaysWhileOthersComeAndGo) {
  memory_.Add(Range(0x500000, 0x501000));
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::thread reader([&] {
    while (!stop.load()) {
      if (!memory_.IsPageLocked(0x500800)) ++wrong;
      if (memory_.IsPageLocked(0x502000)) ++wrong;
    }
  });
  for (int round = 0; round < 20; ++round) {
    for (uintptr_t i = 0; i < 300; ++i) memory_.Add(Range(0x1000 * (i + 1), 0x1000 * (i + 2)));
    for (uintptr_t i = 0; i < 300; ++i) memory_.Remove(0x1000 * (i + 1));
  }
  stop = true;
  reader.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace cmp
