#include "core/lists/large_shelf.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "core/base/memory.h"
#include "core/lists/side_table.h"

namespace cmp {
namespace {

class LargeShelfTest : public testing::Test {
 protected:
  static constexpr size_t kMost = 64 * kMiB;
  LargeShelfTest() { shelf_.Open(kMost); }

  Block* Idle(size_t bytes) {
    Block* block = records_.Take();
    block->bytes = bytes;
    block->state.store(BlockState::kIdle);
    return block;
  }
  // Puts a new block of that size; what leaves by it, the first to go first.
  std::vector<Block*> Put(Block* block) {
    Batch leaving;
    shelf_.Put(block, &leaving);
    std::vector<Block*> left;
    while (leaving.count != 0) left.push_back(leaving.Pop());
    return left;
  }
  std::vector<Block*> Close() {
    std::vector<Block*> all;
    shelf_.Close([&](Batch batch) {
      EXPECT_EQ(batch.count, 1u);
      EXPECT_EQ(batch.stamp, kReady);
      all.push_back(batch.head);
    });
    return all;
  }

  Arena arena_;
  BlockSlabs slabs_{arena_};
  BlockRecords records_{slabs_};
  LargeShelf shelf_;
};

TEST_F(LargeShelfTest, TakesTheNewestOfExactlyThatSize) {
  Block* four = Idle(4 * kMiB);
  Block* other_four = Idle(4 * kMiB);
  Block* six = Idle(6 * kMiB);
  for (Block* block : {four, other_four, six}) EXPECT_TRUE(Put(block).empty());
  EXPECT_EQ(shelf_.bytes(), 14 * kMiB);
  EXPECT_EQ(shelf_.Take(2 * kMiB), nullptr);
  EXPECT_EQ(shelf_.Take(5 * kMiB), nullptr);
  EXPECT_EQ(shelf_.Take(4 * kMiB), other_four);
  EXPECT_EQ(shelf_.Take(4 * kMiB), four);
  EXPECT_EQ(shelf_.Take(4 * kMiB), nullptr);
  EXPECT_EQ(shelf_.bytes(), 6 * kMiB);
  EXPECT_EQ(shelf_.Take(6 * kMiB), six);
  EXPECT_EQ(shelf_.bytes(), 0u);
}

TEST_F(LargeShelfTest, TheBestFitIsTheSmallestThatSuffices) {
  for (const size_t size : {20, 12, 8}) Put(Idle(size * kMiB));
  EXPECT_EQ(shelf_.BestFit(8 * kMiB, 8 * kMiB), 8 * kMiB);
  EXPECT_EQ(shelf_.BestFit(10 * kMiB, 20 * kMiB), 12 * kMiB);
  EXPECT_EQ(shelf_.BestFit(14 * kMiB, 18 * kMiB), 0u);
  EXPECT_EQ(shelf_.BestFit(2 * kMiB, 6 * kMiB), 0u);
  ASSERT_NE(shelf_.Take(12 * kMiB), nullptr);
  EXPECT_EQ(shelf_.BestFit(10 * kMiB, 20 * kMiB), 20 * kMiB);
}

TEST_F(LargeShelfTest, WhereAllSlotsAreFullTheOlderHalfLeaves) {
  std::vector<Block*> blocks;
  for (unsigned i = 0; i < LargeShelf::kSlots; ++i) {
    blocks.push_back(Idle((1 + i % 2) * 2 * kMiB));
    EXPECT_TRUE(Put(blocks.back()).empty());
  }
  blocks.push_back(Idle(2 * kMiB));
  const auto half = blocks.begin() + LargeShelf::kSlots / 2;
  EXPECT_EQ(Put(blocks.back()), std::vector<Block*>(blocks.begin(), half)) << "the oldest first";
  EXPECT_EQ(Close(), std::vector<Block*>(half, blocks.end()));
}

TEST_F(LargeShelfTest, TheOldestMakeRoomForBytesAndNoMoreThanNeeded) {
  Block* first = Idle(20 * kMiB);
  Block* second = Idle(20 * kMiB);
  Block* third = Idle(24 * kMiB);
  for (Block* block : {first, second, third}) EXPECT_TRUE(Put(block).empty());
  EXPECT_EQ(shelf_.bytes(), kMost);
  EXPECT_EQ(Put(Idle(2 * kMiB)), std::vector<Block*>{first});
  EXPECT_EQ(shelf_.bytes(), 46 * kMiB);
}

TEST_F(LargeShelfTest, ABlockThatIsTooLargeLeavesTheOthersAlone) {
  Block* kept = Idle(2 * kMiB);
  Put(kept);
  Block* large = Idle(kMost + 2 * kMiB);
  EXPECT_EQ(Put(large), std::vector<Block*>{large});
  Block* just = Idle(kMost);
  EXPECT_EQ(Put(just), std::vector<Block*>{kept});
  EXPECT_EQ(shelf_.bytes(), kMost);
}

TEST_F(LargeShelfTest, ClosedItIsEmpty) {
  Block* block = Idle(4 * kMiB);
  Put(block);
  EXPECT_TRUE(shelf_.is_open());
  EXPECT_EQ(Close(), std::vector<Block*>{block});
  EXPECT_FALSE(shelf_.is_open());
  EXPECT_EQ(shelf_.bytes(), 0u);
  EXPECT_EQ(shelf_.BestFit(0, kMost) + (shelf_.Take(4 * kMiB) == nullptr ? 0 : 1), 0u);
  EXPECT_TRUE(Close().empty());
  shelf_.Open(kMost);
  EXPECT_TRUE(Put(block).empty());
}

// Against a list that does the same slowly.
TEST_F(LargeShelfTest, NothingIsLostNorDoubled) {
  std::mt19937 random(1);
  std::vector<Block*> model;
  std::vector<Block*> outside;
  for (size_t i = 1; i <= 30; ++i) outside.push_back(Idle((1 + i % 10) * 2 * kMiB));
  for (int round = 0; round < 20000; ++round) {
    if (random() % 2 == 0 && !outside.empty()) {
      std::swap(outside[random() % outside.size()], outside.back());
      Block* block = outside.back();
      outside.pop_back();
      const std::vector<Block*> left = Put(block);
      model.push_back(block);
      ASSERT_LE(left.size(), model.size());
      for (size_t i = 0; i < left.size(); ++i) ASSERT_EQ(left[i], model[i]);
      model.erase(model.begin(), model.begin() + static_cast<std::ptrdiff_t>(left.size()));
      outside.insert(outside.end(), left.begin(), left.end());
    } else {
      const size_t bytes = (1 + random() % 10) * 2 * kMiB;
      auto newest = model.end();
      for (auto at = model.begin(); at != model.end(); ++at) {
        if ((*at)->bytes == bytes) newest = at;
      }
      Block* block = shelf_.Take(bytes);
      ASSERT_EQ(block, newest == model.end() ? nullptr : *newest);
      if (block == nullptr) continue;
      model.erase(newest);
      outside.push_back(block);
    }
    size_t sum = 0;
    for (const Block* block : model) sum += block->bytes;
    ASSERT_EQ(shelf_.bytes(), sum);
    ASSERT_LE(sum, kMost);
    ASSERT_LE(model.size(), LargeShelf::kSlots);
    ASSERT_EQ(model.size() + outside.size(), 30u);
  }
  EXPECT_EQ(Close(), model);
}

}  // namespace
}  // namespace cmp
