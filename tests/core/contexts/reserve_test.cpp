// CMP_RESERVE=auto: the table in reserve.h against invented histories, and whole programs.
#include "core/contexts/reserve.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "pool_fixture.h"

namespace cmp {
namespace {

using test::TestPool;

constexpr ReserveRule kAuto = {1.15, 256 * kMiB, true};
constexpr size_t kTotal = 100 * kGiB;
constexpr uint64_t kSecond = 1'000'000'000;
constexpr uint64_t kDecay = 10 * kSecond;

enum class What {
  kRelease,   // a ready block of `bytes` is released for the bound
  kAllocate,  // and really allocated, where one of a half more would have served
  kGiveBack,  // idle memory is released for another reason
  kFree,      // the device is found to have `bytes` free
  kHold,      // the pool holds `bytes`
};

struct Event {
  uint64_t second;
  What what;
  size_t bytes;
  size_t extra;  // afterwards
};

// As BlockSource does it, on a device of kTotal bytes.
class History {
 public:
  void Run(const std::vector<Event>& events) {
    for (size_t i = 0; i < events.size(); ++i) {
      Apply(events[i]);
      EXPECT_EQ(reserve_.extra(), events[i].extra) << "after event " << i;
      EXPECT_EQ(reserve_.bound(), events[i].extra + std::min(256 * kMiB, free_ / 16));
      counted_ += reserve_.TakeExtraChange();
      EXPECT_EQ(counted_, static_cast<int64_t>(events[i].extra)) << "after event " << i;
    }
  }

 private:
  void Apply(const Event& event) {
    const uint64_t now = kDecay + event.second * kSecond;
    switch (event.what) {
      case What::kRelease:
        reserve_.NoteReleased(event.bytes, now, arena_);
        return;
      case What::kAllocate: {
        const size_t most = event.bytes * 3 / 2;
        const size_t regretted = reserve_.TakeRegretted(event.bytes, most, now - kDecay);
        if (regretted != 0 && !reserve_.NoteFree(free_, kTotal)) {
          reserve_.Grow(regretted, held_, free_ / 4);
        }
        return;
      }
      case What::kGiveBack:
        reserve_.NoteGivenBack(event.bytes);
        return;
      case What::kFree:
        free_ = event.bytes;
        reserve_.NoteFree(free_, kTotal);
        return;
      case What::kHold:
        held_ = event.bytes;
    }
  }

