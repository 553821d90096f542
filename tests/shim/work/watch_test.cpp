// Which threads ask: shim/work/watch.h.
#include "shim/work/watch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace cmp {
namespace {

constexpr Watcher kFirst = 1;
constexpr Watcher kSecond = 2;
constexpr Watcher kThird = 3;

// Longer than a mark stays that a free has met.
void TimePasses() { std::this_thread::sleep_for(std::chrono::milliseconds(25)); }

TEST(WatchTest, AThreadHasANumberOfItsOwn) {
  const Watcher mine = ThisWatcher();
  EXPECT_NE(mine, 0u);
  EXPECT_EQ(ThisWatcher(), mine);
  std::thread([=] { EXPECT_NE(ThisWatcher(), mine); }).join();
}

TEST(WatchTest, AMarkIsSeenByOthersAlone) {
  Watch watch;
  EXPECT_FALSE(watch.HasOthers(kFirst));
  EXPECT_FALSE(watch.Stands(kSecond));
  EXPECT_FALSE(watch.Renew(kSecond)) << "made now: to be looked at";
  EXPECT_TRUE(watch.Stands(kSecond));
  EXPECT_TRUE(watch.Renew(kSecond));
  EXPECT_TRUE(watch.HasOthers(kFirst));
  EXPECT_FALSE(watch.HasOthers(kSecond));
}

TEST(WatchTest, AMarkThatAFreeHasMetStandsAgainWhenItsThreadAsks) {
  Watch watch;
  EXPECT_FALSE(watch.Renew(kSecond));
  EXPECT_TRUE(watch.HasOthers(kFirst));
  EXPECT_FALSE(watch.Stands(kSecond));
  TimePasses();  // it was there all the time: nobody took it away
  EXPECT_TRUE(watch.Renew(kSecond));
  EXPECT_TRUE(watch.HasOthers(kFirst)) << "and stays for 10 ms from now on";
  EXPECT_TRUE(watch.Keep(kSecond));
  EXPECT_TRUE(watch.Stands(kSecond));
}

TEST(WatchTest, AMarkEndsWhenItsThreadStopsAsking) {
  Watch watch;
  EXPECT_FALSE(watch.Renew(kSecond));
  TimePasses();
  EXPECT_TRUE(watch.HasOthers(kFirst)) << "no free has met it yet";
  TimePasses();
  EXPECT_FALSE(watch.HasOthers(kFirst));
  EXPECT_FALSE(watch.Keep(kSecond));
  EXPECT_FALSE(watch.Renew(kSecond)) << "what was skipped meanwhile is to be looked at";
  EXPECT_TRUE(watch.HasOthers(kFirst));
}

TEST(WatchTest, WithTwoMarksEveryThreadMeetsAnother) {
  Watch watch;
  EXPECT_FALSE(watch.Renew(kFirst));
  EXPECT_FALSE(watch.Renew(kSecond));
  EXPECT_FALSE(watch.Renew(kThird));
  EXPECT_FALSE(watch.Stands(kThird)) << "no place";
  for (const Watcher free : {kFirst, kSecond, kThird}) EXPECT_TRUE(watch.HasOthers(free));
  // All marks were met: who asks first has them.
  EXPECT_FALSE(watch.Renew(kThird));
  EXPECT_TRUE(watch.Stands(kThird));
  EXPECT_TRUE(watch.HasOthers(kFirst));
  EXPECT_TRUE(watch.HasOthers(kSecond));
  EXPECT_EQ(watch.Renew(kFirst) + watch.Renew(kSecond), 1) << "one place was left";
}

TEST(WatchTest, WhoSkipsLooksAgain) {
  Watch watch;
  EXPECT_FALSE(watch.Renew(kFirst));
  EXPECT_FALSE(watch.Renew(kSecond));
  watch.Leave(kFirst);
  EXPECT_FALSE(watch.Stands(kFirst));
  EXPECT_TRUE(watch.Stands(kSecond));
  EXPECT_TRUE(watch.HasOthers(kFirst));
  watch.Leave(kSecond);
  EXPECT_FALSE(watch.HasOthers(kFirst));
  EXPECT_FALSE(watch.Renew(kSecond));
  watch.Clear();
  EXPECT_FALSE(watch.Stands(kSecond));
}

// Two threads at once: one publishes and looks for marks, the other makes its mark and looks at
// what was published. Never do both see nothing, unless the mark is gone: a free that is kept from
// running for 10 ms between meeting it and looking again takes it away, and the other looks once
// more.
TEST(WatchTest, OneOfTwoSeesTheOther) {
  constexpr int kRounds = 20000;
  std::vector<Watch> watches(kRounds);
  std::vector<std::atomic<uint64_t>> skipped(kRounds);
  std::vector<char> met(kRounds), looked(kRounds), found(kRounds);
  std::atomic<int> ready{0};
  const auto run = [&](auto step) {
    for (int i = 0; i < kRounds; ++i) {
      if (i % 64 == 0) {
        ready.fetch_add(1);
        while (ready.load() < 2 * (i / 64 + 1)) std::this_thread::yield();
      }
      step(i);
    }
  };
  std::thread frees([&] {
    run([&](int i) {
      skipped[i].store(1, std::memory_order_seq_cst);
      met[i] = watches[i].HasOthers(kFirst);
    });
  });
  run([&](int i) {
    looked[i] = !watches[i].Renew(kSecond);
    found[i] = skipped[i].load(std::memory_order_seq_cst) != 0;
  });
  frees.join();
  for (int i = 0; i < kRounds; ++i) {
    EXPECT_TRUE(looked[i]);
    EXPECT_TRUE(met[i] || found[i] || !watches[i].Stands(kSecond)) << i;
  }
}

}  // namespace
}  // namespace cmp
