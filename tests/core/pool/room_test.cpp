// What a large request would be over the bound is released before it is made.
#include <gtest/gtest.h>

#include <vector>

#include "core/pool/pool.h"
#include "fake_driver.h"
#include "pool_fixture.h"

namespace cmp {
namespace {

using test::FakeDevice;
using test::FakeDriver;
using test::FakeHost;
using test::TestPool;

class RoomTest : public testing::Test {
 protected:
  explicit RoomTest(const ReserveRule& rule = Options{}.reserve, bool frees_quietly = true)
      : t_(WithoutThread(rule), FakeDevice::kPlenty, FakeHost::table) {
    if (frees_quietly) driver_.FreesQuietly(t_.device);
  }
  static Options WithoutThread(const ReserveRule& rule) {
    Options options;
    options.reserve = rule;
    options.decay_by = DecayBy::kNobody;
    return options;
  }
  void WarmUp() {
    ASSERT_TRUE(t_.Free(t_.Alloc(4 * kMiB)));
    for (int i = 0; i < 3; ++i) t_.pool->Age(t_.api);
    ASSERT_TRUE(t_.context->release_stream().warm());
  }
  // Blocks that grow, each freed before the next, which none of them serves. `look` is called while
  // the program has one, with how many its allocation released.
  template <typename Look>
  void Grow(size_t from, size_t to, size_t step, Look look) {
    for (size_t bytes = from; bytes <= to; bytes += step) {
      const size_t before = t_.device.release_calls();
      Block* block = t_.Alloc(bytes);
      ASSERT_NE(block, nullptr);
      look(t_.device.release_calls() - before);
      ASSERT_TRUE(t_.Free(block));
    }
  }
  // Where memory became scarce, with much of it idle; none of it serves more than 24 MiB.
  void GetFarOver() {
    Reserve& reserve = t_.context->accounts().reserve();
    reserve.Grow(600 * kMiB, 0, ~size_t{0} / 2);
    for (const size_t bytes : {20 * kMiB, 24 * kMiB}) {
      std::vector<Block*> blocks(40);
      for (Block*& block : blocks) block = t_.Alloc(bytes);
      for (Block* block : blocks) ASSERT_TRUE(t_.Free(block));
      t_.context->EmptyCaches();
    }
    reserve.NoteFree(kMiB, 1000 * kMiB);
    ASSERT_GT(accounts().Excess(), 200 * kMiB);
  }
  const Accounts& accounts() { return t_.context->accounts(); }

