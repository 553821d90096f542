// What a large request would be over the bound is released before it is made.
#include <gtest/gtest.h>

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

// The real allocation of a small one takes as long as a release does.
TEST_F(RoomTest, ASmallRequestPaysForNothing) {
  WarmUp();
  bool over = false;
  for (size_t bytes = 20 * kMiB; !over; bytes += 2 * kMiB) {
    Grow(bytes, bytes, 1, [&](size_t released) {
      EXPECT_EQ(released, 0u);
      over = accounts().Excess() != 0;
    });
  }
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
