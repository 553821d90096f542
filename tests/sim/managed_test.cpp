// Managed memory: where it is, what it takes of the device, what makes it move.
#include <vector>

#include "test_device.h"

namespace cmp::sim {
namespace {

class Managed : public SimTest {
 protected:
  void SetUp() override {
    SimTest::SetUp();
    stream_ = NewStream();
    room_ = Free();
  }

  static size_t Free() {
    size_t bytes = 0;
    size_t total = 0;
    EXPECT_EQ(cuMemGetInfo(&bytes, &total), CUDA_SUCCESS);
    return bytes;
  }
  // Leaves `bytes` of the device free.
  void LeaveFree(size_t bytes) { NewBlock(Free() - bytes); }
  static CUdeviceptr NewManaged(size_t bytes) {
    CUdeviceptr managed = 0;
    EXPECT_EQ(cuMemAllocManaged(&managed, bytes, CU_MEM_ATTACH_GLOBAL), CUDA_SUCCESS);
    return managed;
  }
  // A kernel that reads and writes all of it.
  void Use(CUdeviceptr managed, size_t bytes) {
    const SimRange range{Word(managed), bytes};
    SimWork work{};
    work.reads = work.writes = &range;
    work.read_count = work.write_count = 1;
    work.effect = [](void*) {};
    ASSERT_EQ(simLaunch(stream_, &work), CUDA_SUCCESS);
    ASSERT_EQ(cuStreamSynchronize(stream_), CUDA_SUCCESS);
  }
  struct Counts {
    uint64_t migrations;
    uint64_t evictions;
    uint64_t remote_uses;
    bool operator==(const Counts&) const = default;
  };
  static Counts Seen() {
    return {simManagedMigrations(0), simManagedEvictions(0), simManagedRemoteUses(0)};
  }

