#include "core/base/tiers.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace cmp {
namespace {

class TiersTest : public testing::TestWithParam<unsigned> {
 protected:
  const Tiers tiers_{GetParam()};
};

// What must hold for a request, whatever it is.
void ExpectServed(const Tiers& tiers, size_t bytes) {
  const unsigned tier = tiers.TierOf(bytes);
  const size_t size = tiers.SizeOf(tier);
  ASSERT_LT(tier, kMaxTiers) << bytes;
  ASSERT_GE(size, bytes);
  if (tier != 0) {
    ASSERT_LT(tiers.SizeOf(tier - 1), bytes) << "a smaller tier would do";
  }
  ASSERT_EQ(size % kMinBlock, 0u) << bytes;
  // At most one step of its doubling is wasted, or the rounding to 256 B.
  const size_t wasted = size - bytes;
  ASSERT_TRUE(wasted < kMinBlock || wasted * tiers.steps() < bytes) << bytes << " in " << size;
  const size_t rounded = tiers.RoundedBytes(bytes);
  ASSERT_GE(rounded, bytes);
  if (size < kLargeGranule) {
    ASSERT_EQ(rounded, size);
  } else {
    ASSERT_EQ(rounded % kLargeGranule, 0u) << bytes;
    ASSERT_LT(rounded - bytes, kLargeGranule) << bytes;
    ASSERT_LE(rounded, (size + kLargeGranule - 1) / kLargeGranule * kLargeGranule);
  }
}

TEST_P(TiersTest, EverySizeUpToFourMiBIsServed) {
  for (size_t bytes = 1; bytes <= 4 * kMiB; ++bytes) {
    // Every size near a multiple of 256 B, and one inside: nothing happens between.
    if (bytes % kMinBlock > 2 && bytes % kMinBlock != 100 && bytes % kMinBlock != 255) continue;
    ASSERT_NO_FATAL_FAILURE(ExpectServed(tiers_, bytes));
  }
}

TEST_P(TiersTest, EverySizeByOneUpToATwentiethMiB) {
  for (size_t bytes = 1; bytes <= kMiB / 20; ++bytes) {
    ASSERT_NO_FATAL_FAILURE(ExpectServed(tiers_, bytes));
  }
}

TEST_P(TiersTest, EdgesOfEveryTierAreServed) {
  const unsigned last = tiers_.TierOf((size_t{1} << 47) - 1);
  for (unsigned tier = 0; tier <= last; ++tier) {
    const size_t size = tiers_.SizeOf(tier);
    ASSERT_EQ(tiers_.TierOf(size), tier);
    ASSERT_EQ(tiers_.TierOf(size - kMinBlock + 1), tier) << "the lowest size of tier " << tier;
    ASSERT_NO_FATAL_FAILURE(ExpectServed(tiers_, size));
    ASSERT_NO_FATAL_FAILURE(ExpectServed(tiers_, size - 1));
    if (tier != last) {
      ASSERT_EQ(tiers_.TierOf(size + 1), tier + 1);
      ASSERT_NO_FATAL_FAILURE(ExpectServed(tiers_, size + 1));
    }
  }
}

TEST_P(TiersTest, RandomLargeSizesAreServed) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 100000; ++i) {
    const size_t bytes = (random() >> (17 + random() % 40)) + 1;
    ASSERT_NO_FATAL_FAILURE(ExpectServed(tiers_, bytes % ((size_t{1} << 47) - 1) + 1));
  }
}

TEST_P(TiersTest, TwoMiBIsATierAndSmallTiersAreARange) {
  const unsigned large = tiers_.TierOf(kLargeGranule);
  EXPECT_EQ(tiers_.SizeOf(large), kLargeGranule);
  EXPECT_LE(large, kMaxSmallTiers);
  for (unsigned tier = 0; tier < large; ++tier) EXPECT_LT(tiers_.SizeOf(tier), kLargeGranule);
}

TEST_P(TiersTest, EveryDoublingHasItsSteps) {
  for (size_t from = tiers_.steps() * kMinBlock; from < (size_t{1} << 40); from *= 2) {
    EXPECT_EQ(tiers_.TierOf(2 * from) - tiers_.TierOf(from), tiers_.steps()) << from;
  }
}

INSTANTIATE_TEST_SUITE_P(Steps, TiersTest, testing::Values(1u, 2u, 4u, 8u, 16u));

TEST(TiersOfDesignTest, FourSteps) {
  const Tiers tiers(4);
  const std::vector<size_t> sizes = {256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2560, 3072};
  for (unsigned tier = 0; tier < sizes.size(); ++tier) EXPECT_EQ(tiers.SizeOf(tier), sizes[tier]);
}

TEST(TiersOfDesignTest, OneStep) {
  const Tiers tiers(1);
  for (unsigned tier = 0; tier < 20; ++tier) EXPECT_EQ(tiers.SizeOf(tier), size_t{256} << tier);
}

TEST(TiersOfDesignTest, FromTwoMiBUpTheRequestIsRoundedToTwoMiB) {
  const Tiers tiers(4);
  EXPECT_EQ(tiers.RoundedBytes(2 * kMiB), 2 * kMiB);
  EXPECT_EQ(tiers.RoundedBytes(2 * kMiB + 1), 4 * kMiB);
  EXPECT_EQ(tiers.RoundedBytes(33 * kMiB), 34 * kMiB);
  EXPECT_EQ(tiers.RoundedBytes(kGiB - 1), kGiB);
  EXPECT_EQ(tiers.RoundedBytes(1792 * kKiB), 1792 * kKiB);
  EXPECT_EQ(tiers.RoundedBytes(1792 * kKiB + 1), 2 * kMiB);
}

}  // namespace
}  // namespace cmp
