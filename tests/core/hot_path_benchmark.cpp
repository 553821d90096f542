// What the pool itself costs: pairs of alloc and free as an entry point makes them, over a device
// that costs nothing, beside malloc and free of the C library in the same run.
//
//   cmp_hot_path_benchmark [THREADS]      up to THREADS threads, by default as many as there are
//   CPUs
//
// "pair": free at once. "burst": 64 allocations, then their frees, oldest first. Best of five runs.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "core/pool/pool.h"
#include "fake_device.h"

namespace cmp {
namespace {

constexpr size_t kBurst = 64;

// The steps of cudaMalloc and cudaFree below their entry points, without CUDA.
class PoolAllocator {
 public:
  PoolAllocator() : api_(device_) {
    device_.KeepNoLists();
    const Options options;
    pool_ = Pool::Create(options, MapPages(Pool::StatisticsBytes(options)), 1, "benchmark");
    context_ = pool_->OpenContext({kHandle, 1, 0, true}).get();
  }
  uintptr_t Alloc(size_t bytes) {
    if (const DeviceAddress address = pool_->AllocHit(kHandle, bytes)) return address;
    return pool_->Alloc(*context_, bytes, api_).address;
  }
  void Free(uintptr_t address) {
    Block* block = pool_->Find(address);
    if (block == nullptr || !pool_->TakeLive(block, address)) return;
    if (!pool_->RetireHitElsewhere(block)) pool_->Retire(block, kReady, api_);
  }

 private:
  static inline const ContextHandle kHandle = reinterpret_cast<ContextHandle>(uintptr_t{0x1000});
  test::FakeDevice device_;
  test::FakeApi api_;
  Pool* pool_;
  ContextPool* context_;
};

class LibcAllocator {
 public:
  uintptr_t Alloc(size_t bytes) {
    void* memory = std::malloc(bytes);
    __asm__ volatile("" : "+r"(memory) : : "memory");  // the pair must not be optimised away
    return reinterpret_cast<uintptr_t>(memory);
  }
  void Free(uintptr_t address) { std::free(reinterpret_cast<void*>(address)); }
};

template <typename Allocator>
void Pairs(Allocator& allocator, size_t bytes, size_t pairs, bool burst) {
  if (!burst) {
    for (size_t i = 0; i < pairs; ++i) allocator.Free(allocator.Alloc(bytes));
    return;
  }
  uintptr_t held[kBurst];
  for (size_t i = 0; i < pairs / kBurst; ++i) {
    for (uintptr_t& address : held) address = allocator.Alloc(bytes);
    for (const uintptr_t address : held) allocator.Free(address);
  }
}

// Nanoseconds of one thread's pair, the best of five runs.
template <typename Allocator>
double Measure(Allocator& allocator, size_t bytes, unsigned thread_count, bool burst) {
  const size_t pairs = bytes > 64 * kKiB ? 20000 : 300000;
  double best = 1e30;
  for (int run = 0; run < 5; ++run) {
    std::atomic<unsigned> ready{0};
    std::vector<double> nanoseconds(thread_count);
    std::vector<std::thread> threads;
    for (unsigned number = 0; number < thread_count; ++number) {
      threads.emplace_back([&, number] {
        Pairs(allocator, bytes, pairs / 10, burst);  // warm
        ready.fetch_add(1);
        while (ready.load() < thread_count) std::this_thread::yield();
        const auto begin = std::chrono::steady_clock::now();
        Pairs(allocator, bytes, pairs, burst);
        const std::chrono::duration<double, std::nano> took =
            std::chrono::steady_clock::now() - begin;
        nanoseconds[number] = took.count() / static_cast<double>(pairs);
      });
    }
    for (std::thread& thread : threads) thread.join();
    best = std::min(best, *std::max_element(nanoseconds.begin(), nanoseconds.end()));
  }
  return best;
}

}  // namespace
}  // namespace cmp

int main(int argc, char** argv) {
  using namespace cmp;
  const unsigned most = argc > 1 ? static_cast<unsigned>(std::max(1, std::atoi(argv[1])))
                                 : std::max(1u, std::thread::hardware_concurrency());
  auto* pool = new PoolAllocator;  // a pool is never destroyed
  LibcAllocator libc;
  std::printf("%8s %8s %8s %12s %12s %8s\n", "pattern", "bytes", "threads", "pool ns", "malloc ns",
              "ratio");
  for (const bool burst : {false, true}) {
    for (const size_t bytes : {size_t{256}, 4 * kKiB, 64 * kKiB, kMiB, 4 * kMiB}) {
      for (unsigned threads = 1;; threads = std::min(2 * threads, most)) {
        const double of_pool = Measure(*pool, bytes, threads, burst);
        const double of_libc = Measure(libc, bytes, threads, burst);
        std::printf("%8s %8zu %8u %12.1f %12.1f %8.2f\n", burst ? "burst" : "pair", bytes, threads,
                    of_pool, of_libc, of_pool / of_libc);
        if (threads == most) break;
      }
    }
  }
  return 0;
}
