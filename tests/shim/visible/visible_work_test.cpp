#include "shim/visible/visible_work.h"

#include <gtest/gtest.h>

namespace cmp {
namespace {

constexpr StreamName kFirstStream = 0xa000;
constexpr StreamName kOtherStream = 0xb000;

// One in which nothing is pending.
VisibleWork Idle() {
  VisibleWork work;
  work.Clear();
  return work;
}

TEST(VisibleWorkTest, WorkFromBeforeAnybodyLookedIsPending) {
  VisibleWork work;
  EXPECT_EQ(work.count(), 1u);
  work.FenceBegins(5);
  EXPECT_EQ(work.Until(4).fence, 5u);
  EXPECT_EQ(work.Until(4).what, Visible::kUnknown);
  EXPECT_EQ(work.Until(5).fence, 0u);
  EXPECT_EQ(work.count(), 0u);
}

TEST(VisibleWorkTest, AFenceCoversWhatWasAddedBeforeItBegan) {
  VisibleWork work = Idle();
  work.Add(kFirstStream, Visible::kCopies, false);
  EXPECT_EQ(work.Until(0).fence, 0u) << "no fence covers it yet";
  work.FenceBegins(5);
  work.Add(kOtherStream, Visible::kGraphs, false);
  EXPECT_EQ(work.Until(0).fence, 5u);
  work.FenceBegins(6);
  EXPECT_EQ(work.Until(0).fence, 6u) << "the newest is to be waited for";
  EXPECT_EQ(work.Until(0).what, Visible::kGraphs);
  EXPECT_EQ(work.Until(5).fence, 6u);
  EXPECT_EQ(work.Until(6).fence, 0u);
}

TEST(VisibleWorkTest, AnOlderFenceDoesNotCoverNewerWorkOfTheSameStream) {
  VisibleWork work = Idle();
  work.Add(kFirstStream, Visible::kCopies, false);
  work.FenceBegins(5);
  work.Add(kFirstStream, Visible::kCopies, false);
  EXPECT_EQ(work.Until(5).fence, 0u);
  EXPECT_EQ(work.count(), 1u) << "it is pending, and no fence covers it";
  work.FenceBegins(7);
  EXPECT_EQ(work.Until(5).fence, 7u);
}

TEST(VisibleWorkTest, NewerWorkOfAStreamDoesNotHideWhatAFenceCovers) {
  VisibleWork work = Idle();
  work.Add(kFirstStream, Visible::kCopies, false);
  work.FenceBegins(5);
  work.Add(kFirstStream, Visible::kCopies, false);
  EXPECT_EQ(work.Until(4).fence, 5u);
  work.Add(kFirstStream, Visible::kCopies, false);
  work.StreamEnds(kFirstStream);
  work.Add(kOtherStream, Visible::kCopies, false);
  work.StreamEnds(kOtherStream);
  EXPECT_EQ(work.Until(4).fence, 5u);
  EXPECT_EQ(work.Until(5).fence, 0u);
  EXPECT_EQ(work.count(), 1u);
}

TEST(VisibleWorkTest, AFenceThatFailedCoversNothing) {
  VisibleWork work = Idle();
  work.Add(kFirstStream, Visible::kCopies, false);
  work.FenceBegins(5);
  work.FenceFailed();
  EXPECT_EQ(work.Until(5).fence, 0u);
  EXPECT_EQ(work.count(), 1u);
  work.FenceBegins(6);
  EXPECT_EQ(work.Until(5).fence, 6u);
}

TEST(VisibleWorkTest, AStreamIsFinishedUpToWhatCameBeforeTheSynchronisation) {
  VisibleWork work = Idle();
  work.Add(kFirstStream, Visible::kCopies, false);
  const uint64_t before = work.last();
  work.Add(kOtherStream, Visible::kCopies, false);
  work.Finished(kOtherStream, before);
  EXPECT_EQ(work.count(), 2u) << "it began before";
  work.Finished(kFirstStream, before);
  EXPECT_EQ(work.count(), 1u);
  work.Add(kFirstStream, Visible::kCopies, false);
  work.Finished(kSeveralStreams, before);
  EXPECT_EQ(work.count(), 2u);
  work.Finished(kSeveralStreams, work.last());
  EXPECT_EQ(work.count(), 0u);
}

TEST(VisibleWorkTest, TheLegacyStreamFinishesThoseThatItWaitsFor) {
  VisibleWork work = Idle();
  work.Add(kFirstStream, Visible::kCopies, true);
  work.Add(kOtherStream, Visible::kCopies, false);
  work.Add(kLegacyStream, Visible::kCopies, true);
  work.Finished(kLegacyStream, work.last());
  ASSERT_EQ(work.count(), 1u);
  work.Finished(kOtherStream, work.last());
  EXPECT_EQ(work.count(), 0u);
}

TEST(VisibleWorkTest, WhatAStreamLeavesBehindIsNotFinishedByTheNextOfItsHandle) {
  VisibleWork work = Idle();
  work.Add(kFirstStream, Visible::kCopies, true);
  work.StreamEnds(kFirstStream);
  work.Add(kFirstStream, Visible::kGraphs, true);
  work.Finished(kFirstStream, work.last());
  work.Finished(kLegacyStream, work.last());
  EXPECT_EQ(work.count(), 1u);
  work.FenceBegins(5);
  EXPECT_EQ(work.Until(0).what, Visible::kCopies);
  work.Finished(kSeveralStreams, work.last());
  EXPECT_EQ(work.count(), 0u);
}

TEST(VisibleWorkTest, EndedStreamsTogetherAreCoveredByTheNewestOfTheirFences) {
  VisibleWork work = Idle();
  work.Add(kFirstStream, Visible::kCopies, false);
  work.FenceBegins(5);
  work.Add(kOtherStream, Visible::kGraphs, false);
  work.FenceBegins(6);
  work.Add(kLegacyStream, Visible::kCopies, true);
  work.StreamEnds(kOtherStream);
  work.StreamEnds(kFirstStream);
  EXPECT_EQ(work.Until(5).fence, 6u);
  work.StreamEnds(kSeveralStreams);
  EXPECT_EQ(work.Until(6).fence, 0u);
  EXPECT_EQ(work.count(), 1u) << "one of them is covered by no fence";
}

TEST(VisibleWorkTest, MoreStreamsThanFitAreKnownTogether) {
  VisibleWork work = Idle();
  for (StreamName stream = 16; stream <= 16 * 100; stream += 16) {
    work.Add(stream, Visible::kCopies, false);
  }
  EXPECT_LT(work.count(), 100u);
  for (StreamName stream = 16; stream <= 16 * 100; stream += 16) {
    work.Finished(stream, work.last());
  }
  EXPECT_EQ(work.count(), 1u) << "which ones did not fit is not known";
  work.FenceBegins(5);
  EXPECT_EQ(work.Until(4).fence, 5u);
  EXPECT_EQ(work.Until(5).fence, 0u);
}

}  // namespace
}  // namespace cmp
