// Many threads allocate and free blocks of mixed sizes, some of them another thread's, and kernels
// write and check every block. work THREADS STEPS SEED
#include <mutex>
#include <thread>
#include <vector>

#include "program.h"

namespace {

struct Block {
  void* pointer = nullptr;
  size_t bytes = 0;
  uint64_t seed = 0;
};

std::atomic<uint64_t> g_wrong{0};
std::atomic<uint64_t> g_allocations{0};
std::atomic<uint64_t> g_checked{0};  // a sum: independent of who freed what
std::mutex g_lock;
std::vector<Block> g_mailbox;

size_t RandomSize(program::Random& random) {
  switch (random.Below(16)) {
    case 0:
      return 1 + random.Below(3 << 20);
    case 1:
    case 2:
      return 1 + random.Below(512 << 10);
    default:
      return size_t{1} << random.Below(17);
  }
}

void Free(const Block& block, cudaStream_t stream) {
  program::LaunchCheck(stream, block.pointer, block.bytes, block.seed, &g_wrong, 20000);
  g_checked += program::Mix(block.seed ^ block.bytes);
  if (block.seed % 3 == 0) MUST(cudaStreamSynchronize(stream));
  simNoteFree(block.pointer);
  MUST(cudaFree(block.pointer));
}

void Work(uint64_t seed, int steps) {
  program::Random random(seed);
  const cudaStream_t stream = program::NonBlockingStream();
  std::vector<Block> blocks(24);
  for (int step = 0; step < steps; ++step) {
    Block& block = blocks[random.Below(blocks.size())];
    const uint64_t choice = random.Below(8);
    const size_t bytes = RandomSize(random);
    if (block.pointer == nullptr) {
      block = {nullptr, bytes, random.Next()};
      MUST(cudaMalloc(&block.pointer, bytes));
      simNoteAlloc(block.pointer, bytes);
      ++g_allocations;
      program::LaunchWrite(stream, block.pointer, bytes, block.seed, 10000);
    } else if (choice == 0) {
      // Another thread, on another stream, checks and frees it.
      MUST(cudaStreamSynchronize(stream));
      const std::lock_guard<std::mutex> guard(g_lock);
      g_mailbox.push_back(block);
      block = {};
    } else {
      Free(block, stream);
      block = {};
      if (choice == 1) {
        Block others;
        {
          const std::lock_guard<std::mutex> guard(g_lock);
          if (g_mailbox.empty()) continue;
          others = g_mailbox.back();
          g_mailbox.pop_back();
        }
        Free(others, stream);
      }
    }
  }
  for (const Block& block : blocks) {
    if (block.pointer != nullptr) Free(block, stream);
  }
  MUST(cudaStreamDestroy(stream));
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 4) return 2;
  const int threads = atoi(arguments[1]);
  const int steps = atoi(arguments[2]);
  const uint64_t seed = strtoull(arguments[3], nullptr, 0);
  std::vector<std::thread> all;
  for (int i = 0; i < threads; ++i) all.emplace_back(Work, seed * 1000 + i, steps);
  for (std::thread& thread : all) thread.join();
  for (const Block& block : g_mailbox) Free(block, nullptr);
  MUST(cudaDeviceSynchronize());
  printf("allocations %llu, checked %016llx, wrong words %llu, last error %d\n",
         static_cast<unsigned long long>(g_allocations), static_cast<unsigned long long>(g_checked),
         static_cast<unsigned long long>(g_wrong), static_cast<int>(cudaPeekAtLastError()));
  program::SayHazards();
  printf("# real %llu %llu\n", static_cast<unsigned long long>(program::RealAllocations()),
         static_cast<unsigned long long>(program::RealFrees()));
  return 0;
}
