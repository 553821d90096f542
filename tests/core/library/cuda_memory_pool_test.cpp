// The public class, over the simulated driver.
#include "core/cuda_memory_pool.h"

#include <cuda.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <set>
#include <thread>
#include <vector>

#include "fresh_process.h"
#include "sim.h"

// Older and newer headers mean different functions by cuCtxCreate.
extern "C" CUresult cuCtxCreate_v2(CUcontext* context, unsigned flags, CUdevice device);

namespace {

using cmp::test::AddressOf;
using cmp::test::ExpectInFreshProcess;

constexpr size_t kMiB = size_t{1} << 20;

void* At(void* pointer, size_t offset) { return static_cast<char*>(pointer) + offset; }
// Whether the driver knows `pointer` as the base of an allocation of its own.
bool IsAllocation(void* pointer) {
  CUdeviceptr base = 0;
  size_t bytes = 0;
  return cuMemGetAddressRange(&base, &bytes, AddressOf(pointer)) == CUDA_SUCCESS &&
         base == AddressOf(pointer);
}

class CudaMemoryPoolTest : public testing::Test {
 protected:
  CudaMemoryPoolTest() {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    pool_.ReleaseThreadCaches();
    simReset();
    before_ = pool_.Statistics();
  }
  ~CudaMemoryPoolTest() override {
    EXPECT_EQ(simHazardCount(), 0u) << simHazardReport();
    EXPECT_EQ(simMisuseCount(), 0u) << simMisuseReport();
  }
  // Frees something that must be refused, with one line on stderr.
  void ExpectRefused(void* pointer) {
    const uint64_t real_frees = simCallCount("cuMemFree_v2");
    testing::internal::CaptureStderr();
    EXPECT_FALSE(pool_.Free(pointer));
    const std::string line = testing::internal::GetCapturedStderr();
    EXPECT_NE(line.find("cmp: "), std::string::npos);
    EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1) << line;
    EXPECT_EQ(simCallCount("cuMemFree_v2"), real_frees) << "nothing else may happen";
  }

  CudaMemoryPool& pool_ = CudaMemoryPool::Instance();
  CudaMemoryPoolStatistics before_ = {};
};

TEST_F(CudaMemoryPoolTest, TheFourLinesOfTheHeader) {
  CudaMemoryPool& pool = CudaMemoryPool::Instance();
  void* p = pool.Alloc(1000);
  ASSERT_NE(p, nullptr);
  EXPECT_TRUE(IsAllocation(p));
  EXPECT_EQ(cuMemsetD8(AddressOf(p), 1, 1000), CUDA_SUCCESS);
  EXPECT_TRUE(pool.Free(p, 1000));
  EXPECT_EQ(pool.ReleaseAll(), 0u);
  EXPECT_GT(pool.ReleaseThreadCaches(), 0u);
  EXPECT_FALSE(IsAllocation(p));
}

TEST_F(CudaMemoryPoolTest, ThereIsOneInstance) {
  EXPECT_EQ(&CudaMemoryPool::Instance(), &CudaMemoryPool::Instance());
}

TEST_F(CudaMemoryPoolTest, NoBytesAreNoMemory) {
  EXPECT_EQ(pool_.Alloc(0), nullptr);
  EXPECT_EQ(pool_.Statistics().requests, before_.requests);
}

TEST_F(CudaMemoryPoolTest, FreeingNullDoesNothing) {
  testing::internal::CaptureStderr();
  EXPECT_TRUE(pool_.Free(nullptr));
  EXPECT_TRUE(pool_.Free(nullptr, 100));
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(pool_.Statistics().frees, before_.frees);
}

TEST_F(CudaMemoryPoolTest, BlocksAreAlignedAndDisjoint) {
  std::set<std::pair<CUdeviceptr, size_t>> blocks;
  for (size_t bytes = 1; bytes < 40 * kMiB; bytes = bytes * 3 / 2 + 1) {
    void* p = pool_.Alloc(bytes);
    ASSERT_NE(p, nullptr) << bytes;
    EXPECT_EQ(AddressOf(p) % 256, 0u);
    blocks.emplace(AddressOf(p), bytes);
  }
  CUdeviceptr end = 0;
  for (const auto& [address, bytes] : blocks) {
    EXPECT_GE(address, end);
    end = address + bytes;
    EXPECT_TRUE(pool_.Free(reinterpret_cast<void*>(address)));
  }
}

