// Many threads on one pool, at random: mixed sizes, pointers handed between threads, threads that
// end half-way, releases and failing real calls all the while; and contexts that end under them.
//
// The seed is printed; CMP_TEST_SEED=N runs another one. CMP_TEST_ROUNDS=N runs N seeds from there.
// The threads' interleaving is the system's, so one seed is not one run.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <random>
#include <set>
#include <thread>
#include <unordered_map>
#include <vector>

#include "pool_fixture.h"

namespace cmp {
namespace {

uint64_t FromEnvironment(const char* name, uint64_t fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::strtoull(text, nullptr, 0);
}

// What the program holds: every address at most once.
class Holdings {
 public:
  // False: somebody holds it already.
  [[nodiscard]] bool Take(DeviceAddress address, size_t bytes) {
    Shard& shard = ShardOf(address);
    const std::lock_guard guard(shard.lock);
    return shard.held.emplace(address, bytes).second;
  }
  // False: nobody holds it.
  [[nodiscard]] bool GiveUp(DeviceAddress address) {
    Shard& shard = ShardOf(address);
    const std::lock_guard guard(shard.lock);
    return shard.held.erase(address) == 1;
  }

 private:
  struct Shard {
    std::mutex lock;
    std::unordered_map<DeviceAddress, size_t> held;
  };
  Shard& ShardOf(DeviceAddress address) { return shards_[(address >> 9) % 64]; }
  Shard shards_[64];
};

// Pointers on their way from one thread to another.
class Mailbox {
 public:
  void Put(DeviceAddress address) {
    const std::lock_guard guard(lock_);
    letters_.push_back(address);
  }
  DeviceAddress Take(uint64_t random) {
    const std::lock_guard guard(lock_);
    if (letters_.empty()) return 0;
    std::swap(letters_[random % letters_.size()], letters_.back());
    const DeviceAddress address = letters_.back();
    letters_.pop_back();
    return address;
  }

 private:
  std::mutex lock_;
  std::vector<DeviceAddress> letters_;
};

struct Stress {
  explicit Stress(const Options& options, size_t capacity) : t(options, capacity) {
    t.device.KeepNoLists();
    contexts[0] = t.context;
    contexts[1] = t.OpenAnother();
  }

  void Fail(const char* what) {
    failures.fetch_add(1);
    std::fprintf(stderr, "%s\n", what);
  }

  void Free(DeviceAddress address) {
    if (!holdings.GiveUp(address)) Fail("a pointer was freed that nobody holds");
    if (!t.FreeAddress(address)) Fail("the pool does not know a block in use");
  }

  // One worker's life, which ends in the middle of things: what it holds goes to the mailbox.
  void Work(uint64_t seed, int steps) {
    std::mt19937_64 random(seed);
    std::vector<DeviceAddress> mine;
    for (int step = 0; step < steps; ++step) {
      const uint64_t what = random() % 100;
      if (what < 45 && mine.size() < 40) {
        // 256 B to 16 MiB, every doubling equally likely; sometimes the same size again and again.
        const unsigned shift = static_cast<unsigned>(what < 15 ? seed % 10 : random() % 17);
        const size_t bytes = (size_t{256} << shift) - random() % (size_t{128} << shift);
        Block* block = t.AllocIn(*contexts[random() % 8 == 0 ? 1 : 0], bytes);
        if (block == nullptr) continue;  // the device was told to fail
        if (block->bytes < bytes) Fail("a block is too small");
        if (!holdings.Take(block->address, bytes)) Fail("a block was handed out twice");
        if (t.device.BytesAt(block->address) != block->bytes) Fail("a block is not an allocation");
        mine.push_back(block->address);
      } else if (what < 80 && !mine.empty()) {
        std::swap(mine[random() % mine.size()], mine.back());
        Free(mine.back());
        mine.pop_back();
      } else if (what < 87 && !mine.empty()) {
        mail.Put(mine.back());
        mine.pop_back();
      } else if (what < 97) {
        if (const DeviceAddress address = mail.Take(random())) Free(address);
      } else if (what < 99 && !mine.empty()) {
        if (!t.pool->Unpool(mine.back())) Fail("a block in use could not be unpooled");
      } else {
        std::this_thread::yield();
      }
    }
    for (const DeviceAddress address : mine) mail.Put(address);
  }

