// Managed memory beside blocks that come and go, on a device of 1 GiB. How often it moves is a
// result, the same with the preload: idle memory gives way before it makes managed memory move.
//
// A pass is a kernel that uses all of some managed memory, and a wait for it.
#include <thread>
#include <vector>

#include "program.h"

using program::Allocate;

namespace {

constexpr size_t kMiB = size_t{1} << 20;

struct Memory {
  char* pointer = nullptr;
  size_t bytes = 0;
};

Memory Manage(size_t mebibytes) {
  Memory memory{nullptr, mebibytes * kMiB};
  void* pointer = nullptr;
  MUST(cudaMallocManaged(&pointer, memory.bytes, cudaMemAttachGlobal));
  memory.pointer = static_cast<char*>(pointer);
  return memory;
}

void Use(cudaStream_t stream, const Memory& memory, uint64_t duration_ns = 1000) {
  const SimRange range{memory.pointer, memory.bytes};
  SimWork work{};
  work.duration_ns = duration_ns;
  work.reads = work.writes = &range;
  work.read_count = work.write_count = 1;
  work.effect = [](void*) {};
  MUST(program::Launch(stream, work));
}

void Pass(const Memory& memory) {
  Use(nullptr, memory);
  MUST(cudaDeviceSynchronize());
}

// What moved since it was asked last.
void SayMoved(const char* when, int device = 0) {
  static uint64_t migrations_before[2];
  static uint64_t remote_before[2];
  const uint64_t migrations = simManagedMigrations(device);
  const uint64_t remote = simManagedRemoteUses(device);
  printf("%s: %llu migrations, %llu remote uses\n", when,
         static_cast<unsigned long long>(migrations - migrations_before[device]),
         static_cast<unsigned long long>(remote - remote_before[device]));
  migrations_before[device] = migrations;
  remote_before[device] = remote;
}

class RealCalls {
 public:
  void Note(const char* when) const {
    printf("# real %s: %llu %llu\n", when,
           static_cast<unsigned long long>(program::RealAllocations() - allocations_),
           static_cast<unsigned long long>(program::RealFrees() - frees_));
  }