  Arena arena_;
  Reserve reserve_{kAuto};
  size_t free_ = 80 * kGiB;
  size_t held_ = 0;
  int64_t counted_ = 0;
};

TEST(ReserveTest, WhatWasReleasedAndIsAllocatedAgainRaisesTheBound) {
  History().Run({{0, What::kAllocate, kGiB, 0},
                 {1, What::kRelease, kGiB, 0},
                 {2, What::kAllocate, kGiB, kGiB},
                 {3, What::kAllocate, kGiB, kGiB}});  // the note is gone
}

TEST(ReserveTest, OnlyWhatWouldHaveServed) {
  History().Run({{0, What::kRelease, 100 * kMiB, 0},
                 {1, What::kAllocate, 102 * kMiB, 0},  // too small
                 {1, What::kAllocate, 60 * kMiB, 0},   // too large
                 {1, What::kAllocate, 70 * kMiB, 100 * kMiB}});
}

TEST(ReserveTest, TheSmallestThatWouldHaveServed) {
  History().Run({{0, What::kRelease, 130 * kMiB, 0},
                 {0, What::kRelease, 110 * kMiB, 0},
                 {0, What::kRelease, 120 * kMiB, 0},
                 {1, What::kAllocate, 100 * kMiB, 110 * kMiB},
                 {1, What::kAllocate, 100 * kMiB, 230 * kMiB}});
}

TEST(ReserveTest, NothingIsRegrettedAfterTheDecay) {
  History().Run({{0, What::kRelease, kGiB, 0},
                 {5, What::kRelease, kGiB, 0},
                 {11, What::kAllocate, kGiB, kGiB},
                 {11, What::kAllocate, kGiB, kGiB}});
}

TEST(ReserveTest, TheLast512AreRemembered) {
  std::vector<Event> events = {{0, What::kRelease, kGiB, 0}};
  for (int i = 0; i < 512; ++i) events.push_back({1, What::kRelease, kMiB, 0});
  events.push_back({2, What::kAllocate, kGiB, 0});
  events.push_back({2, What::kAllocate, kMiB, kMiB});
  History().Run(events);
}

TEST(ReserveTest, NearTheBoundByAnEighthOfWhatMayBeIdleBesides) {
  History().Run({{0, What::kRelease, 16 * kMiB, 0},
                 {0, What::kRelease, 16 * kMiB, 0},
                 {0, What::kRelease, 16 * kMiB, 0},
                 {1, What::kHold, 191 * kMiB, 0},  // three quarters of what may be idle, hardly
                 {1, What::kAllocate, 16 * kMiB, 16 * kMiB},
                 {2, What::kHold, 204 * kMiB, 16 * kMiB},
                 {2, What::kAllocate, 16 * kMiB, 66 * kMiB},    // 272 MiB may be idle
                 {3, What::kAllocate, 16 * kMiB, 82 * kMiB}});  // 204 are not near 322
}

TEST(ReserveTest, AtMostAQuarterOfWhatIsFree) {
  History().Run({{0, What::kFree, 40 * kGiB, 0},
                 {0, What::kRelease, 8 * kGiB, 0},
                 {0, What::kRelease, 8 * kGiB, 0},
                 {1, What::kAllocate, 8 * kGiB, 8 * kGiB},
                 {1, What::kAllocate, 8 * kGiB, 10 * kGiB}});
}

TEST(ReserveTest, NothingWhereMemoryIsScarce) {
  History().Run({{0, What::kRelease, kGiB, 0},
                 {0, What::kRelease, kGiB, 0},
                 {1, What::kAllocate, kGiB, kGiB},
                 {2, What::kFree, 9 * kGiB, 0},
                 {3, What::kAllocate, kGiB, 0},
                 {4, What::kFree, 80 * kGiB, 0},
                 {5, What::kAllocate, kGiB, 0}});  // the note was taken
}

TEST(ReserveTest, WhatIsGivenBackLowersIt) {
  History().Run({{0, What::kRelease, 4 * kGiB, 0},
                 {1, What::kAllocate, 4 * kGiB, 4 * kGiB},
                 {2, What::kGiveBack, kGiB, 3 * kGiB},
                 {3, What::kGiveBack, 10 * kGiB, 0},
                 {4, What::kAllocate, 10 * kGiB, 0}});  // it is not noted
}

TEST(ReserveTest, AFixedBoundStaysWhereItIs) {
  Reserve reserve({1.5, kMiB});
  Arena arena;
  reserve.NoteReleased(kGiB, kSecond, arena);
  EXPECT_EQ(reserve.TakeRegretted(kGiB, kGiB, 0), 0u);
  EXPECT_TRUE(reserve.NoteFree(0, kTotal));
  EXPECT_EQ(reserve.bound(), kMiB);
  EXPECT_EQ(reserve.NotePeak(kGiB), kGiB);
  EXPECT_EQ(reserve.bound(), 3 * kGiB / 2 + kMiB);
}

// ---- Beside managed memory, on a device of 100 GiB that the process has for itself

// What the program uses and what is idle beside it; what of that must go.
void ExpectTooMuch(const Reserve& reserve, size_t used, size_t idle, size_t too_much) {
  EXPECT_EQ(reserve.TooMuchIdle(used + idle, idle), too_much) << used << " and " << idle;
}

TEST(ReserveTest, ManagedMemoryThatFitsIsLeftItsRoom) {
  for (const ReserveRule& rule : {kAuto, ReserveRule{2.0, kGiB}}) {
    Reserve reserve(rule);
    reserve.NotePeak(80 * kGiB);
    const size_t wanted = reserve.bound();
    EXPECT_EQ(reserve.NoteManaged(0, 60 * kGiB, 40 * kGiB, kTotal), 40 * kGiB);
    EXPECT_FALSE(reserve.IsOverRoom(kTotal));
    EXPECT_EQ(reserve.NoteManaged(30 * kGiB, 60 * kGiB, 40 * kGiB, kTotal), 10 * kGiB);
    EXPECT_EQ(reserve.bound(), 70 * kGiB);
    EXPECT_EQ(reserve.wanted(), wanted);
    ExpectTooMuch(reserve, 10 * kGiB, 60 * kGiB, 0);
    ExpectTooMuch(reserve, 10 * kGiB, 65 * kGiB, 5 * kGiB);
    ExpectTooMuch(reserve, 70 * kGiB, 5 * kGiB, 5 * kGiB);
    ExpectTooMuch(reserve, 72 * kGiB, 0, 0);
    // Once it is on the device it is not counted twice; and once it is gone, not at all.
    EXPECT_EQ(reserve.NoteManaged(30 * kGiB, 60 * kGiB, 10 * kGiB, kTotal), 10 * kGiB);
    EXPECT_EQ(reserve.NoteManaged(30 * kGiB, 20 * kGiB, 50 * kGiB, kTotal), 50 * kGiB);
    EXPECT_EQ(reserve.bound(), 70 * kGiB);
    EXPECT_EQ(reserve.NoteManaged(0, 60 * kGiB, 40 * kGiB, kTotal), 40 * kGiB);
    EXPECT_EQ(reserve.bound(), wanted);
  }
}

TEST(ReserveTest, WhatOthersHaveIsNoRoom) {
  Reserve reserve(kAuto);
  reserve.NotePeak(kTotal);
  reserve.NoteManaged(10 * kGiB, 20 * kGiB, 80 * kGiB, kTotal);
  ExpectTooMuch(reserve, 0, 90 * kGiB, 0);
  // Others took 50 GiB: managed memory has 10 of them at most.
  reserve.NoteManaged(10 * kGiB, 20 * kGiB, 30 * kGiB, kTotal);
  ExpectTooMuch(reserve, 0, 50 * kGiB, 0);
  ExpectTooMuch(reserve, 0, 51 * kGiB, kGiB);
}

TEST(ReserveTest, WhereManagedMemoryDoesNotFitAPartOfTheDeviceMayBeIdle) {
  Reserve reserve(kAuto);
  EXPECT_EQ(reserve.NoteManaged(200 * kGiB, 10 * kGiB, 90 * kGiB, kTotal), 0u);
  reserve.NotePeak(90 * kGiB);
  for (const size_t used : {size_t{0}, 80 * kGiB}) {
    ExpectTooMuch(reserve, used, kTotal / 16, 0);
    ExpectTooMuch(reserve, used, 20 * kGiB, 20 * kGiB - kTotal / 16);
    EXPECT_TRUE(reserve.MayStay(used, kTotal / 16));
    EXPECT_FALSE(reserve.MayStay(used, kTotal / 16 + 1));
    reserve.NoteUsed(used, kGiB);
    EXPECT_EQ(reserve.bound(), used + kGiB + kTotal / 16) << "what is used, and a sixteenth";
  }
  EXPECT_EQ(reserve.NoteManaged(0, 10 * kGiB, 90 * kGiB, kTotal), 90 * kGiB);
  EXPECT_EQ(reserve.bound(), reserve.wanted());
}

TEST(ReserveTest, NorDoesItForGoodOnlyAfterManyAllocations) {
  Reserve reserve(kAuto);
  reserve.NoteManaged(80 * kGiB, 0, kTotal, kTotal);
  reserve.NotePeak(90 * kGiB);
  for (int i = 0; i < 256; ++i) {
    ExpectTooMuch(reserve, 50 * kGiB, kGiB, kGiB);
    EXPECT_FALSE(reserve.MayStay(50 * kGiB, 0));
    EXPECT_EQ(reserve.bound(), 20 * kGiB);
    reserve.NoteUsed(50 * kGiB, kGiB);
  }
  EXPECT_EQ(reserve.bound(), 51 * kGiB + kTotal / 16);
  EXPECT_TRUE(reserve.MayStay(50 * kGiB, kGiB));
  EXPECT_FALSE(reserve.MayStay(10 * kGiB, kGiB)) << "there it fits";
  ExpectTooMuch(reserve, 50 * kGiB, kGiB, 0);
  ExpectTooMuch(reserve, 50 * kGiB, kTotal / 16 + kGiB, kGiB);
  ExpectTooMuch(reserve, 10 * kGiB, 12 * kGiB, 2 * kGiB);
  reserve.NoteUsed(10 * kGiB, 0);  // now it fits
  EXPECT_EQ(reserve.bound(), 20 * kGiB);
  ExpectTooMuch(reserve, 50 * kGiB, kGiB, kGiB);
}

// ---- Programs

// RMM's random allocations, smaller: 200 blocks of up to 256 MiB, at most 4 GiB at once, then none.
void RunRound(TestPool& t, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Block*> live;
  size_t bytes_live = 0;
  int made = 0;
  for (int step = 0; step < 400; ++step) {
    const size_t bytes = 1 + random() % (256 * kMiB);
    if (random() % 100 < 73 && made < 200 && bytes_live + bytes < 4 * kGiB) {
      live.push_back(t.Alloc(bytes));
      ASSERT_NE(live.back(), nullptr);
      bytes_live += live.back()->bytes;
      ++made;
    } else if (!live.empty()) {
      std::swap(live[random() % live.size()], live.back());
      bytes_live -= live.back()->bytes;
      ASSERT_TRUE(t.Free(live.back()));
      live.pop_back();
    }
  }
  for (Block* block : live) ASSERT_TRUE(t.Free(block));
}

TEST(ReserveTest, SizesThatComeAgainAreServedWithoutRealCalls) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    TestPool t({}, 128 * kGiB);
    size_t extra = 0;
    for (int round = 0; round < 30; ++round) {
      const size_t calls = t.device.allocate_calls();
      RunRound(t, seed);
      const size_t now = t.context->accounts().reserve().extra();
      if (round == 0) {
        EXPECT_GT(t.device.allocate_calls(), calls + 30) << "it shows nothing";
      }
      if (round >= 20) {
        EXPECT_EQ(t.device.allocate_calls(), calls) << "seed " << seed << ", round " << round;
        EXPECT_EQ(now, extra) << "it grows without need";
      }
      extra = now;
    }
    EXPECT_GT(extra, 0u);
    EXPECT_LE(t.context->accounts().reserved(), t.context->accounts().bound());
  }
}