  // Releases while the others go on.
  void ReleaseNowAndThen(uint64_t seed) {
    std::mt19937_64 random(seed);
    while (!stop.load()) {
      if (random() % 2 == 0) {
        t.pool->ReleaseAll(t.api);
      } else {
        t.pool->ReleaseThreadCaches(t.api);
      }
      (void)StatisticsOf(*t.pool);
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 2000));
    }
  }

  // Real allocations fail at random, now more, now less.
  void FailNowAndThen(uint64_t seed) {
    std::mt19937_64 random(seed);
    while (!stop.load()) {
      t.device.FailRandomly(random() % 3 == 0 ? 0.3 : 0.01, random());
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 3000));
    }
    t.device.FailRandomly(0, 0);
  }

  test::TestPool t;
  ContextPool* contexts[2];
  Holdings holdings;
  Mailbox mail;
  std::atomic<bool> stop{false};
  std::atomic<int> failures{0};
};

void RunStress(uint64_t seed) {
  SCOPED_TRACE(testing::Message() << "CMP_TEST_SEED=" << seed);
  std::printf("CMP_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  Options options;
  options.reserve = {1.1, 16 * kMiB};
  options.max_block = 12 * kMiB;  // the largest requests are oversized
  options.thread_cache_bytes = seed % 3 == 0 ? kMiB : 8 * kMiB;
  options.tier_steps = seed % 2 == 0 ? 1 : 4;
  Stress stress(options, 400 * kMiB);

  std::thread releaser([&] { stress.ReleaseNowAndThen(seed); });
  std::thread failer([&] { stress.FailNowAndThen(seed + 1); });
  // Six at a time; each one that ends makes room for the next.
  std::atomic<int> next_worker{0};
  std::vector<std::thread> seats;
  for (int seat = 0; seat < 6; ++seat) {
    seats.emplace_back([&] {
      for (int worker = next_worker.fetch_add(1); worker < 30; worker = next_worker.fetch_add(1)) {
        const uint64_t its_seed = seed * 1000 + static_cast<uint64_t>(worker);
        std::thread([&] {
          stress.Work(its_seed, 500 + static_cast<int>(its_seed % 7) * 400);
        }).join();
      }
    });
  }
  for (std::thread& seat : seats) seat.join();
  stress.stop.store(true);
  releaser.join();
  failer.join();

  // The rest comes back, by this thread.
  while (const DeviceAddress address = stress.mail.Take(0)) stress.Free(address);
  // One more free pays what the last allocation may have left over the bound.
  test::TestPool& t = stress.t;
  for (ContextPool* context : stress.contexts) {
    Block* block = t.AllocIn(*context, 100);
    ASSERT_NE(block, nullptr);
    ASSERT_TRUE(t.Free(block));
    EXPECT_LE(context->accounts().reserved(), context->accounts().bound());
    EXPECT_EQ(context->accounts().reserved(), context->CountIdle().ready);
    EXPECT_TRUE(context->open());
  }
  EXPECT_EQ(stress.failures.load(), 0);
  test::ExpectAtRest(t);
  const CudaMemoryPoolStatistics s = t.Statistics();
  EXPECT_GT(s.thread_cache_hits, 0u);
  EXPECT_GT(s.global_pool_hits, 0u);
  EXPECT_GT(s.oversized, 0u);
  EXPECT_GT(t.pool->statistics().process().out_of_memory_rescues.Get(), 0u);
  EXPECT_EQ(s.real_malloc_calls, t.device.allocate_calls());
  EXPECT_EQ(s.real_free_calls, t.device.release_calls());
  EXPECT_EQ(t.pool->ReleaseThreadCaches(t.api), s.reserved_bytes);
  EXPECT_EQ(t.device.live_count(), 0u);
  EXPECT_EQ(t.Statistics().reserved_bytes, 0u);
  EXPECT_EQ(t.pool->ReleasableBytes(0), 0u);
}

// Threads allocate and free in contexts that others drop, whose records the next contexts use: no
// address is handed out twice, and at the end every count is back at nothing. The device never
// gives the memory of a dropped context out again, so an address that two hold is the pool's doing.
struct ContextStress {
  static constexpr size_t kContexts = 3;

  ContextStress() {
    t.device.KeepNoLists();
    for (size_t i = 0; i < kContexts; ++i) {
      handles[i] = test::FreshHandle();
      Open(i);
    }
  }

  // The next context of a handle.
  void Open(size_t i) {
    const uint64_t id = t.NextId();
    const HeldContext context = t.pool->OpenContext({handles[i], id, 0, false});
    if (!context) failures.fetch_add(1);
    records.insert(context.get());
    ids[i].store(id);
  }
  void Drop(size_t i) {
    if (HeldContext context = t.pool->FindContext(handles[i], ids[i].load())) {
      t.pool->DropContext(*context);
    }
  }

  void Work(uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<DeviceAddress> mine;
    while (!stop.load()) {
      const size_t which = random() % kContexts;
      if (random() % 2 == 0 && mine.size() < 60) {
        const size_t bytes = random() % 4 == 0 ? 3 * kMiB : 1 + random() % 2000;
        DeviceAddress address = t.pool->AllocHit(handles[which], bytes);
        if (address == 0) address = AllocIn(which, bytes);
        if (address == 0) continue;
        if (!holdings.Take(address, bytes)) failures.fetch_add(1);
        mine.push_back(address);
      } else if (!mine.empty()) {
        std::swap(mine[random() % mine.size()], mine.back());
        if (!holdings.GiveUp(mine.back())) failures.fetch_add(1);
        t.FreeAddress(mine.back());  // not known any more if its context has ended
        mine.pop_back();
      }
    }
  }

  // As the entry points do it. Held, a context is the one that was found, and its blocks are its.
  DeviceAddress AllocIn(size_t which, size_t bytes) {
    const uint64_t id = ids[which].load();
    const HeldContext context = t.pool->FindContext(handles[which], id);
    if (!context) return 0;
    const DeviceAddress address = t.pool->Alloc(*context, bytes, t.api).address;
    const Block* block = t.pool->Find(address);
    const ContextPool* owner = block == nullptr ? nullptr : block->owner();
    if (owner != nullptr && owner != context.get() && t.pool->Find(address) == block) {
      failures.fetch_add(1);
    }
    if (context->identity().id != id) failures.fetch_add(1);
    return address;
  }

  test::TestPool t;
  ContextHandle handles[kContexts];
  std::atomic<uint64_t> ids[kContexts];
  std::set<ContextPool*> records;  // of the thread that opens and drops
  Holdings holdings;
  std::atomic<bool> stop{false};
  std::atomic<int> failures{0};
};

void RunContextStress(uint64_t seed) {
  SCOPED_TRACE(testing::Message() << "CMP_TEST_SEED=" << seed);
  ContextStress stress;
  std::vector<std::thread> workers;
  for (uint64_t i = 0; i < 6; ++i) workers.emplace_back([&, i] { stress.Work(seed * 100 + i); });
  std::mt19937_64 random(seed);
  for (int i = 0; i < 150; ++i) {
    const size_t which = random() % ContextStress::kContexts;
    stress.Drop(which);
    stress.Open(which);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 500));
  }
  stress.stop.store(true);
  for (std::thread& worker : workers) worker.join();
  stress.t.pool->ForEachContext([&](ContextPool& context) { stress.t.pool->DropContext(context); });
  EXPECT_EQ(stress.failures.load(), 0) << "handed out twice, or by another context";
  EXPECT_LT(stress.records.size(), 150u) << "no record was used again";
  EXPECT_EQ(stress.t.pool->ReleasableBytes(0), 0u);
  const CudaMemoryPoolStatistics s = stress.t.Statistics();
  EXPECT_EQ(s.reserved_bytes, 0u);
  EXPECT_EQ(s.live_blocks, 0u);
  EXPECT_EQ(s.live_requested_bytes, 0u);
  EXPECT_EQ(s.live_block_bytes, 0u);
}

void ForEverySeed(void (*run)(uint64_t seed)) {
  const uint64_t first = FromEnvironment("CMP_TEST_SEED", 20260722);
  const uint64_t rounds = FromEnvironment("CMP_TEST_ROUNDS", 8);
  for (uint64_t seed = first; seed < first + rounds && !testing::Test::HasFailure(); ++seed) {
    run(seed);
  }
}

TEST(StressTest, ManyThreadsOnOnePool) { ForEverySeed(&RunStress); }
TEST(StressTest, ContextsEndUnderThreads) { ForEverySeed(&RunContextStress); }

}  // namespace
}  // namespace cmp
