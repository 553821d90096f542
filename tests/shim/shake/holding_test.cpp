// The one hold: when it begins, what ends it, and what is counted as effective. Time is what the
// test says.
#include "shim/shake/holding.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <vector>

#include "shim/record/shake_counts.h"

namespace cmp {

namespace {

constexpr uint64_t kMs = 1'000'000;
constexpr uint64_t kLong = 1000 * kMs;  // there is time for holds

class ShakeHolding : public testing::Test {
 protected:
  explicit ShakeHolding(ShakeKind kind = ShakeKind::kOrder) {
    driver_.wait_value = [](CUstream, CUdeviceptr, cuuint32_t, unsigned) { return CUDA_SUCCESS; };
    driver_.write_value = driver_.wait_value;
    driver_.host_register = [](void*, size_t, unsigned) { return CUDA_SUCCESS; };
    EXPECT_TRUE(holding_.words().Begin(driver_));
    holding_.Begin(kind, 1, 0);
    where_.hash = 77;
    site_ = sites_->Get(kind, call_);
    site_->listed = true;
  }
  // How many of so many executions are to be held.
  int Sampled(int executions, uint64_t now = kLong) {
    int held = 0;
    for (int i = 0; i < executions; ++i) held += holding_.Choose(call_, now) != nullptr ? 1 : 0;
    return held;
  }
  // The next one that is to be held is.
  HoldTarget Hold(uint64_t now = kLong, const ShakeStream* stream = nullptr) {
    while (holding_.Choose(call_, now) == nullptr) {
    }
    return holding_.Start(*site_, stream != nullptr ? *stream : a_, now);
  }
  // One whose later work is under way, as long as a hold of a site with `in_vain` of them may last.
  HoldTarget HoldFollowed(uint64_t now = kLong, bool waits = false) {
    const HoldTarget hold = Hold(now);
    holding_.Free(&where_, 1, 100);
    EXPECT_TRUE(holding_.Follow(call_, b_, waits, now));
    return hold;
  }
  static bool IsHeld(const HoldTarget& hold) {
    return static_cast<int32_t>(hold.word->load() - hold.value) < 0;
  }
  static void DeviceWrites(const HoldTarget& hold) { hold.word->store(hold.value); }