TEST(ReserveTest, WhatItGrewByIsCounted) {
  TestPool t({}, 128 * kGiB);
  const ProcessCounters& process = t.pool->statistics().process();
  const Reserve& reserve = t.context->accounts().reserve();
  for (int round = 0; round < 5; ++round) RunRound(t, 1);
  EXPECT_GT(process.regretted_releases.Get(), 10u);
  EXPECT_GT(process.reserve_extra_bytes.Get(), 0u);
  EXPECT_EQ(process.reserve_extra_bytes.Get(), reserve.extra());
  EXPECT_EQ(process.reserve_extra_peak_bytes.Get(), reserve.extra());
  const uint64_t regretted = process.regretted_releases.Get();
  const uint64_t peak = reserve.extra();
  t.pool->ReleaseAll(t.api);
  EXPECT_EQ(process.reserve_extra_bytes.Get(), reserve.extra());
  t.pool->DropContext(*t.context);
  EXPECT_EQ(process.reserve_extra_bytes.Get(), 0u);
  EXPECT_EQ(process.reserve_extra_peak_bytes.Get(), peak);
  EXPECT_EQ(process.regretted_releases.Get(), regretted);
}

TEST(ReserveTest, SizesThatNeverComeAgainDoNotRaiseIt) {
  TestPool t({}, 128 * kGiB);
  for (size_t bytes = 2 * kMiB; bytes < kGiB; bytes += bytes / 4) {
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(t.Free(t.Alloc(bytes)));
  }
  EXPECT_GT(t.device.release_calls(), 0u) << "it shows nothing";
  EXPECT_EQ(t.context->accounts().reserve().extra(), 0u);
  EXPECT_EQ(t.pool->statistics().process().regretted_releases.Get(), 0u);
}

TEST(ReserveTest, AProgramThatFillsTheDeviceGetsNothingMore) {
  TestPool t({}, 5 * kGiB);
  for (int round = 0; round < 5; ++round) RunRound(t, 1);
  EXPECT_LE(t.context->accounts().reserve().extra(), 5 * kGiB / 4);
  std::vector<Block*> blocks;
  for (int i = 0; i < 47; ++i) blocks.push_back(t.Alloc(100 * kMiB));
  for (const Block* block : blocks) ASSERT_NE(block, nullptr);
  EXPECT_EQ(t.context->accounts().reserve().extra(), 0u) << "memory is scarce";
  EXPECT_EQ(t.pool->statistics().process().reserve_extra_bytes.Get(), 0u);
  for (Block* block : blocks) ASSERT_TRUE(t.Free(block));
}

}  // namespace
}  // namespace cmp
