#include "shim/service/pitches.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

namespace cmp {
namespace {

ContextHandle Context(uintptr_t number) { return reinterpret_cast<ContextHandle>(number << 12); }

void AddNow(PitchesOfContexts& to, ContextHandle context, size_t width, uint64_t element,
            size_t pitch) {
  to.Add(context, width, element, pitch, PitchesOfContexts::Now());
}

TEST(PitchesOfContextsTest, KnowsWhatWasGivenForTheSameRequestAlone) {
  auto pitches = std::make_unique<PitchesOfContexts>();
  EXPECT_EQ(pitches->Find(Context(1), 100, 4), 0U);
  AddNow(*pitches, Context(1), 100, 4, 512);
  EXPECT_EQ(pitches->Find(Context(1), 100, 4), 512U);
  EXPECT_EQ(pitches->Find(Context(2), 100, 4), 0U);
  EXPECT_EQ(pitches->Find(Context(1), 101, 4), 0U);
  EXPECT_EQ(pitches->Find(Context(1), 100, PitchesOfContexts::kOfRuntime), 0U);
  AddNow(*pitches, Context(1), 100, 4, 1024);
  EXPECT_EQ(pitches->Find(Context(1), 100, 4), 1024U);
}

TEST(PitchesOfContextsTest, KnowsNothingOnceAContextHasEnded) {
  auto pitches = std::make_unique<PitchesOfContexts>();
  AddNow(*pitches, Context(1), 100, 4, 512);
  g_context_epoch.fetch_add(1, std::memory_order_acq_rel);
  EXPECT_EQ(pitches->Find(Context(1), 100, 4), 0U);
  AddNow(*pitches, Context(1), 100, 4, 512);
  EXPECT_EQ(pitches->Find(Context(1), 100, 4), 512U);
}

// Found by review: it was told as of when it was noted, and by then the handle may be another's.
TEST(PitchesOfContextsTest, NorOfOneThatEndedBeforeItsPitchWasNoted) {
  auto pitches = std::make_unique<PitchesOfContexts>();
  const uint64_t before = PitchesOfContexts::Now();
  ForgetWhatIsKnownOfContexts();
  pitches->Add(Context(1), 100, 4, 512, before);
  EXPECT_EQ(pitches->Find(Context(1), 100, 4), 0U);
}

// Its handle may be the next one's before what was noted meanwhile is forgotten.
TEST(PitchesOfContextsTest, NorOfOneThatIsJustEnding) {
  auto pitches = std::make_unique<PitchesOfContexts>();
  {
    const HitsBarred barred;
    ForgetWhatIsKnownOfContexts();
    AddNow(*pitches, Context(1), 100, 4, 512);
    EXPECT_EQ(pitches->Find(Context(1), 100, 4), 0U);
    ForgetWhatIsKnownOfContexts();
  }
  AddNow(*pitches, Context(1), 100, 4, 512);
  EXPECT_EQ(pitches->Find(Context(1), 100, 4), 512U);
}

// Widths of one place in turn, whose pitches tell them apart: a reader who puts together the halves
// of two entries sees the pitch of another width.
TEST(PitchesOfContextsTest, NoReaderSeesHalfAnEntry) {
  auto pitches = std::make_unique<PitchesOfContexts>();
  constexpr size_t kWidth = size_t{1} << 40;  // these bits do not tell where an entry is
  constexpr size_t kWidths = 8;
  std::atomic<bool> done{false};
  std::vector<std::thread> readers;
  std::atomic<size_t> found{0};
  std::atomic<size_t> wrong{0};
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      for (size_t turn = 0; !done.load(std::memory_order_acquire); ++turn) {
        const size_t width = (turn % kWidths + 1) * kWidth;
        const size_t pitch = pitches->Find(Context(1), width, 0);
        if (pitch != 0) found.fetch_add(1, std::memory_order_relaxed);
        if (pitch != 0 && pitch != width + 1) wrong.fetch_add(1, std::memory_order_relaxed);
      }
    });
  }
  for (size_t turn = 0; turn < 500'000 || found.load(std::memory_order_relaxed) < 1000; ++turn) {
    const size_t width = (turn % kWidths + 1) * kWidth;
    AddNow(*pitches, Context(1), width, 0, width + 1);
  }
  done.store(true, std::memory_order_release);
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong.load(), 0U);
}

}  // namespace
}  // namespace cmp
