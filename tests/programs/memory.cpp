// Programs that run near full device memory. Every scenario fits, or fails, by the simulator's own
// accounting: small blocks share 2 MiB chunks, larger ones are whole multiples of 2 MiB.
#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "program.h"

using program::Say;

namespace {

constexpr size_t kMiB = size_t{1} << 20;

// Allocates blocks of one size until it fails; returns how many there are.
std::vector<void*> Fill(size_t bytes) {
  std::vector<void*> blocks;
  for (;;) {
    void* pointer = nullptr;
    const cudaError_t result = cudaMalloc(&pointer, bytes);
    if (result != cudaSuccess) {
      printf("%zu blocks of %zu bytes, then %d, last error %d, p %s\n", blocks.size(), bytes,
             static_cast<int>(result), static_cast<int>(cudaGetLastError()),
             pointer == nullptr ? "NULL" : "set");
      return blocks;
    }
    blocks.push_back(pointer);
  }
}

void FreeAll(std::vector<void*>& blocks) {
  for (void* block : blocks) MUST(cudaFree(block));
  blocks.clear();
}

// Fills the device with one size after the other.
void Sizes(int count, char** sizes) {
  for (int i = 0; i < count; ++i) {
    std::vector<void*> blocks = Fill(strtoull(sizes[i], nullptr, 0));
    FreeAll(blocks);
  }
}

// A random program that always stays within `limit` bytes, counted as the driver counts them.
void Mixed(size_t limit, uint64_t seed) {
  struct Block {
    void* pointer;
    size_t bytes;
  };
  program::Random random(seed);
  std::vector<Block> blocks;
  size_t used = 0;
  uint64_t failed = 0;
  for (int step = 0; step < 3000; ++step) {
    const size_t bytes = (1 + random.Below(limit / kMiB / 8)) * 2 * kMiB;
    while (used + bytes > limit) {
      const size_t index = random.Below(blocks.size());
      simNoteFree(blocks[index].pointer);
      MUST(cudaFree(blocks[index].pointer));
      used -= blocks[index].bytes;
      blocks[index] = blocks.back();
      blocks.pop_back();
    }
    void* pointer = nullptr;
    if (cudaMalloc(&pointer, bytes) != cudaSuccess) {
      ++failed;
      continue;
    }
    simNoteAlloc(pointer, bytes);
    used += bytes;
    blocks.push_back({pointer, bytes});
  }
  printf("failed: %llu, last error %d\n", static_cast<unsigned long long>(failed),
         static_cast<int>(cudaGetLastError()));
}

// A block larger than asked for must not cost the program an allocation that fits.
void Slack() {
  MUST(cudaFree(program::Allocate(36 * kMiB)));
  void* first = nullptr;
  void* second = nullptr;
  Say("32 MiB", cudaMalloc(&first, 32 * kMiB));
  Say("32 MiB more", cudaMalloc(&second, 32 * kMiB));
}

class Gate {
 public:
  void Open() {
    const std::lock_guard<std::mutex> guard(lock_);
    open_ = true;
    changed_.notify_all();
  }
  void Pass() {
    std::unique_lock<std::mutex> guard(lock_);
    changed_.wait(guard, [this] { return open_; });
  }

 private:
  std::mutex lock_;
  std::condition_variable changed_;
  bool open_ = false;
};

// Threads that freed much and are still alive, while another one needs all of the device.
void Threads(size_t all_bytes) {
  constexpr int kThreads = 4;
  Gate done;
  std::atomic<int> ready{0};
  std::vector<std::thread> threads;
  const auto hold = [&] {
    std::vector<void*> blocks(16);
    for (void*& block : blocks) block = program::Allocate(512 << 10);
    for (void* block : blocks) MUST(cudaFree(block));
    ++ready;
    done.Pass();
    // Its cache was emptied behind its back; it goes on.
    for (void*& block : blocks) block = program::Allocate(512 << 10);
    for (void* block : blocks) MUST(cudaFree(block));
  };
  for (int i = 0; i < kThreads; ++i) threads.emplace_back(hold);
  while (ready < kThreads) std::this_thread::yield();
  void* all = nullptr;
  Say("everything", cudaMalloc(&all, all_bytes));
  printf("used %llu\n", static_cast<unsigned long long>(simUsedBytes(0)));
  Say("free", cudaFree(all));
  done.Open();
  for (std::thread& thread : threads) thread.join();
}

// Waves of different sizes, each with the same peak of 32 MiB.
void Waves() {
  const size_t sizes[] = {64 << 10,  2 * kMiB, 512 << 10, 4 * kMiB,
                          256 << 10, 8 * kMiB, kMiB,      16 * kMiB};
  for (int round = 0; round < 3; ++round) {
    for (const size_t bytes : sizes) {
      std::vector<void*> blocks(32 * kMiB / bytes);
      for (void*& block : blocks) block = program::Allocate(bytes);
      for (void* block : blocks) MUST(cudaFree(block));
    }
  }
  printf("done, last error %d\n", static_cast<int>(cudaPeekAtLastError()));
}

// Allocation calls fail as CMPSIM_FAIL says. What the program sees must hold together.
void Failures() {
  program::Random random(5);
  std::vector<void*> blocks(40, nullptr);
  int succeeded = 0;
  int failed = 0;
  int odd = 0;
  for (int step = 0; step < 2000; ++step) {
    void*& block = blocks[random.Below(blocks.size())];
    const size_t bytes = size_t{1} << random.Below(22);
    if (block != nullptr) {
      simNoteFree(block);
      if (cudaFree(block) != cudaSuccess) ++odd;
      block = nullptr;
      continue;
    }
    const cudaError_t result = cudaMalloc(&block, bytes);
    const cudaError_t last = cudaGetLastError();
    if (result == cudaSuccess) {
      ++succeeded;
      if (block == nullptr || last != cudaSuccess) ++odd;
      simNoteAlloc(block, bytes);
    } else {
      ++failed;
      if (block != nullptr || last != result) ++odd;
    }
  }
  printf("odd %d\n# succeeded %d\n# failed %d\n", odd, succeeded, failed);
}

// One failing call after the other, all told.
void Told() {
  for (const size_t bytes : {size_t{1000}, size_t{1000}, size_t{100000}, 3 * kMiB, 40 * kMiB}) {
    void* pointer = nullptr;
    Say("cudaMalloc", cudaMalloc(&pointer, bytes));
    printf("  p %s\n", pointer == nullptr ? "NULL" : "set");
    cudaGetLastError();
    Say("cudaFree", cudaFree(pointer));
    cudaGetLastError();
  }
}

}  // namespace

int main(int count, char** arguments) {
  const char* scenario = count > 1 ? arguments[1] : "";
  if (strcmp(scenario, "sizes") == 0) {
    Sizes(count - 2, arguments + 2);
  } else if (strcmp(scenario, "mixed") == 0) {
    Mixed(strtoull(arguments[2], nullptr, 0), strtoull(arguments[3], nullptr, 0));
  } else if (strcmp(scenario, "slack") == 0) {
    Slack();
  } else if (strcmp(scenario, "threads") == 0) {
    Threads(strtoull(arguments[2], nullptr, 0));
  } else if (strcmp(scenario, "waves") == 0) {
    Waves();
  } else if (strcmp(scenario, "failures") == 0) {
    Failures();
  } else if (strcmp(scenario, "told") == 0) {
    Told();
  } else {
    return 2;
  }
  program::SayHazards();
  return 0;
}
