// Programs whose idle memory ages.
//
//   ageing sleeps MILLISECONDS [alone]   what is there before and after: blocks that the driver
//                                  holds, threads, and whether the pool's own takes signals; alone:
//                                  no such thread is awaited
//   ageing uses MILLISECONDS       the same blocks again and again
//   ageing calls MILLISECONDS      sleeps for a 32nd of it at a time, and frees a block in between
//   ageing kernels ROUNDS MILLISECONDS   sleeps beside a kernel that stays until the next launch
//   ageing captures MILLISECONDS   sleeps during a capture of each mode
//   ageing threads MILLISECONDS    several threads, some of which end
//   ageing devices MILLISECONDS    two of them; the second goes on with one size meanwhile
//   ageing bound MIB PATIENCE      a little over the bound, which is MIB: who releases; for as many
//                                  milliseconds the pool's first release is awaited
//   ageing ends WAY                _exit | exec | fork | reset | return, while memory ages
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "program.h"

namespace {

using program::Allocate;
using program::LetTimePass;
using program::Must;

constexpr size_t kMiB = size_t{1} << 20;

// Blocks of all kinds, all of them idle afterwards; a synchronisation before, so that what was done
// before is known to be done.
void Idle() {
  MUST(cudaFree(Allocate(1000)));
  MUST(cudaDeviceSynchronize());
  for (const size_t bytes : {size_t{300}, size_t{70000}, 3 * kMiB, 40 * kMiB}) {
    std::vector<char*> blocks;
    for (int i = 0; i < 6; ++i) blocks.push_back(Allocate(bytes));
    for (char* block : blocks) MUST(cudaFree(block));
  }
}

int Held() { return static_cast<int>(simCallCount("cuMemAlloc_v2") - program::RealFrees()); }

struct Threads {
  int count = 0;  // without the one that writes FILE.live of CMP_STATS, as long as the process runs
  bool pools = false;   // the pool's own is among them, and blocks every signal that can be
  bool writes = false;  // so is that one
};

// Of this process.
Threads ItsThreads() {
  Threads threads;
  DIR* folder = opendir("/proc/self/task");
  while (const dirent* entry = readdir(folder)) {
    if (entry->d_name[0] == '.') continue;
    const std::string path = std::string("/proc/self/task/") + entry->d_name + "/status";
    FILE* file = fopen(path.c_str(), "r");
    char line[200];
    bool ours = false;
    bool writes = false;
    while (file != nullptr && fgets(line, sizeof(line), file) != nullptr) {
      ours |= strcmp(line, "Name:\tcmp-decay\n") == 0;
      writes |= strcmp(line, "Name:\tcmp-live\n") == 0;
      // All but the two that cannot be blocked, and the two that the C library keeps for itself.
      if (ours && strncmp(line, "SigBlk:\t", 8) == 0) {
        threads.pools =
            (~strtoull(line + 8, nullptr, 16) & 0x7fffffff & ~(1ULL << 8 | 1ULL << 18)) == 0;
      }
    }
    if (file != nullptr) fclose(file);
    threads.count += writes ? 0 : 1;
    threads.writes |= writes;
  }
  closedir(folder);
  return threads;
}

// Until those have their names that are to be there.
void AwaitThreads(bool pools) {
  const bool writes = getenv("CMP_STATS") != nullptr;
  for (int i = 0; i < 10'000; ++i) {
    const Threads threads = ItsThreads();
    if ((threads.pools || !pools) && (threads.writes || !writes)) return;
    usleep(1000);
  }
}

void Tell(const char* when) {
  const Threads threads = ItsThreads();
  printf("# %s: %d held, %d threads, the pool's %d\n", when, Held(), threads.count,
         threads.pools ? 1 : 0);
}

void Kernels(int rounds, int milliseconds) {
  const cudaStream_t stream = program::NonBlockingStream();
  const cudaStream_t other = program::NonBlockingStream();
  for (int round = 1; round <= rounds; ++round) {
    Idle();
    SimWork staying{};
    staying.id = static_cast<uint64_t>(2 * round);
    staying.spin_until_id = staying.id + 1;
    MUST(program::Launch(stream, staying));
    for (const size_t bytes : {5 * kMiB, size_t{5000}}) MUST(cudaFree(Allocate(bytes)));
    LetTimePass(milliseconds);
    SimWork next{};
    next.id = staying.spin_until_id;
    MUST(program::Launch(other, next));
    MUST(cudaDeviceSynchronize());
  }
}

void Captures(int milliseconds) {
  const cudaStream_t stream = program::NonBlockingStream();
  for (const cudaStreamCaptureMode mode :
       {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal,
        cudaStreamCaptureModeRelaxed}) {
    Idle();
    MUST(cudaStreamBeginCapture(stream, mode));
    SimWork work{};
    MUST(program::Launch(stream, work));
    LetTimePass(milliseconds);
    Tell("during a capture");
    cudaGraph_t graph = nullptr;
    program::Say("end of the capture", cudaStreamEndCapture(stream, &graph));
    MUST(cudaGraphDestroy(graph));
  }
}

void ManyThreads(int milliseconds) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([i, milliseconds] {
      const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
      program::Random random(static_cast<uint64_t>(i) + 1);
      while (std::chrono::steady_clock::now() < end) {
        char* block = Allocate(1 + random.Below(i % 2 == 0 ? 100000 : 8 * kMiB));
        program::LaunchWrite(cudaStreamPerThread, block, 1, 1, 1000);
        MUST(cudaFree(block));
        if (random.Below(20) == 0) LetTimePass(3);
      }
      MUST(cudaStreamSynchronize(cudaStreamPerThread));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

void TwoDevices(int milliseconds) {
  const auto tell = [](const char* when) {
    printf("# %s: %llu and %llu held\n", when,
           static_cast<unsigned long long>(simLiveAllocations(0)),
           static_cast<unsigned long long>(simLiveAllocations(1)));
  };
  for (const int device : {0, 1}) {
    MUST(cudaSetDevice(device));
    Idle();
  }
  tell("idle");
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
  while (std::chrono::steady_clock::now() < end) {
    MUST(cudaFree(Allocate(3 * kMiB)));
    LetTimePass(1);
  }
  tell("one device rests");
  LetTimePass(milliseconds);
  tell("both rest");
}

// Frees without a wait, by the program's thread and by others.
std::atomic<int> g_own{0};
std::atomic<int> g_others{0};

void Bound(size_t bound, int patience) {
  static thread_local bool t_program = false;
  t_program = true;
  const auto count = [](void*) { ++(t_program ? g_own : g_others); };
  simOnCall("cuMemFreeAsync", SIM_BEFORE_CALL, count, nullptr);
  const auto round = [](size_t blocks, size_t bytes) {
    std::vector<char*> made;
    for (size_t i = 0; i < blocks; ++i) made.push_back(Allocate(bytes));
    for (char* block : made) MUST(cudaFree(block));
  };
  round(10, 40 * kMiB);
  // Until the thread has paid what its first release costs, and that tick is over, or there is
  // none. (Before, a free finds it unpaid, and the device idle, and releases by itself.) Of the
  // calls that a tick ends with, the next one makes more.
  constexpr uint64_t kMostAtEnd = 3;
  uint64_t calls = 0;
  const auto paid_for = [&calls] {
    if (simCallCount("cuMemFreeAsync") == 0) return false;
    const uint64_t now = simCallCount("cuThreadExchangeStreamCaptureMode");
    if (calls == 0) calls = now;
    return now > calls + kMostAtEnd;
  };
  for (int i = 0; i < patience && !paid_for(); ++i) LetTimePass(1);
  const int paid = g_others;
  round(8, 45 * kMiB);  // no block of 40 MiB serves
  for (int i = 0; i < 20000 && simUsedBytes(0) > bound; ++i) LetTimePass(1);
  printf("# released: %d by the program, %d by others\n", g_own.load(), g_others - paid);
  printf("over the bound: %d\n", simUsedBytes(0) > bound ? 1 : 0);
  simOnCall("cuMemFreeAsync", SIM_BEFORE_CALL, nullptr, nullptr);
}

int End(const char* way, char* program) {
  Idle();
  for (int i = 0; i < 1000; ++i) MUST(cudaFree(Allocate(static_cast<size_t>(i) * 1024 + 1)));
  while (simCallCount("cuMemFreeAsync") < 2) std::this_thread::yield();  // it goes back
  if (strcmp(way, "_exit") == 0) _exit(3);
  if (strcmp(way, "exec") == 0) {
    unsetenv("LD_PRELOAD");
    execl("/bin/true", program, nullptr);
    return 9;
  }
  if (strcmp(way, "fork") == 0) {
    const pid_t child = fork();
    if (child == 0) _exit(4);
    int status = 0;
    waitpid(child, &status, 0);
    return WEXITSTATUS(status);
  }
  if (strcmp(way, "reset") == 0) {
    for (int i = 0; i < 20; ++i) {
      Idle();
      LetTimePass(2);
      MUST(cudaDeviceReset());
    }
  }
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 3) return 2;
  const char* scenario = arguments[1];
  const int number = atoi(arguments[2]);
  int code = 0;
  if (strcmp(scenario, "sleeps") == 0) {
    Tell("at first");
    Idle();
    AwaitThreads(count == 3);
    Tell("idle");
    LetTimePass(number);
    Tell("aged");
    program::NoteServed("afterwards", 5000);
  } else if (strcmp(scenario, "uses") == 0) {
    for (int i = 0; i < number / 5; ++i) {
      Idle();
      LetTimePass(5);
    }
    Tell("used");
  } else if (strcmp(scenario, "calls") == 0) {
    Idle();
    for (int i = 0; i < 90; ++i) {  // the ticks are in the program's own frees
      if (i == 10) Tell("before");
      LetTimePass(number / 32);
      MUST(cudaFree(Allocate(20 * kMiB)));
    }
    Tell("after");
  } else if (strcmp(scenario, "kernels") == 0 && count > 3) {
    Kernels(number, atoi(arguments[3]));
    Tell("at last");
  } else if (strcmp(scenario, "captures") == 0) {
    Captures(number);
  } else if (strcmp(scenario, "devices") == 0) {
    TwoDevices(number);
  } else if (strcmp(scenario, "threads") == 0) {
    ManyThreads(number);
  } else if (strcmp(scenario, "bound") == 0 && count > 3) {
    Bound(static_cast<size_t>(number) * kMiB, atoi(arguments[3]));
  } else if (strcmp(scenario, "ends") == 0) {
    code = End(arguments[2], arguments[0]);
  } else {
    return 2;
  }
  program::SayHazards();
  return code;
}
