#include "shim/work/made_contexts.h"

#include <gtest/gtest.h>

namespace cmp {
namespace {

TEST(MadeContextsTest, TheLastReferenceOfManyIsTheLast) {
  constexpr int kReferences = 70'000;  // a program that takes one in each call
  char context = 0;
  for (int i = 0; i < kReferences; ++i) ContextIsThere(&context, 0);
  EXPECT_EQ(PrimaryMade(0), &context);
  for (int i = 1; i < kReferences; ++i) {
    ContextEnding ending(&context);
    ASSERT_FALSE(ending.GivesUpLast()) << i;
  }
  EXPECT_FALSE(PrimaryIsReleased(0));
  {
    ContextEnding refused(&context);
    EXPECT_TRUE(refused.GivesUpLast());
    refused.GaveUpNone();
  }
  EXPECT_FALSE(PrimaryIsReleased(0));
  {
    ContextEnding ending(&context);
    EXPECT_TRUE(ending.GivesUpLast());
    ending.Ended();
  }
  EXPECT_EQ(PrimaryMade(0), nullptr);
}

}  // namespace
}  // namespace cmp
