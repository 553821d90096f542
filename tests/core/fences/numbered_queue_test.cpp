#include "core/fences/numbered_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>

namespace cmp {
namespace {

// Counts how often it is looked at.
struct Number {
  static inline unsigned looks = 0;
  uint64_t value = 0;
  operator uint64_t() const {  // NOLINT(google-explicit-constructor): as a number is read
    ++looks;
    return value;
  }
};
struct Item {
  Number number;
};

class NumberedQueueTest : public testing::Test {
 protected:
  void Push(uint64_t number) {
    ASSERT_TRUE(queue_.MakeRoom());
    items_.push_back({Number{number}});
    queue_.Push(&items_.back());
  }
  // The number found above `number`, 0 if none is.
  uint64_t Above(uint64_t number) {
    Number::looks = 0;
    const Item* found = queue_.Above(number);
    looks_ = Number::looks;
    return found == nullptr ? 0 : found->number.value;
  }

  std::deque<Item> items_;
  NumberedQueue<Item> queue_;
  unsigned looks_ = 0;
};

TEST_F(NumberedQueueTest, AnEmptyOneHasNothing) {
  EXPECT_EQ(Above(0), 0u);
  EXPECT_EQ(queue_.Oldest(), nullptr);
  Push(7);
  EXPECT_EQ(Above(6), 7u);
  EXPECT_EQ(Above(7), 0u);
  EXPECT_EQ(queue_.Pop()->number.value, 7u);
  EXPECT_EQ(Above(6), 0u);
}

// Found by measuring: with 16,000 unfinished fences each submission walked all of them.
TEST_F(NumberedQueueTest, ALookUpIsAsShortInALongOne) {
  for (uint64_t i = 1; i <= 16000; ++i) {
    Push(10 * i);
    if (i != 10 && i != 16000) continue;
    EXPECT_EQ(Above(10 * i - 1), 10 * i) << "the newest";
    EXPECT_LE(looks_, 3u);
    EXPECT_EQ(Above(10 * i), 0u) << "a newer one";
    EXPECT_LE(looks_, 3u);
    EXPECT_EQ(Above(1), 10u) << "the oldest";
    EXPECT_LE(looks_, 3u);
    EXPECT_EQ(Above(5 * i), 10 * (i / 2 + 1)) << "one in the middle";
    EXPECT_LE(looks_, 3u + 14u);
  }
}

TEST_F(NumberedQueueTest, FindsWhatAListWouldFind) {
  std::mt19937 random(3);
  std::deque<uint64_t> expected;
  uint64_t last = 0;
  for (int i = 0; i < 20000; ++i) {
    // In waves, so that it wraps around at every size.
    if (const bool grows = random() % 100 < (i / 2000 % 2 == 0 ? 70u : 30u);
        grows || expected.empty()) {
      last += 1 + random() % 3;
      Push(last);
      expected.push_back(last);
    } else {
      EXPECT_EQ(queue_.Oldest()->number.value, expected.front());
      EXPECT_EQ(queue_.Pop()->number.value, expected.front());
      expected.pop_front();
    }
    if (expected.empty()) continue;
    const uint64_t from = expected.front();
    const uint64_t number = from - 1 + random() % (last - from + 3);
    const auto found = std::upper_bound(expected.begin(), expected.end(), number);
    ASSERT_EQ(Above(number), found == expected.end() ? 0 : *found);
  }
}

}  // namespace
}  // namespace cmp
