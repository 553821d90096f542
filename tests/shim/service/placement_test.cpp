#include "shim/service/placement.h"

#include <gtest/gtest.h>

namespace cmp {
namespace {

constexpr DeviceAddress kChunk = 0x7f0000200000;

struct Case {
  DeviceAddress address;
  size_t bytes;
  size_t requested;
};

void Fill(Block& block, const Case& one) {
  block.address = one.address;
  block.bytes = one.bytes;
  block.requested = one.requested;
}

CUipcMemHandle HandleWith(uint64_t bytes, uint32_t pages, uint32_t offset) {
  CUipcMemHandle handle;
  memset(&handle, 0x77, sizeof handle);
  const IpcHandleFields fields{bytes, pages, offset};
  memcpy(reinterpret_cast<char*>(&handle) + 16, &fields, sizeof fields);
  return handle;
}

TEST(PlacementTest, AHandleTellsTheSizeThatWasAskedFor) {
  for (const Case& one : {Case{kChunk + 0x101000, 5120, 5000}, Case{kChunk, 1024, 1},
                          Case{kChunk, 6 * kMiB, 5 * kMiB}, Case{kChunk, 2 * kMiB, 2 * kMiB - 1}}) {
    Block block;
    Fill(block, one);
    const auto pages = static_cast<uint32_t>(RoundedUp(one.bytes, 2 * kMiB) / 4096);
    const auto offset = static_cast<uint32_t>(one.address - kChunk);
    CUipcMemHandle handle = HandleWith(one.bytes, pages, offset);
    const CUipcMemHandle wanted = HandleWith(one.requested, pages, offset);
    CorrectIpcHandle(block, &handle);
    EXPECT_EQ(memcmp(&handle, &wanted, sizeof handle), 0);
  }
}

TEST(PlacementTest, AHandleOfAnotherLayoutIsLeftAlone) {
  Block block;
  Fill(block, {kChunk + 0x101000, 5120, 5000});
  for (const CUipcMemHandle& drivers :
       {HandleWith(5121, 512, 0x101000), HandleWith(5000, 512, 0x101000),
        HandleWith(5120, 513, 0x101000), HandleWith(5120, 512, 0x101200), HandleWith(5120, 512, 0),
        HandleWith(5120, 0, 0x101000)}) {
    CUipcMemHandle handle = drivers;
    CorrectIpcHandle(block, &handle);
    EXPECT_EQ(memcmp(&handle, &drivers, sizeof handle), 0);
  }
}

TEST(PlacementTest, AMappingIsThatOfTheRequest) {
  Block block;
  Fill(block, {kChunk, 18 * kMiB, 16 * kMiB});
  EXPECT_EQ(CorrectedMappingBytes(block, 18 * kMiB), 16 * kMiB);
  EXPECT_EQ(CorrectedMappingBytes(block, 32 * kMiB), 32 * kMiB);
  Fill(block, {kChunk, 18 * kMiB, 16 * kMiB + 1});
  EXPECT_EQ(CorrectedMappingBytes(block, 18 * kMiB), 18 * kMiB);
  Fill(block, {kChunk + 1024, 1024, 1000});
  EXPECT_EQ(CorrectedMappingBytes(block, 2 * kMiB), 2 * kMiB);
  Fill(block, {kChunk, 2 * kMiB, 2 * kMiB - 1});
  EXPECT_EQ(CorrectedMappingBytes(block, 2 * kMiB), 2 * kMiB);
}

TEST(PlacementTest, ABlockWithItsOwnMemoryHasAnotherIdEachTime) {
  Block block;
  Fill(block, {kChunk, 4 * kMiB, 0});
  block.GiveToProgram(3 * kMiB);
  const uint64_t first = CorrectedMemoryBlockId(block, 5);
  EXPECT_EQ(CorrectedMemoryBlockId(block, 5), first);
  block.GiveToProgram(3 * kMiB);
  EXPECT_GT(CorrectedMemoryBlockId(block, 5), first);
  Fill(block, {kChunk, 1024, 0});
  block.GiveToProgram(1000);
  EXPECT_EQ(CorrectedMemoryBlockId(block, 5), 5u);
}

TEST(PlacementTest, AnExportEndsWithTheMappingOfTheRequest) {
  Block block;
  Fill(block, {kChunk + 4096, 6 * 4096, 5 * 4096});
  EXPECT_EQ(ExportableEnd(block), kChunk + 2 * kMiB);
  Fill(block, {kChunk, 6 * kMiB, 3 * kMiB});
  EXPECT_EQ(ExportableEnd(block), kChunk + 4 * kMiB);
}

}  // namespace
}  // namespace cmp