  Driver driver_;
  CallSite where_;
  const ShakeCall call_ = {"cuLaunchKernel", &where_, 1, 0, 5};
  const ShakeStream a_ = {0xa000, 0, 1, false};
  const ShakeStream b_ = {0xb000, 1, 2, false};
  const ShakeStream blocking_ = {0xc000, 2, 3, true};
  const ShakeStream legacy_ = {kLegacyStream, kOrdinalLegacy, 4, true};
  std::unique_ptr<ShakeSites> sites_ = std::make_unique<ShakeSites>();  // they are large
  Holding holding_{*sites_};
  ShakeSite* site_;
};

class ShakeHoldingHost : public ShakeHolding {
 protected:
  ShakeHoldingHost() : ShakeHolding(ShakeKind::kHost) {}
};

// ---- Which executions, and for how long

TEST_F(ShakeHolding, IsOfOneExecutionInEightAndOfFewerWhereHoldsWereInVain) {
  constexpr int kMany = 100'000;
  for (const auto& [in_vain, one_in] : std::vector<std::pair<uint32_t, int>>{
           {0, 8}, {3, 8}, {4, 32}, {7, 32}, {8, 128}, {12, 512}, {1000, 512}}) {
    site_->in_vain = in_vain;
    const int held = Sampled(kMany);
    EXPECT_GT(held, kMany / one_in * 3 / 4) << in_vain;
    EXPECT_LT(held, kMany / one_in * 5 / 4) << in_vain;
  }
  Hold();
  EXPECT_EQ(site_->in_vain, 1001u);
}

TEST_F(ShakeHolding, IsOfListedSitesAlone) {
  site_->listed = false;
  EXPECT_EQ(Sampled(1000), 0);
  EXPECT_EQ(site_->count, 0u);
  const ShakeCall other = {"cuLaunchKernel", &where_, 1, 0, 6};
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(holding_.Choose(other, kLong), nullptr);
}

TEST_F(ShakeHolding, LastsAllOfTheTimeHalfOrAQuarterByTheSeed) {
  std::set<uint64_t> lengths;
  uint64_t now = kLong;
  for (int i = 0; i < 100; ++i) {
    site_->in_vain = 0;
    const HoldTarget hold = Hold(now);
    lengths.insert(holding_.end() - now);
    holding_.EndIfOver(holding_.end() - 1);
    ASSERT_TRUE(IsHeld(hold));
    now = holding_.end();
    holding_.EndIfOver(now);
    ASSERT_FALSE(IsHeld(hold));
    ASSERT_TRUE(holding_.is_none());
    now += kLong;
  }
  EXPECT_EQ(lengths, (std::set<uint64_t>{5 * kMs, 5 * kMs / 2, 5 * kMs / 4}));
}

TEST_F(ShakeHolding, LeavesAThirdOfTheTimeWithoutHolds) {
  EXPECT_EQ(Sampled(1000, 1), 0) << "the process has only begun";
  uint64_t held = 0;
  int holds = 0;
  for (uint64_t now = 0; now < 1000 * kMs;) {
    now += kMs / 20;
    if (holding_.Choose(call_, now) == nullptr) continue;
    holding_.Start(*site_, a_, now);
    held += holding_.end() - now;
    ++holds;
    now = holding_.end();
    holding_.EndIfOver(now + 7 * kMs);  // seen late: no longer for that
    site_->in_vain = 0;
    ASSERT_LE(3 * held, 2 * now);
  }
  EXPECT_GT(3 * held, 1800 * kMs) << "and uses the rest";
  EXPECT_GT(holds, 100);
}

TEST_F(ShakeHolding, IsOneAtATime) {
  const HoldTarget hold = Hold();
  EXPECT_EQ(Hold().word, nullptr);
  EXPECT_TRUE(IsHeld(hold));
  holding_.End(kLong);
  EXPECT_FALSE(IsHeld(hold));
  EXPECT_NE(Hold().word, nullptr);
}

// ---- Kind order

TEST_F(ShakeHolding, IsEffectiveWhereTheDeviceCameToTheLaterWork) {
  const HoldTarget hold = HoldFollowed();
  EXPECT_TRUE(holding_.IsFor(hold));
  holding_.Followed(hold, true, false, kLong);
  holding_.Arrive(kLong + 1, 1);
  EXPECT_TRUE(IsHeld(hold));
  DeviceWrites(hold);
  holding_.Arrive(kLong + 2, 1);
  EXPECT_TRUE(holding_.is_none());
  EXPECT_EQ(site_->effective, 1u);
  EXPECT_EQ(site_->in_vain, 0u);
  EXPECT_EQ(site_->later.name, call_.name);
  EXPECT_EQ(site_->free_bytes, 100u);
}

// It may have happened because the hold was over.
TEST_F(ShakeHolding, IsNotEffectiveWhereThatIsSeenTooLate) {
  const HoldTarget hold = HoldFollowed();
  holding_.Followed(hold, true, false, kLong);
  DeviceWrites(hold);
  const uint64_t by_timer = g_shake_counts.let_go_by_timer.Get();
  holding_.Arrive(holding_.end(), 1);
  EXPECT_TRUE(holding_.is_none());
  EXPECT_EQ(site_->effective, 0u);
  EXPECT_EQ(site_->in_vain, 1u);
  EXPECT_EQ(g_shake_counts.let_go_by_timer.Get(), by_timer + 1);
}

TEST_F(ShakeHolding, IsFollowedByTheFirstWorkOfAnotherStreamAfterAFree) {
  EXPECT_FALSE(holding_.Follow(call_, b_, false, kLong));
  Hold();
  EXPECT_FALSE(holding_.Follow(call_, b_, false, kLong)) << "nothing was freed";
  holding_.Free(&where_, 1, 100);
  holding_.Free(&where_, 2, 200);
  EXPECT_EQ(site_->free_thread, 1u);
  EXPECT_FALSE(holding_.Follow(call_, a_, false, kLong));
  EXPECT_TRUE(holding_.Follow(call_, b_, false, kLong));
  holding_.Free(&where_, 1, 100);
  EXPECT_FALSE(holding_.Follow(call_, blocking_, false, kLong)) << "it is followed already";
}

TEST_F(ShakeHolding, IsNotFollowedByAStreamThatOrdersItself) {
  Hold(kLong, &blocking_);
  holding_.Free(&where_, 1, 100);
  EXPECT_FALSE(holding_.Follow(call_, legacy_, false, kLong));
  holding_.End(kLong);
  Hold(kLong, &legacy_);
  holding_.Free(&where_, 1, 100);
  EXPECT_FALSE(holding_.Follow(call_, blocking_, false, kLong));
  EXPECT_TRUE(holding_.Follow(call_, b_, false, kLong));
}

TEST_F(ShakeHolding, IsShortBehindTheLaterWorkAndLongerTheMoreWereInVain) {
  for (const auto& [in_vain, ns] : std::vector<std::pair<uint32_t, uint64_t>>{
           {0, kMs / 4}, {1, kMs / 2}, {3, 2 * kMs}, {4, 4 * kMs}, {1000, 4 * kMs}}) {
    do {  // one that may last
      holding_.End(kLong);
      site_->in_vain = in_vain;
      Hold();
    } while (holding_.end() != kLong + 5 * kMs);
    holding_.Free(&where_, 1, 100);
    EXPECT_TRUE(holding_.Follow(call_, b_, false, kLong));
    EXPECT_EQ(holding_.end(), kLong + ns) << in_vain;
  }
  holding_.End(kLong);
  Hold();
  const uint64_t end = holding_.end();
  holding_.Free(&where_, 1, 100);
  EXPECT_TRUE(holding_.Follow(call_, b_, false, end - 1));
  EXPECT_EQ(holding_.end(), end) << "never later";
}

TEST_F(ShakeHolding, IsEndedByLaterWorkThatReturnsOnceItIsDone) {
  const HoldTarget hold = Hold();
  const uint64_t end = holding_.end();
  holding_.Free(&where_, 1, 100);
  EXPECT_TRUE(holding_.Follow(call_, b_, true, kLong));
  EXPECT_EQ(holding_.end(), end) << "how long it takes is not known";
  EXPECT_FALSE(holding_.Wait(b_.name, kLong)) << "it waits itself";
  EXPECT_EQ(holding_.end(), end);
  EXPECT_TRUE(IsHeld(hold));
  holding_.Followed(hold, false, true, kLong);
  EXPECT_FALSE(IsHeld(hold));
  EXPECT_EQ(site_->effective, 1u);
  EXPECT_EQ(site_->in_vain, 0u);
}

TEST_F(ShakeHolding, IsNotEndedByWorkThatFollowedAnotherOne) {
  const HoldTarget late = HoldFollowed(kLong, true);
  holding_.EndIfOver(holding_.end());
  const HoldTarget hold = HoldFollowed(2 * kLong, true);
  holding_.Followed(late, false, true, 2 * kLong);
  EXPECT_TRUE(IsHeld(hold));
  EXPECT_EQ(site_->effective, 0u);
}

TEST_F(ShakeHolding, IsOfAWordThatTheDeviceHasNotInHand) {
  const HoldTarget refused = HoldFollowed();
  holding_.Followed(refused, false, false, kLong);  // the device was not told to write it
  holding_.End(kLong);
  std::set<const void*> in_hand;
  HoldTarget hold;
  for (int i = 0; i < 1000 && (hold = Hold()).word != nullptr; ++i) {
    EXPECT_TRUE(in_hand.insert(hold.word).second);
    holding_.Free(&where_, 1, 100);
    EXPECT_TRUE(holding_.Follow(call_, b_, false, kLong));
    holding_.Followed(hold, true, false, kLong);
    holding_.End(kLong);
  }
  EXPECT_EQ(hold.word, nullptr);
  EXPECT_TRUE(holding_.is_none());
  EXPECT_TRUE(in_hand.contains(refused.word));
}

// ---- Kind host

TEST_F(ShakeHoldingHost, IsEffectiveWhereTheThreadThatFreedGoesOn) {
  const HoldTarget hold = Hold();
  holding_.Arrive(kLong, 1);
  holding_.Free(&where_, 1, 100);
  EXPECT_FALSE(holding_.Follow(call_, b_, false, kLong)) << "no work of another stream ends it";
  holding_.Arrive(kLong, 2);
  holding_.Arrive(kLong, 0);
  EXPECT_EQ(site_->effective, 0u);
  EXPECT_EQ(site_->in_vain, 1u);
  holding_.ThreadEnds(2);
  holding_.Arrive(kLong, 1);
  holding_.Arrive(kLong, 1);
  EXPECT_EQ(site_->effective, 1u);
  EXPECT_EQ(site_->in_vain, 0u);
  EXPECT_TRUE(IsHeld(hold)) << "and it stays";
  holding_.Arrive(holding_.end(), 1);
  EXPECT_FALSE(IsHeld(hold));
  EXPECT_EQ(site_->effective, 1u);
}

TEST_F(ShakeHoldingHost, IsNotEffectiveOnceItIsOver) {
  Hold();
  holding_.Free(&where_, 1, 100);
  holding_.Arrive(holding_.end(), 1);
  EXPECT_EQ(site_->effective, 0u);
}

TEST_F(ShakeHoldingHost, ForgetsAThreadThatEnds) {
  Hold();
  holding_.Free(&where_, 1, 100);
  holding_.ThreadEnds(2);
  holding_.ThreadEnds(1);
  holding_.Arrive(kLong, 1);  // another thread, of the same number
  holding_.Arrive(kLong, 0);  // and one of which that is not known
  EXPECT_EQ(site_->effective, 0u);
}

// ---- What ends it

TEST_F(ShakeHolding, IsEndedByAWaitForItsStream) {
  struct Wait {
    const ShakeStream& stream;
    StreamName waited;
    bool ends;
  };
  for (const bool freed : {false, true}) {
    for (const Wait& wait :
         {Wait{a_, a_.name, true}, Wait{a_, kSeveralStreams, true}, Wait{a_, b_.name, false},
          Wait{a_, kLegacyStream, false}, Wait{blocking_, kLegacyStream, true}}) {
      const HoldTarget hold = Hold(kLong, &wait.stream);
      if (freed) holding_.Free(&where_, 1, 100);
      EXPECT_FALSE(holding_.Wait(wait.waited, kLong));
      EXPECT_EQ(IsHeld(hold), !wait.ends) << wait.waited;
      EXPECT_EQ(holding_.is_none(), wait.ends) << wait.waited;
      holding_.End(kLong);
    }
  }
  EXPECT_EQ(site_->effective, 0u);
}

TEST_F(ShakeHolding, IsLeftAMillisecondWhereTheLaterWorkIsUnderWay) {
  do {
    holding_.End(kLong);
    site_->in_vain = 100;
    Hold();
  } while (holding_.end() != kLong + 5 * kMs);
  holding_.Free(&where_, 1, 100);
  EXPECT_TRUE(holding_.Follow(call_, b_, false, kLong));
  EXPECT_TRUE(holding_.Wait(a_.name, kLong + 7));
  EXPECT_EQ(holding_.end(), kLong + 7 + kMs);
  EXPECT_TRUE(holding_.Wait(a_.name, kLong + 8));
  EXPECT_EQ(holding_.end(), kLong + 7 + kMs) << "no longer";
}

TEST_F(ShakeHolding, IsEndedWithItsStream) {
  const HoldTarget hold = Hold();
  holding_.StreamEnds(b_, kLong);
  EXPECT_TRUE(IsHeld(hold));
  holding_.StreamEnds(a_, kLong);
  EXPECT_FALSE(IsHeld(hold));
  EXPECT_TRUE(holding_.is_none());
}

}  // namespace

}  // namespace cmp
