// Which threads ask: shim/watch.h.
#include "shim/watch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace cmp {
namespace {

constexpr Watcher kA = 1;
constexpr Watcher kB = 2;
constexpr Watcher kC = 3;

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
  EXPECT_FALSE(watch.HasOthers(kA));
  EXPECT_FALSE(watch.Stands(kB));
  EXPECT_FALSE(watch.Renew(kB)) << "made now: to be looked at";
  EXPECT_TRUE(watch.Stands(kB));
  EXPECT_TRUE(watch.Renew(kB));
  EXPECT_TRUE(watch.HasOthers(kA));
  EXPECT_FALSE(watch.HasOthers(kB));
}

TEST(WatchTest, AMarkThatAFreeHasMetStandsAgainWhenItsThreadAsks) {
  Watch watch;
  EXPECT_FALSE(watch.Renew(kB));
  EXPECT_TRUE(watch.HasOthers(kA));
  EXPECT_FALSE(watch.Stands(kB));
  TimePasses();  // it was there all the time: nobody took it away
  EXPECT_TRUE(watch.Renew(kB));
  EXPECT_TRUE(watch.HasOthers(kA)) << "and stays for 10 ms from now on";
  EXPECT_TRUE(watch.Keep(kB));
  EXPECT_TRUE(watch.Stands(kB));
}

TEST(WatchTest, AMarkEndsWhenItsThreadStopsAsking) {
  Watch watch;
  EXPECT_FALSE(watch.Renew(kB));
  TimePasses();
  EXPECT_TRUE(watch.HasOthers(kA)) << "no free has met it yet";
  TimePasses();
  EXPECT_FALSE(watch.HasOthers(kA));
  EXPECT_FALSE(watch.Keep(kB));
  EXPECT_FALSE(watch.Renew(kB)) << "what was skipped meanwhile is to be looked at";
  EXPECT_TRUE(watch.HasOthers(kA));
}

TEST(WatchTest, WithTwoMarksEveryThreadMeetsAnother) {
  Watch watch;
  EXPECT_FALSE(watch.Renew(kA));
  EXPECT_FALSE(watch.Renew(kB));
  EXPECT_FALSE(watch.Renew(kC));
  EXPECT_FALSE(watch.Stands(kC)) << "no place";
  for (const Watcher free : {kA, kB, kC}) EXPECT_TRUE(watch.HasOthers(free));
  // All marks were met: who asks first has them.
  EXPECT_FALSE(watch.Renew(kC));
  EXPECT_TRUE(watch.Stands(kC));
  EXPECT_TRUE(watch.HasOthers(kA));
  EXPECT_TRUE(watch.HasOthers(kB));
  EXPECT_EQ(watch.Renew(kA) + watch.Renew(kB), 1) << "one place was left";
}

TEST(WatchTest, WhoSkipsLooksAgain) {
  Watch watch;
  EXPECT_FALSE(watch.Renew(kA));
  EXPECT_FALSE(watch.Renew(kB));
  watch.Leave(kA);
  EXPECT_FALSE(watch.Stands(kA));
  EXPECT_TRUE(watch.Stands(kB));
  EXPECT_TRUE(watch.HasOthers(kA));
  watch.Leave(kB);
  EXPECT_FALSE(watch.HasOthers(kA));
  EXPECT_FALSE(watch.Renew(kB));
  watch.Clear();
  EXPECT_FALSE(watch.Stands(kB));
}

// Two threads at once: one publishes and looks for marks, the other makes its mark and looks at
// what was published. Never do both see nothing.
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
      met[i] = watches[i].HasOthers(kA);
    });
  });
  run([&](int i) {
    looked[i] = !watches[i].Renew(kB);
    found[i] = skipped[i].load(std::memory_order_seq_cst) != 0;
  });
  frees.join();
  for (int i = 0; i < kRounds; ++i) {
    EXPECT_TRUE(looked[i]);
    EXPECT_TRUE(met[i] || found[i]) << i;
  }
}

}  // namespace
}  // namespace cmp