  CUstream stream_ = nullptr;
  size_t room_ = 0;
};

TEST_F(Managed, ComesWhenTheDeviceUsesIt) {
  const CUdeviceptr managed = NewManaged(10 * kMiB);
  EXPECT_EQ(Free(), room_);
  Use(managed + 3 * kMiB, 2 * kMiB);  // parts of two granules
  EXPECT_EQ(Free(), room_ - 4 * kMiB);
  Use(managed, 10 * kMiB);
  Use(managed, 10 * kMiB);
  EXPECT_EQ(Free(), room_ - 10 * kMiB);
  EXPECT_EQ(Seen(), (Counts{5, 0, 0}));
  ASSERT_EQ(cuMemFree(managed), CUDA_SUCCESS);
  EXPECT_EQ(Free(), room_);
  EXPECT_EQ(Seen(), (Counts{5, 0, 0}));
}

TEST_F(Managed, ComesWithASetOrACopyToo) {
  const CUdeviceptr managed = NewManaged(4 * kMiB);
  const CUdeviceptr block = NewBlock(2 * kMiB);
  ASSERT_EQ(cuMemsetD8(managed, 1, 16), CUDA_SUCCESS);
  ASSERT_EQ(cuMemcpyDtoD(block, managed + 2 * kMiB, 16), CUDA_SUCCESS);
  ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(Seen(), (Counts{2, 0, 0}));
}

TEST_F(Managed, ComesOnlyOnceItsKernelHasRun) {
  const CUdeviceptr managed = NewManaged(2 * kMiB);
  LaunchHash(stream_, 1, 10 * kMillisecond, {{Word(managed), 8}}, {});
  EXPECT_EQ(Seen(), (Counts{0, 0, 0}));
  ASSERT_EQ(cuStreamSynchronize(stream_), CUDA_SUCCESS);
  EXPECT_EQ(Seen(), (Counts{1, 0, 0}));
}

TEST_F(Managed, ComesAndGoesByPrefetches) {
  const CUdeviceptr managed = NewManaged(8 * kMiB);
  CUmemLocation place{};
  const auto prefetch = [&](CUmemLocationType type, size_t bytes) {
    place.type = type;
#if CUDA_VERSION >= 13000
    ASSERT_EQ(cuMemPrefetchAsync(managed, bytes, place, 0, stream_), CUDA_SUCCESS);
#else
    const CUdevice to = type == CU_MEM_LOCATION_TYPE_HOST ? CU_DEVICE_CPU : 0;
    ASSERT_EQ(cuMemPrefetchAsync(managed, bytes, to, stream_), CUDA_SUCCESS);
#endif
    ASSERT_EQ(cuStreamSynchronize(stream_), CUDA_SUCCESS);
  };
  prefetch(CU_MEM_LOCATION_TYPE_DEVICE, 8 * kMiB);
  EXPECT_EQ(Free(), room_ - 8 * kMiB);
  prefetch(CU_MEM_LOCATION_TYPE_HOST, 4 * kMiB);
  EXPECT_EQ(Free(), room_ - 4 * kMiB);
  EXPECT_EQ(Seen(), (Counts{4, 0, 0}));
  Use(managed, 8 * kMiB);
  EXPECT_EQ(Seen(), (Counts{6, 0, 0}));
#if CUDA_VERSION >= 13000
  CUdeviceptr start = managed;
  size_t bytes = 8 * kMiB;
  size_t index = 0;
  place.type = CU_MEM_LOCATION_TYPE_HOST;
  ASSERT_EQ(cuMemPrefetchBatchAsync(&start, &bytes, 1, &place, &index, 1, 0, stream_),
            CUDA_SUCCESS);
  ASSERT_EQ(cuStreamSynchronize(stream_), CUDA_SUCCESS);
  EXPECT_EQ(Free(), room_);
#endif
  ASSERT_EQ(cuStreamAttachMemAsync(stream_, managed, 0, CU_MEM_ATTACH_GLOBAL), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamSynchronize(stream_), CUDA_SUCCESS);
  EXPECT_EQ(Seen(), (Counts{6, 0, 0}));
}

TEST_F(Managed, WhatWasUsedLongestAgoMakesRoomForMore) {
  LeaveFree(8 * kMiB);
  const CUdeviceptr managed = NewManaged(10 * kMiB);
  Use(managed, 8 * kMiB);
  Use(managed, 2 * kMiB);             // the first one is no longer the one used longest ago
  Use(managed + 8 * kMiB, 2 * kMiB);  // in place of the second
  EXPECT_EQ(Seen(), (Counts{5, 1, 0}));
  Use(managed, 2 * kMiB);
  EXPECT_EQ(Seen(), (Counts{5, 1, 0}));
  Use(managed + 2 * kMiB, 2 * kMiB);
  EXPECT_EQ(Seen(), (Counts{6, 2, 0}));
  EXPECT_EQ(Free(), 0U);
}

TEST_F(Managed, LargerThanTheDeviceItMovesInEveryPass) {
  LeaveFree(8 * kMiB);
  const CUdeviceptr managed = NewManaged(10 * kMiB);
  for (int pass = 0; pass < 3; ++pass) Use(managed, 10 * kMiB);
  EXPECT_EQ(Seen(), (Counts{15, 11, 0}));
}

TEST_F(Managed, MakesRoomForBlocks) {
  LeaveFree(8 * kMiB);
  const CUdeviceptr managed = NewManaged(6 * kMiB);
  Use(managed, 6 * kMiB);
  const CUdeviceptr block = NewBlock(4 * kMiB);
  EXPECT_EQ(Seen(), (Counts{3, 1, 0}));
  CUdeviceptr more = 0;
  EXPECT_EQ(cuMemAlloc(&more, 6 * kMiB), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(Seen(), (Counts{3, 1, 0}));  // which would not have sufficed
  ASSERT_EQ(cuMemFree(block), CUDA_SUCCESS);
  Use(managed, 6 * kMiB);
  EXPECT_EQ(Seen(), (Counts{4, 1, 0}));
  NewBlock(512);  // in a chunk of the last 2 MiB
  EXPECT_EQ(Seen(), (Counts{4, 1, 0}));
  NewBlock(512);
  EXPECT_EQ(Seen(), (Counts{4, 1, 0}));
  NewBlock(2 * kMiB);
  EXPECT_EQ(Seen(), (Counts{4, 2, 0}));
}

TEST_F(Managed, StaysOnTheHostWhereBlocksLeaveNoRoom) {
  LeaveFree(0);
  const CUdeviceptr managed = NewManaged(4 * kMiB);
  Use(managed, 4 * kMiB);
  Use(managed, 4 * kMiB);
  EXPECT_EQ(Seen(), (Counts{0, 0, 4}));
  simReset();
  EXPECT_EQ(Seen(), (Counts{0, 0, 0}));
}

TEST_F(Managed, EndsWithItsContext) {
  Use(NewManaged(4 * kMiB), 4 * kMiB);
  ASSERT_EQ(cudaDeviceReset(), cudaSuccess);
  ASSERT_EQ(cudaSetDevice(0), cudaSuccess);
  EXPECT_EQ(simUsedBytes(0), 0U);
}

}  // namespace
}  // namespace cmp::sim