 private:
  uint64_t allocations_ = program::RealAllocations();
  uint64_t frees_ = program::RealFrees();
};

// All blocks at once, and back; the first ones may be used by a kernel before.
void Wave(size_t bytes, size_t count, cudaStream_t used_on = nullptr) {
  std::vector<char*> blocks(count);
  for (char*& block : blocks) block = Allocate(bytes);
  for (size_t i = 0; used_on != nullptr && i < count && i < 50; ++i) {
    program::LaunchWrite(used_on, blocks[i], bytes, 1, 100000);
  }
  for (char* block : blocks) MUST(cudaFree(block));
}

// Idle memory is there first. `used_on`: kernels may be using it when the managed memory is made.
void Before(cudaStream_t used_on) {
  Wave(32 * kMiB, 28, used_on);
  const Memory managed = Manage(600);
  for (int pass = 0; pass < 4; ++pass) Pass(managed);
  SayMoved("four passes");
}

// Blocks that were in use when the managed memory was made become idle afterwards.
void After() {
  for (const size_t mebibytes : {600, 900, 1000}) {
    std::vector<char*> blocks(10);
    for (char*& block : blocks) block = Allocate(32 * kMiB);
    const Memory managed = Manage(mebibytes);
    Pass(managed);
    SayMoved("beside blocks");
    for (char* block : blocks) MUST(cudaFree(block));
    for (int pass = 0; pass < 3; ++pass) Pass(managed);
    SayMoved("three passes after them");
    MUST(cudaFree(managed.pointer));
  }
}

struct Blocks {
  size_t bytes;
  size_t count;
};
const std::vector<Blocks> kLarge = {{32 * kMiB, 28}, {32 * kMiB, 28}, {48 * kMiB, 18},
                                    {3 * kMiB, 100}, {200 * kMiB, 4}, {2 * kMiB, 450},
                                    {48 * kMiB, 18}, {20 * kMiB, 3}};
// Which share chunks with others, as the driver happens to pack them.
const std::vector<Blocks> kSmall = {{64 << 10, 6000}, {5000, 10000},    {200 * kMiB, 4},
                                    {64 << 10, 6000}, {600 << 10, 700}, {48 * kMiB, 18}};

// Blocks come and go between the passes, of other sizes each time.
void Between(const std::vector<Blocks>& waves, cudaStream_t used_on) {
  const Memory managed = Manage(700);
  for (const auto& [bytes, count] : waves) {
    Pass(managed);
    SayMoved("pass");
    Wave(bytes, count, used_on);
  }
  Pass(managed);
  SayMoved("last pass");
}

// Several allocations, freed and made anew, of which some are used.
void Several() {
  for (int round = 0; round < 3; ++round) {
    std::vector<Memory> all;
    for (const size_t mebibytes : {150, 3, 300, 1, 250}) {
      all.push_back(Manage(mebibytes));
      Wave(24 * kMiB, 10 + static_cast<size_t>(round));
      Pass(all.back());
    }
    for (const Memory& managed : all) Pass(managed);
    SayMoved("round");
    MUST(cudaFree(all[2].pointer));
    Wave(40 * kMiB, 12);
    Pass(all[0]);
    Pass(all[4]);
    SayMoved("fewer");
    for (const size_t i : {0, 1, 3, 4}) MUST(cudaFree(all[i].pointer));
    Wave(24 * kMiB, 40);
  }
  RealCalls real;
  Wave(24 * kMiB, 40);
  real.Note("without managed memory");
}

// More than the device has.
void Oversubscribed() {
  Wave(32 * kMiB, 28);
  const Memory managed = Manage(2000);
  for (int round = 0; round < 3; ++round) {
    Pass(managed);
    Wave(10 * kMiB, 6);
    Wave(64 << 10, 500);
    Pass(managed);
    SayMoved("two passes");
  }
}

// A thread whose cache has what it freed.
void Threads() {
  std::atomic<int> stage{0};
  std::thread other([&] {
    MUST(cudaSetDevice(0));
    for (int round = 1; round <= 3; ++round) {
      while (stage != 2 * round - 1) std::this_thread::yield();
      Wave(256 << 10, 60);
      stage = 2 * round;
    }
  });
  const Memory managed = Manage(1008);
  for (int round = 1; round <= 3; ++round) {
    Pass(managed);
    stage = 2 * round - 1;
    while (stage != 2 * round) std::this_thread::yield();
    for (int pass = 0; pass < 3; ++pass) Pass(managed);
    SayMoved("round");
  }
  other.join();
}

// Idle memory is there on the device where the managed memory is used, not where it was made.
void Devices() {
  for (const int device : {0, 1}) {
    MUST(cudaSetDevice(device));
    Wave(32 * kMiB, 28);
  }
  MUST(cudaSetDevice(0));
  const Memory managed = Manage(600);
  for (const int device : {1, 0, 1}) {
    MUST(cudaSetDevice(device));
    for (int pass = 0; pass < 3; ++pass) Pass(managed);
    SayMoved("three passes", device);
    Wave(32 * kMiB, 28);
  }
}

// Managed memory fills the device, and what is idle beside it waits for a long kernel.
void Behind() {
  Allocate(200 * kMiB);
  char* const block = Allocate(32 * kMiB);
  program::LaunchWrite(program::NonBlockingStream(), block, 32 * kMiB, 1, 3'600'000'000'000);
  MUST(cudaFree(block));
  Manage(810);
  const uint64_t looks = simCallCount("cuMemGetInfo_v2");
  const uint64_t queries = simCallCount("cuEventQuery");
  for (int i = 0; i < 20; ++i) {
    void* pointer = nullptr;
    MUST(cudaMallocManaged(&pointer, 64 << 10, cudaMemAttachGlobal));
  }
  printf("# asked: %llu %llu\n",
         static_cast<unsigned long long>(simCallCount("cuMemGetInfo_v2") - looks),
         static_cast<unsigned long long>(simCallCount("cuEventQuery") - queries));
}

// ---- What is served beside it

// Some blocks in use, and others that come and go.
void Loop(const char* when) {
  const RealCalls real;
  std::vector<char*> blocks(4);
  for (char*& block : blocks) block = Allocate(20 * kMiB);
  for (int i = 0; i < 200; ++i) {
    MUST(cudaFree(Allocate(10 * kMiB)));
    MUST(cudaFree(Allocate(20000)));
  }
  for (char* block : blocks) MUST(cudaFree(block));
  real.Note(when);
}

void Served(size_t mebibytes, size_t in_use) {
  Allocate(in_use * kMiB + 1);
  Loop("before");
  const Memory managed = Manage(mebibytes);
  Loop("first");
  Pass(managed);
  for (const char* round : {"second", "third", "fourth"}) {
    Loop(round);
    Pass(managed);
  }
  MUST(cudaFree(managed.pointer));
  for (const char* round : {"afterwards", "later"}) Loop(round);
}

}  // namespace

int main(int count, char** arguments) {
  const char* scenario = count > 1 ? arguments[1] : "";
  MUST(cudaFree(Allocate(1000)));
  MUST(cudaDeviceSynchronize());  // now the pool knows of all work
  if (strcmp(scenario, "before") == 0) {
    Before(nullptr);
  } else if (strcmp(scenario, "used-before") == 0) {
    Before(program::NonBlockingStream());
  } else if (strcmp(scenario, "after") == 0) {
    After();
  } else if (strcmp(scenario, "between") == 0) {
    Between(kLarge, nullptr);
  } else if (strcmp(scenario, "used-between") == 0) {
    Between(kLarge, program::NonBlockingStream());
  } else if (strcmp(scenario, "small-between") == 0) {
    Between(kSmall, nullptr);
  } else if (strcmp(scenario, "several") == 0) {
    Several();
  } else if (strcmp(scenario, "oversubscribed") == 0) {
    Oversubscribed();
  } else if (strcmp(scenario, "threads") == 0) {
    Threads();
  } else if (strcmp(scenario, "devices") == 0) {
    Devices();
  } else if (strcmp(scenario, "behind") == 0) {
    Behind();
  } else if (strcmp(scenario, "served") == 0) {
    Served(strtoull(arguments[2], nullptr, 0), strtoull(arguments[3], nullptr, 0));
  } else {
    return 2;
  }
  program::SayHazards();
  return 0;
}