  FakeDriver driver_;
  TestPool t_;
};

// Found by measurement: 906 MiB were held where 737 may be.
TEST_F(RoomTest, BlocksOfAnySizeStayUnderTheBound) {
  WarmUp();
  size_t all = 0;
  Grow(130 * kMiB, 400 * kMiB, 10 * kMiB, [&](size_t released) {
    all += released;
    EXPECT_EQ(accounts().Excess(), 0u);
  });
  EXPECT_GT(all, 10u) << "the test shows nothing";
  EXPECT_EQ(driver_.quiet_frees, t_.device.release_calls()) << "a cuMemFree, which may wait";
  EXPECT_EQ(t_.pool->statistics().process().regretted_releases.Get(), 0u);
}

// The first release without a wait takes 10 ms.
TEST_F(RoomTest, NoAllocationPaysForTheFirstRelease) {
  bool over = false;
  for (size_t bytes = 200 * kMiB; !over && bytes < 2 * kGiB; bytes += 100 * kMiB) {
    ASSERT_FALSE(t_.context->release_stream().warm());
    Grow(bytes, bytes, 1, [&](size_t released) {
      EXPECT_EQ(released, 0u);
      over = accounts().Excess() != 0;
    });
  }
  EXPECT_TRUE(over) << "the test shows nothing";
}

// The real allocation of a small one takes as long as a release does.
TEST_F(RoomTest, ASmallRequestPaysForNothing) {
  WarmUp();
  bool over = false;
  for (size_t bytes = 20 * kMiB; !over && bytes < kGiB; bytes += 2 * kMiB) {
    Grow(bytes, bytes, 1, [&](size_t released) {
      EXPECT_EQ(released, 0u);
      over = accounts().Excess() != 0;
    });
  }
  EXPECT_TRUE(over) << "the test shows nothing";
}

// Found by review: 256 bytes paid for 16 blocks.
TEST_F(RoomTest, ASmallRequestPaysForNothingWhereMuchIsOver) {
  WarmUp();
  GetFarOver();
  const size_t before = t_.device.release_calls();
  ASSERT_NE(t_.Alloc(256), nullptr);
  EXPECT_EQ(t_.device.release_calls(), before);
}

TEST_F(RoomTest, ALargeRequestPaysForSome) {
  WarmUp();
  GetFarOver();
  const size_t before = t_.device.release_calls();
  ASSERT_NE(t_.Alloc(900 * kMiB), nullptr);
  EXPECT_EQ(t_.device.release_calls() - before, 16u);
}

// Found by review: it cannot be had, and what was released for it had to be made again.
TEST_F(RoomTest, WhatTheDeviceCannotHoldReleasesNothingBefore) {
  WarmUp();
  GetFarOver();
  t_.context->device_bytes = 800 * kMiB;
  t_.device.FailNext(1);
  const size_t before = t_.device.release_calls();
  size_t at_first_try = 0;
  t_.device.OnAllocate([&](size_t) {
    if (at_first_try == 0) at_first_try = t_.device.release_calls();
  });
  (void)t_.Alloc(900 * kMiB);
  EXPECT_EQ(at_first_try, before);
  t_.device.OnAllocate(nullptr);
}

// Found by review: the block that fits became ready when room was made, and was released. Nobody
// has asked about its fence yet.
TEST_F(RoomTest, WhatFitsIsHandedOutAndNotReleased) {
  WarmUp();
  Block* small = t_.Alloc(6 * kMiB);
  Block* fit = t_.Alloc(400 * kMiB);
  Readiness& readiness = t_.pool->readiness();
  for (Block* block : {small, fit}) {
    t_.context->fences().SetWorkSince(true);
    const Fences::Recorded fence = readiness.Record(*t_.context, FencePurpose::kOrder);
    EXPECT_TRUE(t_.Free(block, readiness.StampFor(*t_.context, fence.number)));
  }
  driver_.Finish();
  const size_t before = t_.device.release_calls();
  EXPECT_EQ(t_.Alloc(400 * kMiB), fit);
  EXPECT_EQ(t_.device.release_calls(), before);
  EXPECT_EQ(t_.pool->statistics().process().regretted_releases.Get(), 0u);
}

// Found by review: the oldest went first, which were small and gave nothing back.
TEST_F(RoomTest, LargeBlocksMakeIt) {
  WarmUp();
  std::vector<Block*> small(1000);
  for (Block*& block : small) block = t_.Alloc(256);
  for (Block* block : small) ASSERT_TRUE(t_.Free(block));
  Grow(130 * kMiB, 400 * kMiB, 10 * kMiB, [&](size_t) { EXPECT_EQ(accounts().Excess(), 0u); });
}

TEST_F(RoomTest, WhatWasReleasedForItAndIsAllocatedAgainRaisesTheBound) {
  WarmUp();
  Grow(130 * kMiB, 400 * kMiB, 10 * kMiB, [](size_t) {});
  ASSERT_EQ(t_.pool->statistics().process().regretted_releases.Get(), 0u);
  Grow(130 * kMiB, 130 * kMiB, 1, [](size_t) {});
  EXPECT_EQ(t_.pool->statistics().process().regretted_releases.Get(), 1u);
}

// Where no free comes; no thread, and nothing ages.
TEST_F(RoomTest, WhatIsALittleOverGoesInATick) {
  WarmUp();
  size_t bytes = 20 * kMiB;
  for (; accounts().ExcessWith(bytes) == 0; bytes += 2 * kMiB) {
    ASSERT_TRUE(t_.Free(t_.Alloc(bytes)));
  }
  ASSERT_NE(t_.Alloc(bytes), nullptr);
  ASSERT_NE(accounts().Excess(), 0u);
  t_.pool->Age(t_.api);
  EXPECT_EQ(accounts().Excess(), 0u);
}

class RoomWithoutQuietFreesTest : public RoomTest {
 protected:
  RoomWithoutQuietFreesTest() : RoomTest(Options{}.reserve, false) {}
};

// cuMemFree may wait for what another thread is just submitting.
TEST_F(RoomWithoutQuietFreesTest, NothingIsReleasedBeforeTheFreeAfterIt) {
  t_.context->fences().SetWorkSince(false);
  bool over = false;
  Grow(130 * kMiB, 400 * kMiB, 10 * kMiB, [&](size_t released) {
    EXPECT_EQ(released, 0u);
    over |= accounts().Excess() != 0;
  });
  EXPECT_TRUE(over) << "the test shows nothing";
}

class RoomUnderFixedBoundTest : public RoomTest {
 protected:
  RoomUnderFixedBoundTest() : RoomTest({1.15, 256 * kMiB}) {}
};

// Ready blocks that an allocation released would be missing there.
TEST_F(RoomUnderFixedBoundTest, TheFreeAfterItReleases) {
  WarmUp();
  bool over = false;
  Grow(130 * kMiB, 400 * kMiB, 10 * kMiB, [&](size_t released) {
    EXPECT_EQ(released, 0u);
    over |= accounts().Excess() != 0;
  });
  EXPECT_TRUE(over) << "the test shows nothing";
  EXPECT_EQ(accounts().Excess(), 0u);
}

}  // namespace
}  // namespace cmp
