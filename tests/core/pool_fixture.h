// A pool of its own over a fake device, for one test.
//
// What a thread remembers outlives a pool, so every fixture uses context handles that no other
// fixture had, and the test's thread forgets what it remembers at the end.
#ifndef CMP_TESTS_CORE_POOL_FIXTURE_H_
#define CMP_TESTS_CORE_POOL_FIXTURE_H_

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <thread>

#include "core/library/pool_face.h"
#include "core/pool/pool.h"
#include "fake_device.h"

namespace cmp::test {

// A handle that was never used before.
inline ContextHandle FreshHandle() {
  static std::atomic<uintptr_t> last{0x10000};
  return reinterpret_cast<ContextHandle>(last.fetch_add(0x40));
}

// Runs `body` on a thread of its own, to its end.
template <typename Body>
void OnAnotherThread(Body body) {
  std::thread(body).join();
}

class TestPool {
 public:
  explicit TestPool(const Options& options = {}, size_t capacity = FakeDevice::kPlenty,
                    const PoolHost& host = kBlindHost)
      : device(capacity), api(device), page_bytes_(Pool::StatisticsBytes(options)) {
    page_ = MapPages(page_bytes_);
    pool = Pool::Create(options, page_, static_cast<uint64_t>(getpid()), "test", host);
    identity = {FreshHandle(), next_id_.fetch_add(1), 0, true};
    context = pool->OpenContext(identity).get();
  }
  ~TestPool() {
    EXPECT_EQ(device.wrong_releases(), 0u) << "the pool freed something twice";
    Pool::ThreadExit();
    Pool::ForgetThread();
    munmap(page_, page_bytes_);  // pool and context stay mapped: a pool is never destroyed
  }
  TestPool(const TestPool&) = delete;
  TestPool& operator=(const TestPool&) = delete;

  // As an entry point does it: the hit path, then the other one.
  Block* Alloc(size_t bytes) { return AllocIn(*context, bytes); }
  Block* AllocIn(ContextPool& in, size_t bytes) {
    const DeviceAddress address = pool->AllocHit(in.identity().handle, bytes);
    return pool->Find(address != 0 ? address : pool->Alloc(in, bytes, api).address);
  }
  // False: not a block in use. A live block may be handed out once a fence above `stamp` passed.
  bool Free(Block* block, Stamp stamp = kReady) { return FreeAt(block, block->address, stamp); }
  // An address that the program could hold: by now another block may have the record.
  bool FreeAddress(DeviceAddress address) {
    Block* block = pool->Find(address);
    return block != nullptr && FreeAt(block, address, kReady);
  }
  ContextPool* OpenAnother(int on_device = 0) {
    return pool->OpenContext({FreshHandle(), next_id_.fetch_add(1), on_device, false}).get();
  }
  CudaMemoryPoolStatistics Statistics() { return StatisticsOf(*pool); }
  TierTotals Totals() { return pool->statistics().Totals(); }
  uint64_t NextId() { return next_id_.fetch_add(1); }

  FakeDevice device;
  FakeApi api;
  Pool* pool = nullptr;
  ContextIdentity identity;
  ContextPool* context = nullptr;

 private:
  bool FreeAt(Block* block, DeviceAddress address, Stamp stamp) {
    const bool live = pool->TakeLive(block, address);
    if (live && stamp == kReady && pool->RetireHitElsewhere(block)) return true;
    switch (live ? BlockState::kLive : pool->Take(block, address)) {
      case BlockState::kLive:
        pool->Retire(block, stamp, api);
        return true;
      case BlockState::kUnpooled:
        return pool->FreeReal(block, api) == kSuccess;
      default:
        return false;
    }
  }
  static inline std::atomic<uint64_t> next_id_{1};
  size_t page_bytes_;
  void* page_ = nullptr;
};

// The accounts of a pool at rest, whose program has nothing: all of it is idle or was freed.
inline void ExpectAtRest(TestPool& test) {
  const CudaMemoryPoolStatistics s = test.Statistics();
  EXPECT_EQ(s.live_blocks, 0u);
  EXPECT_EQ(s.live_requested_bytes, 0u);
  EXPECT_EQ(s.live_block_bytes, 0u);
  EXPECT_EQ(s.reserved_bytes, s.ready_bytes + s.retired_bytes);
  EXPECT_EQ(s.reserved_bytes, test.device.used());
  EXPECT_EQ(s.requests, s.thread_cache_hits + s.global_pool_hits + s.refills + s.oversized);
  EXPECT_EQ(s.requests, s.frees + s.real_frees);
  test.context->EmptyCaches();
  const Accounts& accounts = test.context->accounts();
  EXPECT_EQ(accounts.settled_live(), 0);
  EXPECT_EQ(accounts.slack(), 0u);
  EXPECT_EQ(accounts.settled_rounding(), 0);
  EXPECT_EQ(accounts.leaving(), 0u);
}

}  // namespace cmp::test

#endif  // CMP_TESTS_CORE_POOL_FIXTURE_H_
