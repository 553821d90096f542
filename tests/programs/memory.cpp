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

// A random program that always stays within `limit` bytes, counted as the driver counts them, but
// for what is left over in chunks. Of a hundred allocations `small` are below 2 MiB, every doubling
// equally likely.
void Mixed(size_t limit, uint64_t seed, uint64_t small, int steps) {
  struct Block {
    void* pointer;
    size_t bytes;
  };
  program::Random random(seed);
  std::vector<Block> blocks;
  size_t used = 0;
  uint64_t failed = 0;
  for (int step = 0; step < steps; ++step) {
    size_t bytes = (1 + random.Below(limit / kMiB / 8)) * 2 * kMiB;
    if (random.Below(100) < small) {
      const size_t most = size_t{512} << random.Below(12);
      bytes = most - random.Below(most / 1024 + 1) * 512;
    }
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
  for (const Block& block : blocks) {
    simNoteFree(block.pointer);
    MUST(cudaFree(block.pointer));
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
  const uint64_t idle = program::RealAllocations() - program::RealFrees();
  const uint64_t frees = program::RealFrees();
  Say("everything", cudaMalloc(&all, all_bytes));
  printf("# idle: %llu blocks\n# really freed: %llu blocks\n",
         static_cast<unsigned long long>(idle),
         static_cast<unsigned long long>(program::RealFrees() - frees));
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

// One block at a time, of sizes that no other one's serves: together twice what the pool may hold.
void Rounds() {
  for (int round = 0; round < 10; ++round) {
    for (const size_t mebibytes : {256, 400, 620, 960}) {
      MUST(cudaFree(program::Allocate(mebibytes * kMiB)));
    }
  }
}

// Frees beside a kernel that stays until the next launch: with the real calls they would wait for
// it for ever, and so they are not made without the pool. What the pool releases in them waits for
// nothing, once it has had the time to free something before.
void Staying() {
  const cudaStream_t stream = program::NonBlockingStream();
  const cudaStream_t other = program::NonBlockingStream();
  MUST(cudaFree(program::Allocate(1000)));
  MUST(cudaDeviceSynchronize());  // now the pool knows of all work
  program::Warm(16 * kMiB);
  program::AwaitQuietFree();
  const uint64_t frees = program::RealFrees();
  for (uint64_t round = 1; round <= 50; ++round) {
    SimWork staying{};
    staying.id = 2 * round;
    staying.spin_until_id = 2 * round + 1;
    MUST(program::Launch(stream, staying));
    MUST(cudaFree(program::Allocate((17 + 3 * round) * kMiB)));
    SimWork next{};
    next.id = staying.spin_until_id;
    MUST(program::Launch(other, next));
    MUST(cudaDeviceSynchronize());
  }
  printf("# real frees beside kernels: %llu\n",
         static_cast<unsigned long long>(program::RealFrees() - frees));
}

// Managed memory takes the device's when it is touched, without a call: what is idle has gone by
// then. Afterwards the pool leaves it its room. REQUIRES: 1 GiB of device memory
void Managed() {
  MUST(cudaFree(program::Allocate(1000)));
  MUST(cudaDeviceSynchronize());
  program::Warm(32 * kMiB, 28);  // 896 MiB
  void* managed = nullptr;
  MUST(cudaMallocManaged(&managed, 600 * kMiB, cudaMemAttachGlobal));
  printf("# used of the device: %llu\n", static_cast<unsigned long long>(simUsedBytes(0)));
  for (int i = 0; i < 40; ++i) program::Warm((3 + static_cast<size_t>(i)) * kMiB, 8);
  printf("# used at last: %llu\n", static_cast<unsigned long long>(simUsedBytes(0)));
  MUST(cudaFree(managed));
  program::Warm(32 * kMiB, 28);
  program::NoteServed("afterwards", 32 * kMiB);
}

// A call that fails once while much is idle; none of it may be lost. REQUIRES: 1 GiB of device
// memory.
void Trouble(const char* what) {
  constexpr size_t kBlock = 32 * kMiB;
  std::vector<void*> blocks(24);  // 768 MiB
  for (void*& block : blocks) block = program::Allocate(kBlock);
  static void* last;
  last = blocks.back();
  blocks.pop_back();
  if (strcmp(what, "event") == 0) {
    // The first free that must wait.
    const uint64_t before = simCallCount("cuEventCreate");
    simFailNext("cuEventCreate", 1, 2);
    std::thread([] { Say("free", cudaFree(last)); }).join();
    simFailNever();
    const uint64_t calls = simCallCount("cuEventCreate") - before;
    printf("# event creations: %llu\n", static_cast<unsigned long long>(calls));
  }
  FreeAll(blocks);
  if (strcmp(what, "host-function") == 0) {
    const cudaStream_t stream = program::NonBlockingStream();
    const auto free = [](void* block) { Say("free in a host function", cudaFree(block)); };
    MUST(cudaLaunchHostFunc(stream, free, last));
    MUST(cudaStreamSynchronize(stream));
    cudaGetLastError();
  } else if (strcmp(what, "destroy") == 0) {
    MUST(cudaFree(last));
    CUcontext primary = nullptr;
    cuCtxGetCurrent(&primary);
    printf("destroy of the primary context: %d\n", static_cast<int>(cuCtxDestroy(primary)));
  }
  program::NoteServed("afterwards", kBlock);
  void* large = nullptr;
  Say("512 MiB", cudaMalloc(&large, 512 * kMiB));
  Say("its free", cudaFree(large));
  program::NoteServed("at last", 4096);
}

// Other calls than a plain cudaMalloc need what is idle. REQUIRES: 1 GiB of device memory.
void Room(const char* way) {
  std::vector<void*> blocks(24);  // 768 MiB
  for (void*& block : blocks) block = program::Allocate(32 * kMiB);
  FreeAll(blocks);
  void* large = nullptr;
  if (strcmp(way, "pitch") == 0) {
    size_t pitch = 0;
    Say("cudaMallocPitch", cudaMallocPitch(&large, &pitch, kMiB, 512));
  } else if (strcmp(way, "3d") == 0) {
    cudaPitchedPtr pitched = {};
    Say("cudaMalloc3D", cudaMalloc3D(&pitched, cudaExtent{kMiB, 64, 8}));
    large = pitched.ptr;
  } else if (strcmp(way, "async") == 0) {
    Say("cudaMallocAsync", cudaMallocAsync(&large, 512 * kMiB, nullptr));
  } else if (strcmp(way, "capture") == 0) {
    const cudaStream_t stream = program::NonBlockingStream();
    cudaGraph_t graph = nullptr;
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    Say("cudaMalloc", cudaMalloc(&large, 512 * kMiB));
    Say("end", cudaStreamEndCapture(stream, &graph));
  }
  printf("p %s\n", large == nullptr ? "NULL" : "set");
  Say("its free", cudaFree(large));
}

}  // namespace

int main(int count, char** arguments) {
  const char* scenario = count > 1 ? arguments[1] : "";
  if (strcmp(scenario, "sizes") == 0) {
    Sizes(count - 2, arguments + 2);
  } else if (strcmp(scenario, "mixed") == 0) {
    Mixed(strtoull(arguments[2], nullptr, 0), strtoull(arguments[3], nullptr, 0), 0, 3000);
  } else if (strcmp(scenario, "small") == 0) {
    const uint64_t first = strtoull(arguments[4], nullptr, 0);
    for (uint64_t seed = first; seed < first + 3; ++seed) {
      Mixed(strtoull(arguments[2], nullptr, 0), seed, strtoull(arguments[3], nullptr, 0), 15000);
    }
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
  } else if (strcmp(scenario, "room") == 0) {
    Room(arguments[2]);
  } else if (strcmp(scenario, "rounds") == 0) {
    Rounds();
  } else if (strcmp(scenario, "staying") == 0) {
    Staying();
  } else if (strcmp(scenario, "managed") == 0) {
    Managed();
  } else if (strcmp(scenario, "trouble") == 0) {
    Trouble(arguments[2]);
    printf("hazards %llu\n", static_cast<unsigned long long>(simHazardCount()));
    return 0;  // a host function's call of CUDA is misuse
  } else {
    return 2;
  }
  program::SayHazards();
  return 0;
}
