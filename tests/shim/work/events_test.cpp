#include "shim/work/events.h"

#include <gtest/gtest.h>

#include <memory>

#include "shim/work/context_work.h"

namespace cmp {
namespace {

class EventsTest : public testing::Test {
 protected:
  static CUevent Event(uintptr_t number) { return reinterpret_cast<CUevent>(number * 16); }
  static RecordedPoint Point(uint64_t submission) { return {&g_no_work, 0xa000, submission}; }
  std::unique_ptr<Events> events_ = std::make_unique<Events>();
};

TEST_F(EventsTest, TheLastRecordCounts) {
  EXPECT_EQ(events_->Find(Event(1)).work, nullptr);
  events_->Recorded(Event(1), Point(5));
  EXPECT_EQ(events_->Find(Event(1)).submission, 5u);
  events_->Recorded(Event(1), Point(7));
  EXPECT_EQ(events_->Find(Event(1)).submission, 7u);
  EXPECT_TRUE(events_->MayKnow(Event(1)));
  EXPECT_EQ(events_->Find(Event(2)).work, nullptr);
}

TEST_F(EventsTest, AForgottenEventStandsForNothing) {
  events_->Recorded(Event(1), Point(5));
  events_->Forget(Event(2));
  EXPECT_EQ(events_->Find(Event(1)).submission, 5u);
  events_->Forget(Event(1));
  EXPECT_EQ(events_->Find(Event(1)).work, nullptr);
  EXPECT_FALSE(events_->MayKnow(Event(1)));
}

TEST_F(EventsTest, AfterAGraphEveryEventMayStandForSomethingElse) {
  events_->Recorded(Event(1), Point(5));
  events_->ForgetAll();
  EXPECT_EQ(events_->Find(Event(1)).work, nullptr);
  events_->Recorded(Event(1), Point(6));
  EXPECT_EQ(events_->Find(Event(1)).submission, 6u);
}

TEST_F(EventsTest, MoreEventsThanFitPushOthersOut) {
  for (uintptr_t i = 1; i <= 5000; ++i) {
    events_->Recorded(Event(i), Point(i));
    ASSERT_EQ(events_->Find(Event(i)).submission, i);
  }
  int known = 0;
  for (uintptr_t i = 1; i <= 5000; ++i) {
    const RecordedPoint point = events_->Find(Event(i));
    if (point.work == nullptr) continue;
    EXPECT_EQ(point.submission, i);
    ++known;
  }
  EXPECT_GT(known, 0);
  EXPECT_LT(known, 5000);
}

}  // namespace
}  // namespace cmp