TEST_F(CudaMemoryPoolTest, AFreedBlockIsServedAgainWithoutARealCall) {
  for (const size_t bytes : {size_t{1000}, 5 * kMiB}) {
    void* p = pool_.Alloc(bytes);
    ASSERT_TRUE(pool_.Free(p));
    const uint64_t calls = simCallCount("cuMemAlloc_v2");
    for (int i = 0; i < 10; ++i) {
      ASSERT_EQ(pool_.Alloc(bytes), p);
      ASSERT_TRUE(pool_.Free(p));
    }
    EXPECT_EQ(simCallCount("cuMemAlloc_v2"), calls);
  }
}

TEST_F(CudaMemoryPoolTest, FreeWaitsForTheWorkOfTheContext) {
  void* p = pool_.Alloc(4 * kMiB);
  ASSERT_NE(p, nullptr);
  simNoteAlloc(p, 4 * kMiB);
  CUstream stream = nullptr;
  ASSERT_EQ(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
  const SimRange written = {p, 4 * kMiB};
  SimWork work = {};
  work.id = 1;
  work.duration_ns = 1000000;
  work.writes = &written;
  work.write_count = 1;
  ASSERT_EQ(simLaunch(stream, &work), CUDA_SUCCESS);
  EXPECT_EQ(simPendingCount(nullptr), 1u);
  simNoteFree(p);
  EXPECT_TRUE(pool_.Free(p));
  EXPECT_EQ(simPendingCount(nullptr), 0u);
  cuStreamDestroy(stream);
}

TEST_F(CudaMemoryPoolTest, AWrongNumberOfBytesIsHarmless) {
  for (const size_t hint : {size_t{0}, size_t{1}, size_t{100000}, ~size_t{0}}) {
    void* p = pool_.Alloc(1000);
    ASSERT_NE(p, nullptr);
    EXPECT_TRUE(pool_.Free(p, hint));
    EXPECT_EQ(pool_.Alloc(1000), p);
    EXPECT_TRUE(pool_.Free(p));
  }
  EXPECT_EQ(pool_.Statistics().live_block_bytes, before_.live_block_bytes);
}

TEST_F(CudaMemoryPoolTest, ADoubleFreeIsReportedAndHarmless) {
  for (const size_t bytes : {size_t{1000}, 4 * kMiB}) {
    void* p = pool_.Alloc(bytes);
    ASSERT_TRUE(pool_.Free(p));
    ExpectRefused(p);
    ExpectRefused(p);
    EXPECT_EQ(pool_.Alloc(bytes), p);
    void* other = pool_.Alloc(bytes);
    EXPECT_NE(other, p);
    EXPECT_TRUE(pool_.Free(p));
    EXPECT_TRUE(pool_.Free(other));
  }
}

TEST_F(CudaMemoryPoolTest, AFreeOfReleasedMemoryIsReported) {
  void* p = pool_.Alloc(1000);
  ASSERT_TRUE(pool_.Free(p));
  pool_.ReleaseThreadCaches();
  ExpectRefused(p);
}

TEST_F(CudaMemoryPoolTest, ForeignPointersAreReportedAndLeftAlone) {
  CUdeviceptr foreign = 0;
  ASSERT_TRUE(pool_.Free(pool_.Alloc(1)));  // a context is current from here on
  ASSERT_EQ(cuMemAlloc(&foreign, 4096), CUDA_SUCCESS);
  ExpectRefused(reinterpret_cast<void*>(foreign));
  EXPECT_TRUE(IsAllocation(reinterpret_cast<void*>(foreign)));
  EXPECT_EQ(cuMemFree(foreign), CUDA_SUCCESS);
  int on_the_stack = 0;
  ExpectRefused(&on_the_stack);
  ExpectRefused(reinterpret_cast<void*>(1));
  ExpectRefused(reinterpret_cast<void*>(~uintptr_t{0}));
}

TEST_F(CudaMemoryPoolTest, InteriorPointersAreReportedAndTheBlockStaysInUse) {
  for (const size_t bytes : {size_t{1000}, 6 * kMiB}) {
    void* p = pool_.Alloc(bytes);
    ExpectRefused(At(p, 1));
    ExpectRefused(At(p, 256));
    ExpectRefused(At(p, bytes - 1));
    EXPECT_TRUE(pool_.Free(p));
  }
}

TEST_F(CudaMemoryPoolTest, FailuresSayWhy) {
  EXPECT_EQ(pool_.Alloc(size_t{1} << 45), nullptr);
  EXPECT_EQ(pool_.last_status(), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(pool_.Alloc(~size_t{0}), nullptr);
  EXPECT_NE(pool_.last_status(), 0);
  EXPECT_EQ(pool_.Statistics().failed_allocations, before_.failed_allocations + 2);
  std::thread([&] { EXPECT_EQ(pool_.last_status(), 0) << "another thread's failure"; }).join();
}

TEST_F(CudaMemoryPoolTest, IdleMemoryIsNoReasonToFail) {
  // 1 GiB is what the simulated device has.
  void* p = pool_.Alloc(700 * kMiB);
  ASSERT_NE(p, nullptr);
  ASSERT_TRUE(pool_.Free(p));
  void* q = pool_.Alloc(900 * kMiB);
  EXPECT_NE(q, nullptr);
  EXPECT_TRUE(pool_.Free(q));
}

TEST_F(CudaMemoryPoolTest, ReleaseAllLeavesThreadCachesAlone) {
  void* small = pool_.Alloc(1000);
  void* large = pool_.Alloc(8 * kMiB);
  ASSERT_TRUE(pool_.Free(small));
  ASSERT_TRUE(pool_.Free(large));
  EXPECT_EQ(pool_.ReleaseAll(), 8 * kMiB);
  EXPECT_EQ(pool_.ReleaseAll(), 0u);
  const size_t cached = pool_.Statistics().ready_bytes;
  EXPECT_GE(cached, 1024u);
  EXPECT_EQ(cached % 1024, 0u);  // other tests may have got the tier past its slow start
  EXPECT_EQ(pool_.ReleaseThreadCaches(), cached);
  EXPECT_EQ(pool_.ReleaseThreadCaches(), 0u);
  EXPECT_EQ(pool_.Statistics().reserved_bytes, 0u);
}

TEST_F(CudaMemoryPoolTest, StatisticsSayWhatHappened) {
  void* p = pool_.Alloc(1000);
  EXPECT_TRUE(pool_.Free(p));
  EXPECT_EQ(pool_.Alloc(1000), p);
  const CudaMemoryPoolStatistics s = pool_.Statistics();
  EXPECT_EQ(s.requests - before_.requests, 2u);
  EXPECT_EQ(s.refills - before_.refills, 1u);
  EXPECT_EQ(s.thread_cache_hits - before_.thread_cache_hits, 1u);
  EXPECT_EQ(s.frees - before_.frees, 1u);
  EXPECT_EQ(s.live_blocks, 1u);
  EXPECT_EQ(s.live_requested_bytes, 1000u);
  EXPECT_EQ(s.live_block_bytes, 1024u);
  EXPECT_EQ(s.reserved_bytes, s.live_block_bytes + s.ready_bytes + s.retired_bytes);
  EXPECT_GE(s.reserved_peak_bytes, s.reserved_bytes);
  EXPECT_TRUE(pool_.Free(p));
}

TEST_F(CudaMemoryPoolTest, TiersAreToldAndSumUp) {
  const unsigned tiers = pool_.tier_count();
  ASSERT_GT(tiers, 10u);
  EXPECT_EQ(pool_.tier_bytes(0), 256u);
  for (unsigned tier = 1; tier < tiers; ++tier) {
    ASSERT_GT(pool_.tier_bytes(tier), pool_.tier_bytes(tier - 1));
  }
  void* p = pool_.Alloc(1000);
  unsigned of_p = 0;
  while (pool_.tier_bytes(of_p) < 1000) ++of_p;
  EXPECT_EQ(pool_.Statistics(of_p).live_blocks, 1u);
  uint64_t requests = 0;
  for (unsigned tier = 0; tier < tiers; ++tier) requests += pool_.Statistics(tier).requests;
  EXPECT_EQ(requests, pool_.Statistics().requests);
  EXPECT_EQ(pool_.Statistics(tiers).requests, 0u) << "a tier that does not exist";
  EXPECT_TRUE(pool_.Free(p));
}

TEST_F(CudaMemoryPoolTest, ThreadsShareThePool) {
  void* p = nullptr;
  std::thread([&] {
    p = pool_.Alloc(1000);
    EXPECT_NE(p, nullptr) << "a thread without a context gets the primary one";
  }).join();
  EXPECT_TRUE(pool_.Free(p));
  std::thread([&] {
    void* q = pool_.Alloc(1000);
    EXPECT_NE(q, p) << "it is in the first thread's cache";
    EXPECT_TRUE(pool_.Free(q));
  }).join();
  EXPECT_EQ(pool_.Statistics().live_blocks, before_.live_blocks);
}

TEST_F(CudaMemoryPoolTest, AForkedChildStartsEmptyAndLeavesTheParentsBlocksAlone) {
  void* live = pool_.Alloc(1000);
  void* idle = pool_.Alloc(2000);
  ASSERT_TRUE(pool_.Free(idle));
  const pid_t child = fork();
  if (child == 0) {
    const CudaMemoryPoolStatistics s = pool_.Statistics();
    int wrong = 0;
    wrong |= s.requests != 0 || s.reserved_bytes != 0 ? 1 : 0;
    // CUDA does not work in the child of a process that used it, and the pool says so.
    wrong |= pool_.Alloc(2000) != nullptr ? 2 : 0;
    wrong |= pool_.last_status() == 0 ? 4 : 0;
    wrong |= pool_.Free(live) ? 8 : 0;
    wrong |= pool_.Free(idle) ? 16 : 0;
    wrong |= pool_.ReleaseThreadCaches() != 0 ? 32 : 0;
    _exit(wrong);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(pool_.Alloc(2000), idle) << "the parent's pool goes on";
  EXPECT_TRUE(pool_.Free(idle));
  EXPECT_TRUE(pool_.Free(live));
}

using CudaMemoryPoolDeathTest = CudaMemoryPoolTest;

TEST_F(CudaMemoryPoolDeathTest, NothingHappensInAProcessThatOnlyAsks) {
  ExpectInFreshProcess([] {
    // The fixture asked already: no context, no driver call, no memory.
    CudaMemoryPool& pool = CudaMemoryPool::Instance();
    return pool.ReleaseAll() == 0 && pool.Free(nullptr) && pool.last_status() == 0 &&
           simCallCount("cuInit") == 0 && simCallCount("cuMemAlloc_v2") == 0;
  });
}

TEST_F(CudaMemoryPoolDeathTest, SettingsAreReadAtTheFirstUse) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  setenv("CMP_TIER_STEPS", "1", 1);
  setenv("CMP_FILL", "0xAB", 1);
  ExpectInFreshProcess([] {
    CudaMemoryPool& pool = CudaMemoryPool::Instance();
    if (pool.tier_bytes(2) != 1024) return false;
    for (const size_t bytes : {size_t{1000}, 3 * kMiB}) {
      for (int round = 0; round < 2; ++round) {  // new, then recycled
        void* p = pool.Alloc(bytes);
        std::vector<unsigned char> back(bytes);
        if (cuMemcpyDtoH(back.data(), AddressOf(p), bytes) != CUDA_SUCCESS) return false;
        if (std::count(back.begin(), back.end(), 0xAB) != static_cast<ptrdiff_t>(bytes)) {
          return false;
        }
        cuMemsetD8(AddressOf(p), 1, bytes);
        if (!pool.Free(p)) return false;
      }
    }
    return true;
  });
  unsetenv("CMP_TIER_STEPS");
  unsetenv("CMP_FILL");
}

TEST_F(CudaMemoryPoolDeathTest, ABlockWhoseRealFreeIsRefusedStaysInUse) {
  setenv("CMP_MAX_BLOCK", "64K", 1);
  ExpectInFreshProcess([] {
    CudaMemoryPool& pool = CudaMemoryPool::Instance();
    for (const bool wait : {true, false}) {
      void* p = pool.Alloc(128 * 1024);
      const auto free = [&] { return wait ? pool.Free(p) : pool.FreeWithoutWait(p); };
      simFailFrom("cuMemFree_v2", 1, CUDA_ERROR_NOT_PERMITTED);
      const bool refused = !free();
      simFailNever();
      if (!refused || !IsAllocation(p) || pool.Statistics().live_blocks != 1) return false;
      if (!free() || IsAllocation(p) || pool.Statistics().live_blocks != 0) return false;
    }
    return true;
  });
  unsetenv("CMP_MAX_BLOCK");
}

// Does the body hold in a process with this setting, and not in one without it?
void ExpectOnlyWith(const char* name, const char* value, const std::function<bool()>& body) {
  setenv(name, value, 1);
  EXPECT_EXIT(_exit(body() ? 0 : 1), testing::ExitedWithCode(0), "") << name;
  unsetenv(name);
  EXPECT_EXIT(_exit(body() ? 0 : 1), testing::ExitedWithCode(1), "") << name;
}

void AllocAndFree(size_t bytes) {
  CudaMemoryPool& pool = CudaMemoryPool::Instance();
  pool.Free(pool.Alloc(bytes));
}

// Every setting that the header names has its effect here, too.
TEST_F(CudaMemoryPoolDeathTest, MaxBlock) {
  ExpectOnlyWith("CMP_MAX_BLOCK", "64K", [] {
    AllocAndFree(128 * 1024);
    return CudaMemoryPool::Instance().Statistics().oversized == 1;
  });
}

TEST_F(CudaMemoryPoolDeathTest, TierSteps) {
  ExpectOnlyWith("CMP_TIER_STEPS", "1",
                 [] { return CudaMemoryPool::Instance().tier_bytes(2) == 1024; });
}

TEST_F(CudaMemoryPoolDeathTest, ThreadCacheMaxBlock) {
  ExpectOnlyWith("CMP_THREAD_CACHE_MAX_BLOCK", "4K", [] {
    CudaMemoryPool& pool = CudaMemoryPool::Instance();
    std::vector<void*> blocks;
    for (int i = 0; i < 20; ++i) blocks.push_back(pool.Alloc(8192));
    for (void* block : blocks) pool.Free(block);
    return pool.ReleaseAll() >= 20 * 8192;  // what is on the shelves of tiers stays
  });
}

TEST_F(CudaMemoryPoolDeathTest, ThreadCacheBytes) {
  ExpectOnlyWith("CMP_THREAD_CACHE_BYTES", "16K", [] {
    CudaMemoryPool& pool = CudaMemoryPool::Instance();
    std::vector<void*> blocks;
    for (int i = 0; i < 100; ++i) blocks.push_back(pool.Alloc(4096));
    for (void* block : blocks) pool.Free(block);
    return pool.ReleaseAll() > 200 * 1024;  // what threads' caches hold stays
  });
}

TEST_F(CudaMemoryPoolDeathTest, BatchBytes) {
  ExpectOnlyWith("CMP_BATCH_BYTES", "1", [] {
    CudaMemoryPool& pool = CudaMemoryPool::Instance();
    for (int i = 0; i < 20; ++i) pool.Alloc(4096);
    return pool.Statistics().blocks_made == 20;
  });
}

TEST_F(CudaMemoryPoolDeathTest, Slack) {
  ExpectOnlyWith("CMP_SLACK", "0%", [] {
    AllocAndFree(20 * kMiB);
    AllocAndFree(17 * kMiB);
    return CudaMemoryPool::Instance().Statistics().refills == 2;
  });
}

TEST_F(CudaMemoryPoolDeathTest, Reserve) {
  ExpectOnlyWith("CMP_RESERVE", "1x", [] {
    AllocAndFree(64 * kMiB);
    AllocAndFree(100 * kMiB);
    return CudaMemoryPool::Instance().Statistics().reserved_bytes <= 100 * kMiB;
  });
}

TEST_F(CudaMemoryPoolDeathTest, Decay) {
  setenv("CMP_DECAY", "20ms", 1);
  ExpectInFreshProcess([] {
    CudaMemoryPool& pool = CudaMemoryPool::Instance();
    AllocAndFree(10 * kMiB);
    for (int i = 0; i < 10000 && pool.Statistics().blocks_released == 0; ++i) {
      usleep(1000);
      AllocAndFree(4096);
    }
    return pool.Statistics().blocks_released > 0;
  });
  unsetenv("CMP_DECAY");
}

TEST_F(CudaMemoryPoolDeathTest, FreeSync) {
  for (const char* value : {"none", "order"}) {
    ExpectOnlyWith("CMP_FREE_SYNC", value, [] {
      CudaMemoryPool& pool = CudaMemoryPool::Instance();
      void* p = pool.Alloc(4096);
      CUstream stream = nullptr;
      SimWork work = {};
      work.duration_ns = 500000000;
      return cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING) == CUDA_SUCCESS &&
             simLaunch(stream, &work) == CUDA_SUCCESS && pool.Free(p) &&
             simPendingCount(nullptr) != 0;
    });
  }
}

TEST_F(CudaMemoryPoolDeathTest, Fill) {
  ExpectOnlyWith("CMP_FILL", "0xAB", [] {
    unsigned char first = 0;
    void* p = CudaMemoryPool::Instance().Alloc(1000);
    return cuMemcpyDtoH(&first, AddressOf(p), 1) == CUDA_SUCCESS && first == 0xAB;
  });
}

// The others are the preload's, and the line says so.
TEST_F(CudaMemoryPoolDeathTest, SettingsOfThePreloadDoNothingAndThatIsSaid) {
  const struct {
    const char* name;
    const char* value;
    const char* unset;  // a value that asks for nothing
  } cases[] = {{"CMP_MODE", "off", "pool"},
               {"CMP_PROGRAMS", "other", ""},
               {"CMP_STATS", "/nowhere/stats", "off"},
               {"CMP_TRACE", "/nowhere/trace", "off"},
               {"CMP_SHAKE", "record", "off"},
               {"CMP_VERBOSE", "1", "0"}};
  const auto reuses = [] {
    CudaMemoryPool& pool = CudaMemoryPool::Instance();
    void* p = pool.Alloc(1000);
    return pool.Free(p) && pool.Alloc(1000) == p;
  };
  for (const auto& [name, value, unset] : cases) {
    setenv(name, value, 1);
    EXPECT_EXIT(_exit(reuses() ? 0 : 1), testing::ExitedWithCode(0),
                "^cmp: " + std::string(name) + " does nothing without the preload\n$");
    setenv(name, unset, 1);
    EXPECT_EXIT(_exit(reuses() ? 0 : 1), testing::ExitedWithCode(0), "^$");
    unsetenv(name);
  }
}

TEST_F(CudaMemoryPoolDeathTest, EveryContextHasItsOwnBlocks) {
  ExpectInFreshProcess([] {
    CudaMemoryPool& pool = CudaMemoryPool::Instance();
    void* of_primary = pool.Alloc(1000);
    if (!pool.Free(of_primary)) return false;
    CUcontext other = nullptr;
    if (cuCtxCreate_v2(&other, 0, 0) != CUDA_SUCCESS) return false;
    void* of_other = pool.Alloc(1000);
    CUcontext owner = nullptr;
    if (cuPointerGetAttribute(&owner, CU_POINTER_ATTRIBUTE_CONTEXT, AddressOf(of_other)) !=
            CUDA_SUCCESS ||
        owner != other) {
      return false;
    }
    CUcontext popped = nullptr;
    cuCtxPopCurrent(&popped);
    // The other context's block, freed under the primary one.
    return pool.Free(of_other) && pool.Alloc(1000) == of_primary;
  });
}

// Found by reading: the caches that a thread remembers are not asked for their context's id.
TEST_F(CudaMemoryPoolDeathTest, AfterAResetOfThePrimaryContextNothingStaleIsHandedOut) {
  ExpectInFreshProcess([] {
    CudaMemoryPool& pool = CudaMemoryPool::Instance();
    void* stale = pool.Alloc(1000);
    if (!pool.Free(stale)) return false;
    CUcontext context = nullptr;
    if (cuDevicePrimaryCtxReset(0) != CUDA_SUCCESS ||
        cuDevicePrimaryCtxRetain(&context, 0) != CUDA_SUCCESS ||
        cuCtxSetCurrent(context) != CUDA_SUCCESS) {
      return false;
    }
    void* p = pool.Alloc(1000);
    return p != nullptr && IsAllocation(p);
  });
}

// Found by reading: the driver gives the addresses of the idle blocks out again, to the program.
TEST_F(CudaMemoryPoolDeathTest, AfterAResetNothingOfTheProgramsIsReleased) {
  ExpectInFreshProcess([] {
    CudaMemoryPool& pool = CudaMemoryPool::Instance();
    void* stale = pool.Alloc(4 * kMiB);
    if (!pool.Free(stale)) return false;
    CUcontext context = nullptr;
    CUdeviceptr mine = 0;
    if (cuDevicePrimaryCtxReset(0) != CUDA_SUCCESS ||
        cuDevicePrimaryCtxRetain(&context, 0) != CUDA_SUCCESS ||
        cuCtxSetCurrent(context) != CUDA_SUCCESS || cuMemAlloc(&mine, 4 * kMiB) != CUDA_SUCCESS) {
      return false;
    }
    return mine == AddressOf(stale) && pool.ReleaseAll() == 0 &&
           IsAllocation(reinterpret_cast<void*>(mine)) && pool.Statistics().reserved_bytes == 0;
  });
}

// Nor of a context that was destroyed, while another one is short of memory.
TEST_F(CudaMemoryPoolDeathTest, WhenMemoryIsShortContextsThatMayBeGoneAreLeftAlone) {
  ExpectInFreshProcess([] {
    CudaMemoryPool& pool = CudaMemoryPool::Instance();
    if (pool.Alloc(1000) == nullptr) return false;  // the primary context's pool
    CUcontext other = nullptr;
    CUcontext popped = nullptr;
    if (cuCtxCreate_v2(&other, 0, 0) != CUDA_SUCCESS) return false;
    void* stale = pool.Alloc(4 * kMiB);
    CUdeviceptr mine = 0;
    if (!pool.Free(stale) || cuCtxPopCurrent(&popped) != CUDA_SUCCESS ||
        cuCtxDestroy(other) != CUDA_SUCCESS || cuMemAlloc(&mine, 4 * kMiB) != CUDA_SUCCESS) {
      return false;
    }
    return mine == AddressOf(stale) && pool.Alloc(size_t{1} << 45) == nullptr &&
           IsAllocation(reinterpret_cast<void*>(mine));
  });
}

// What Alloc got from a real call, because there is no pool for the context, Free takes back too.
TEST_F(CudaMemoryPoolDeathTest, MemoryOfAContextWithoutAPoolIsFreedToo) {
  ExpectInFreshProcess([] {
    CudaMemoryPool& pool = CudaMemoryPool::Instance();
    if (cuInit(0) != CUDA_SUCCESS) return false;
    for (int i = 0; i < 260; ++i) {  // more than there are places
      CUcontext context = nullptr;
      if (cuCtxCreate_v2(&context, 0, 0) != CUDA_SUCCESS) return false;
      void* p = pool.Alloc(1000);
      if (p == nullptr || !pool.Free(p)) return false;
    }
    return true;
  });
}

}  // namespace
