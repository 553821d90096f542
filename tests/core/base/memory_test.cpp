#include "core/base/memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

namespace cmp {
namespace {

TEST(MapPagesTest, PagesAreZeroedAndWritable) {
  const size_t bytes = 3 * kMiB;
  auto* pages = static_cast<unsigned char*>(MapPages(bytes));
  ASSERT_NE(pages, nullptr);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(pages) % 4096, 0u);
  EXPECT_EQ(std::count(pages, pages + bytes, 0), static_cast<ptrdiff_t>(bytes));
  pages[0] = pages[bytes - 1] = 1;
}

TEST(MapPagesTest, TooMuchIsNullptr) { EXPECT_EQ(MapPages(size_t{1} << 60), nullptr); }

TEST(ArenaTest, MemoryIsZeroedAlignedAndDisjoint) {
  Arena arena;
  std::vector<std::pair<unsigned char*, size_t>> parts;
  // Sizes around the arena's own steps: odd ones, a quarter of a chunk (mapped alone), more.
  for (const size_t bytes : {1, 63, 64, 65, 1000, 4096, 100000, 262143, 262144, 262145, 2000000}) {
    for (int times = 0; times < 5; ++times) {
      auto* memory = static_cast<unsigned char*>(arena.Allocate(bytes));
      ASSERT_NE(memory, nullptr);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % 64, 0u);
      EXPECT_TRUE(std::all_of(memory, memory + bytes, [](unsigned char c) { return c == 0; }));
      std::memset(memory, 0xFF, bytes);
      parts.emplace_back(memory, bytes);
    }
  }
  std::sort(parts.begin(), parts.end());
  for (size_t i = 1; i < parts.size(); ++i) {
    EXPECT_LE(parts[i - 1].first + parts[i - 1].second, parts[i].first);
  }
}

TEST(ArenaTest, TooMuchIsNullptrAndTheArenaGoesOn) {
  Arena arena;
  EXPECT_EQ(arena.Allocate(size_t{1} << 60), nullptr);
  EXPECT_NE(arena.Allocate(100), nullptr);
}

TEST(ArenaTest, NewConstructs) {
  struct Part {
    explicit Part(int value) : doubled(2 * value) {}
    int doubled;
    int one = 1;
  };
  Arena arena;
  const Part* part = arena.New<Part>(21);
  ASSERT_NE(part, nullptr);
  EXPECT_EQ(part->doubled, 42);
  EXPECT_EQ(part->one, 1);
}

TEST(BlockRecordsTest, RecordsAreDistinctAndTheTakers) {
  Arena arena;
  BlockSlabs slabs(arena);
  BlockRecords records(slabs);
  std::set<Block*> taken;
  for (int i = 0; i < 1000; ++i) {
    Block* block = records.Take();
    ASSERT_NE(block, nullptr);
    EXPECT_EQ(block->state.load(), BlockState::kUnused);
    EXPECT_EQ(block->next, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(block) % 64, 0u);
    EXPECT_TRUE(taken.insert(block).second);
  }
}

TEST(BlockRecordsTest, ReturnedRecordsAreTakenAgain) {
  Arena arena;
  BlockSlabs slabs(arena);
  BlockRecords records(slabs);
  Block* first = records.Take();
  Block* second = records.Take();
  records.Return(first);
  records.Return(second);
  const std::set<Block*> again = {records.Take(), records.Take()};
  EXPECT_EQ(again, (std::set<Block*>{first, second}));
}

TEST(BlockRecordsTest, SlabsOfWhatEndedAreUsedAgainUnlessSomebodyHasARecordOfThem) {
  Arena arena;
  BlockSlabs slabs(arena);
  Block* kept = nullptr;
  std::set<Block*> first;
  {
    BlockRecords records(slabs);
    for (size_t i = 0; i < BlockSlab::kBlocks * 3; ++i) first.insert(records.Take());
    kept = *first.begin();
    records.End([&](Block* block) {
      block->state.store(BlockState::kUnused);
      return block != kept;
    });
    EXPECT_EQ(records.Take(), nullptr) << "it has ended";
  }
  BlockRecords records(slabs);
  int again = 0;
  for (size_t i = 0; i < BlockSlab::kBlocks * 3; ++i) {
    Block* block = records.Take();
    EXPECT_NE(block, kept);
    again += first.count(block) != 0 ? 1 : 0;
  }
  EXPECT_EQ(again, static_cast<int>(BlockSlab::kBlocks * 2));
}

TEST(BlockRecordsTest, ThreadsNeverShareARecord) {
  Arena arena;
  BlockSlabs slabs(arena);
  BlockRecords records(slabs);
  std::vector<std::thread> threads;
  std::atomic<int> shared{0};
  for (uintptr_t number = 1; number <= 4; ++number) {
    threads.emplace_back([&, number] {
      std::vector<Block*> mine;
      for (int i = 0; i < 5000; ++i) {
        if (i % 3 != 2) {
          mine.push_back(records.Take());
          mine.back()->address = number;
        } else {
          if (mine.back()->address != number) shared.fetch_add(1);
          records.Return(mine.back());
          mine.pop_back();
        }
      }
      for (Block* block : mine) {
        if (block->address != number) shared.fetch_add(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(shared.load(), 0);
}

}  // namespace
}  // namespace cmp
