// The ways in which a process ends after it used CUDA. endings WAY
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "program.h"

using program::Allocate;

namespace {

// Destroyed after CUDA's own exit handlers have run: constructed before CUDA's first call.
struct Late {
  void* block = nullptr;
  void* freed = nullptr;
  bool allocates = false;
  ~Late() {
    if (block == nullptr) return;
    program::Say("late free", cudaFree(block));
    program::Say("late free again", cudaFree(block));
    program::Say("late double free", cudaFree(freed));
    if (!allocates) return;
    void* pointer = nullptr;
    program::Say("late malloc", cudaMalloc(&pointer, 4096));
    program::Say("late large malloc", cudaMalloc(&pointer, 40 << 20));
  }
} g_late;

// Destroyed before them: constructed after CUDA's first call.
struct Early {
  void* block = Allocate(4096);
  ~Early() { program::Say("early free", cudaFree(block)); }
};

void StartAllocatingThreads(int count) {
  static std::atomic<int> running{0};
  for (int i = 0; i < count; ++i) {
    std::thread([] {
      program::Random random(1);
      ++running;
      for (;;) {
        void* pointer = nullptr;
        cudaMalloc(&pointer, size_t{1} << random.Below(21));
        cudaFree(pointer);
      }
    }).detach();
  }
  while (running < count) std::this_thread::yield();
}

// No file may be longer from now on: `ulimit -f`, but in bytes.
void LimitFiles(const char* bytes) {
  const rlimit most = {strtoull(bytes, nullptr, 0), RLIM_INFINITY};
  if (setrlimit(RLIMIT_FSIZE, &most) != 0) _exit(8);
}

}  // namespace

int main(int count, char** arguments) {
  const char* way = count > 1 ? arguments[1] : "";
  if (strcmp(way, "file-limit") == 0) {
    MUST(cudaDeviceSynchronize());  // the simulator's own file is there now
    LimitFiles(arguments[2]);
  }
  program::Warm(4096);
  for (int i = 0; i < 10; ++i) MUST(cudaFree(Allocate(4096)));
  printf("used CUDA\n");
  fflush(stdout);
  if (strcmp(way, "return") == 0) return 0;
  if (strcmp(way, "file-limit") == 0) return 0;
  if (strcmp(way, "late-file-limit") == 0) {
    LimitFiles(arguments[2]);
    return 0;
  }
  if (strcmp(way, "code") == 0) exit(7);
  if (strcmp(way, "leak") == 0) {
    for (int i = 0; i < 5; ++i) Allocate(1000);
    return 0;
  }
  if (strcmp(way, "exit-in-thread") == 0) {
    std::thread([] {
      MUST(cudaFree(Allocate(4096)));
      exit(5);
    }).join();
  }
  if (strcmp(way, "pthread-exit") == 0) {
    std::thread([] {
      for (int i = 0; i < 10; ++i) MUST(cudaFree(Allocate(4096)));
    }).detach();
    pthread_exit(nullptr);
  }
  if (strcmp(way, "crowd") == 0) {
    // More threads than the statistics have room for at first, all with a cache of their own.
    static std::atomic<int> done{0};
    constexpr int kThreads = 600;
    for (int i = 0; i < kThreads; ++i) {
      std::thread([] {
        for (int k = 0; k < 10; ++k) MUST(cudaFree(Allocate(4096)));
        ++done;
        pause();
      }).detach();
    }
    while (done < kThreads) std::this_thread::yield();
    for (;;) pause();
  }
  if (strcmp(way, "lines") == 0) {
    // For each line that it reads, some calls in two threads; at the end of the input it is over.
    const auto pairs = [] {
      for (int i = 0; i < 200; ++i) MUST(cudaFree(Allocate(4096)));
    };
    std::atomic<int> asked{0};
    std::atomic<int> done{0};
    std::thread other([&] {
      for (int seen = 0;;) {
        const int now = asked.load();
        if (now < 0) return;
        if (now == seen) {
          std::this_thread::yield();
          continue;
        }
        pairs();
        done = seen = now;
      }
    });
    for (int lines = 1; getchar() != EOF; ++lines) {
      asked = lines;
      pairs();
      while (done != lines) std::this_thread::yield();
      printf("done\n");
      fflush(stdout);
    }
    asked = -1;
    other.join();
    return 0;
  }
  if (strcmp(way, "busy") == 0) {
    StartAllocatingThreads(3);
    return 0;
  }
  if (strcmp(way, "busy-exit-in-thread") == 0) {
    StartAllocatingThreads(3);
    std::thread([] { exit(5); }).join();
  }
  if (strcmp(way, "late") == 0 || strcmp(way, "late-malloc") == 0) {
    g_late.block = Allocate(4096);
    g_late.freed = Allocate(4096);
    MUST(cudaFree(g_late.freed));
    g_late.allocates = strcmp(way, "late-malloc") == 0;
    return 0;
  }
  if (strcmp(way, "early") == 0) {
    static Early early;
    return 0;
  }
  if (strcmp(way, "pending") == 0) {
    SimWork work = {};
    work.duration_ns = 1000000000;
    MUST(program::Launch(nullptr, work));
    return 0;
  }
  if (strcmp(way, "_exit") == 0) _exit(6);
  if (strcmp(way, "abort") == 0) abort();
  if (strcmp(way, "kill") == 0) raise(SIGKILL);
  if (strcmp(way, "exec") == 0) {
    execl(arguments[2], arguments[2], arguments[3], nullptr);
    return 9;
  }
  if (strcmp(way, "wait") == 0) {
    for (;;) pause();
  }
  return 2;
}
