// Threads that submit work, for CMP_SHAKE: who is who in every run, and where a call came from.
//
//   shaken roles ORDER     three threads that do different work, which come in this order: abc, cab
//   shaken generations N   N times two threads, of which the next two do the same work
//   shaken together [own]  eight threads whose first submissions come at the same time
//   shaken holds HOW       held work in every round; in every other one what must end the hold
//   shaken copies          one site whose every other execution waits
//   shaken often HOW       a site of 2,048 executions, whose holds are effective or in vain
//   shaken host NEXT       one of 512, and what the host does when it has freed
//   shaken own             one thread's own stream
//   shaken many            more streams than are told apart
//   shaken destroyed       streams that are gone before others get work
//   shaken ends HOW        what lets held work go before it does anything else
//   shaken waited          copies that the host waits for before it frees
//   shaken resets N        contexts that end one by one, with streams that do the same work
//   shaken dies HOW FILE   an end by _exit, abort or kill, once FILE has what it did
//   shaken stacks          a thread on a smaller stack, with the same frames in the same places
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <barrier>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "program.h"

namespace {

void Launch(cudaStream_t stream) {
  SimWork work = {};
  work.duration_ns = 20000;
  MUST(program::Launch(stream, work));
}

void Free() { MUST(cudaFree(program::Allocate(1000))); }

// Threads that take turns: who it is says a letter.
class Turns {
 public:
  explicit Turns(std::string order) : order_(std::move(order)) {}
  bool Wait(char who) {
    while (true) {
      const size_t now = now_.load();
      if (now == order_.size()) return false;
      if (order_[now] == who) return true;
      now_.wait(now);
    }
  }
  void End() {
    ++now_;
    now_.notify_all();
  }

 private:
  std::string order_;
  std::atomic<size_t> now_{0};
};

// Each a function, and so a place, of its own.
template <char kWho>
void Role(Turns& turns, cudaStream_t stream) {
  cudaEvent_t event = nullptr;
  while (turns.Wait(kWho)) {
    if (event == nullptr) {  // whose first submission is no work
      MUST(cudaEventCreate(&event));
      MUST(cudaEventRecord(event, stream));
    }
    Launch(stream);
    Free();
    turns.End();
  }
  if (event != nullptr) MUST(cudaEventDestroy(event));
}

int Roles(const std::string& first, int rounds = 20) {
  std::string order = first;
  for (int i = 0; i < rounds; ++i) order += "abc";
  Turns turns(order);
  Free();
  std::vector<std::thread> threads;
  threads.emplace_back(&Role<'a'>, std::ref(turns), program::NonBlockingStream());
  threads.emplace_back(&Role<'b'>, std::ref(turns), program::NonBlockingStream());
  threads.emplace_back(&Role<'c'>, std::ref(turns), program::NonBlockingStream());
  for (std::thread& thread : threads) thread.join();
  return 0;
}

int Generations(int count) {
  const cudaStream_t streams[] = {program::NonBlockingStream(), program::NonBlockingStream()};
  Free();
  for (int i = 0; i < count; ++i) {
    Turns turns("abab");
    std::thread a(&Role<'a'>, std::ref(turns), streams[0]);
    std::thread b(&Role<'b'>, std::ref(turns), streams[1]);
    a.join();
    b.join();
  }
  return 0;
}

int Together(bool own) {
  constexpr int kThreads = 8;
  std::vector<cudaStream_t> streams(kThreads + 1, cudaStreamPerThread);
  if (!own) {
    for (cudaStream_t& stream : streams) stream = program::NonBlockingStream();
  }
  Free();
  std::barrier<> barrier(kThreads + 1);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&barrier, stream = streams[static_cast<size_t>(i)]] {
      barrier.arrive_and_wait();
      Launch(stream);
      barrier.arrive_and_wait();
      barrier.arrive_and_wait();  // all live until the end
    });
  }
  barrier.arrive_and_wait();
  barrier.arrive_and_wait();
  Free();
  Launch(streams.back());
  barrier.arrive_and_wait();
  for (std::thread& thread : threads) thread.join();
  return 0;
}

// ---- Stacks

struct Dive {
  cudaStream_t stream;
  int levels;
  uintptr_t frames[2] = {};  // of the last two levels
};

[[gnu::noinline]] void DiveDown(Dive& dive, int levels) {
  char room[4096];
  asm volatile("" : : "r"(room) : "memory");
  if (levels < 2) dive.frames[levels] = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
  if (levels > 0) {
    DiveDown(dive, levels - 1);
  } else {
    Launch(dive.stream);
  }
  asm volatile("" : : "r"(room) : "memory");  // no tail call
}

void* DiveOn(void* data) {
  auto& dive = *static_cast<Dive*>(data);
  DiveDown(dive, dive.levels);
  return nullptr;
}

void RunOn(char* stack, size_t bytes, Dive& dive) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, stack, bytes);
  pthread_t thread;
  if (pthread_create(&thread, &attributes, &DiveOn, &dive) != 0) _Exit(3);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
}

int Stacks() {
  constexpr size_t kBytes = size_t{8} << 20;
  void* mapped = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return 3;
  auto* stack = static_cast<char*>(mapped);
  Free();
  Dive shallow = {program::NonBlockingStream(), 1};
  RunOn(stack, kBytes, shallow);
  // So many levels more take whole pages; without them the last frames are where they were.
  const size_t level = shallow.frames[1] - shallow.frames[0];
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t levels = page / std::gcd(level, page);
  Dive deep = {shallow.stream, 1 + static_cast<int>(levels)};
  RunOn(stack, kBytes, deep);
  const size_t left = kBytes - levels * level;
  if (mprotect(stack + left, kBytes - left, PROT_NONE) != 0) return 3;
  RunOn(stack, left, shallow);
  printf("the same frames: %d\n", shallow.frames[0] == deep.frames[0]);
  return 0;
}

// ---- Holds, and what ends them

void EndCapture(cudaStream_t stream) {
  cudaGraph_t graph = nullptr;
  MUST(cudaStreamEndCapture(stream, &graph));
  MUST(cudaGraphDestroy(graph));
}

// In every other round later work of another stream follows, so that its first work is a site.
int Holds(const std::string& how) {
  const cudaStream_t later = program::NonBlockingStream();
  const cudaStream_t idle = program::NonBlockingStream();
  const bool on_legacy = how == "copy" || how == "stream-of-legacy";
  cudaEvent_t event = nullptr;
  MUST(cudaEventCreate(&event));
  char* memory = program::Allocate(8);
  uint64_t seen = 0;
  cudaStream_t stream = on_legacy ? nullptr : program::NonBlockingStream();
  for (int round = 0; round < 200; ++round) {
    const bool captures = how == "capture" && round % 2 != 0;
    if (captures) MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    Launch(stream);
    if (captures) EndCapture(stream);
    const bool frees_in_capture = how == "free-in-capture" && round % 2 != 0;
    if (frees_in_capture) MUST(cudaStreamBeginCapture(idle, cudaStreamCaptureModeRelaxed));
    Free();
    if (frees_in_capture) EndCapture(idle);
    if (round % 2 == 0) {
      Launch(later);
      Launch(later);
      MUST(cudaDeviceSynchronize());
    } else if (how == "copy") {
      MUST(cudaMemcpy(&seen, memory, 8, cudaMemcpyDeviceToHost));
    } else if (how == "stream" || how == "stream-of-legacy") {
      MUST(cudaStreamSynchronize(stream));
    } else if (how == "device") {
      MUST(cudaDeviceSynchronize());
    } else if (how == "question") {
      cudaStreamQuery(stream);
    } else if (how == "event") {
      MUST(cudaEventRecord(event, stream));
      MUST(cudaEventSynchronize(event));
    } else if (how == "time") {
      for (int i = 0; i < 1000; ++i) cudaEventQuery(event);
    } else if (how == "destroy") {
      const cudaStream_t next = program::NonBlockingStream();  // another handle
      MUST(cudaStreamDestroy(stream));
      stream = next;
    } else if (how == "other-stream") {
      MUST(cudaStreamSynchronize(idle));
      Launch(later);
    }
    MUST(cudaDeviceSynchronize());
  }
  return 0;
}

// One place that copies, which waits only for copies to the host.
int Copies() {
  const cudaStream_t later = program::NonBlockingStream();
  char* memory = program::Allocate(16);
  char seen[8] = {};
  for (int round = 0; round < 200; ++round) {
    const bool to_host = round % 2 != 0;
    MUST(cudaMemcpy(to_host ? seen : memory + 8, memory, 8,
                    to_host ? cudaMemcpyDeviceToHost : cudaMemcpyDeviceToDevice));
    Free();
    Launch(later);
    MUST(cudaDeviceSynchronize());
  }
  return 0;
}

// What a thread calls after its free, when the hold is over before its next call.
void GoOn(const std::string& how, cudaStream_t stream) {
  if (how == "launch") Launch(stream);
  if (how == "free") Free();
  if (how == "query") cudaStreamQuery(stream);
  for (int i = 0; i < 6; ++i) simAdvance(1'000'000);
}

// Of how many executions one site's work is held. Recorded: the first round makes it a site.
int Often(const std::string& how) {
  const cudaStream_t stream = program::NonBlockingStream();
  const cudaStream_t later = program::NonBlockingStream();
  cudaEvent_t event = nullptr;
  MUST(cudaEventCreate(&event));
  char* memory = program::Allocate(16);
  uint64_t seen = 0;
  for (int round = 0; round < 2048; ++round) {
    Launch(stream);
    Free();
    if (how == "copy") {
      MUST(cudaMemcpy(&seen, memory, 8, cudaMemcpyDeviceToHost));
    } else if (how == "copy-on-device" && round > 0) {
      // Behind what is held. Its target is memory of the device after all, so it waits for nothing.
      MUST(cudaEventRecord(event, stream));
      MUST(cudaStreamWaitEvent(nullptr, event, 0));
      const auto device = reinterpret_cast<CUdeviceptr>(memory);
      if (cuMemcpyDtoH(memory + 8, device, 8) != CUDA_SUCCESS) _Exit(3);
    } else if (how == "effective" || round == 0) {
      Launch(later);
    } else {
      MUST(cudaEventRecord(event, later));  // is no work
    }
    MUST(cudaDeviceSynchronize());
  }
  return 0;
}

// The same for work whose end the host could see. NEXT: what it does then.
int OftenHost(const std::string& next) {
  const cudaStream_t stream = program::NonBlockingStream();
  char* memory = program::Allocate(8);
  void* host = nullptr;
  MUST(cudaMallocHost(&host, 8));
  const auto copy_and_free = [&] {
    MUST(cudaMemcpyAsync(host, memory, 8, cudaMemcpyDeviceToHost, stream));
    Free();
  };
  for (int round = 0; round < 512; ++round) {
    if (next == "thread") {  // another one goes on, of the same number
      std::thread(copy_and_free).join();
      std::thread([&] { GoOn("query", stream); }).join();
    } else {
      copy_and_free();
      GoOn(next, stream);
    }
    MUST(cudaDeviceSynchronize());
  }
  return 0;
}

// A thread's own stream: nothing races. The second thread has another one, in the first one's
// place.
int Own() {
  const cudaStream_t later = program::NonBlockingStream();
  Free();
  for (int i = 0; i < 2; ++i) {
    std::thread([=] {
      for (int round = 0; round < 20; ++round) {
        Launch(cudaStreamPerThread);
        Free();
        Launch(cudaStreamPerThread);
        MUST(cudaStreamSynchronize(cudaStreamPerThread));
        Launch(later);
        Launch(cudaStreamPerThread);
        MUST(cudaStreamSynchronize(cudaStreamPerThread));
        Free();
        Launch(later);
        MUST(cudaDeviceSynchronize());
      }
    }).join();
  }
  return 0;
}

// More streams than are told apart.
int Many() {
  const cudaStream_t first = program::NonBlockingStream();
  Free();  // from now on submissions are seen
  Launch(first);
  for (int i = 0; i < 300; ++i) Launch(program::NonBlockingStream());
  Free();
  Launch(first);
  return 0;
}

// A stream that is gone before another one gets work.
int Destroyed() {
  const cudaStream_t later = program::NonBlockingStream();
  Launch(later);
  MUST(cudaDeviceSynchronize());
  for (int round = 0; round < 20; ++round) {
    const cudaStream_t stream = program::NonBlockingStream();
    Launch(stream);
    Free();
    MUST(cudaStreamDestroy(stream));
    Launch(later);
    MUST(cudaDeviceSynchronize());
  }
  return 0;
}

// ---- What lets go before it does anything else

bool IsWorkLeft() {
  for (int i = 0; i < 100; ++i) simAdvance(1000);
  return simPendingCount(nullptr) != 0;
}

// The same work again and again; the first time it becomes a site. held() is called under each
// hold.
template <typename Held>
void LookForHolds(cudaStream_t stream, cudaStream_t later, Held held) {
  volatile bool is_first = true;  // so there is one place that launches
  for (int round = 0; round < 200; ++round) {
    Launch(stream);
    if (is_first) {
      Free();
      Launch(later);
      is_first = false;
    } else if (IsWorkLeft() && !held()) {
      return;
    }
    MUST(cudaDeviceSynchronize());
  }
}

// Is the work let go when call() returns, and did that not wait for the end of the hold? The
// shortest hold takes longer than all of this.
template <typename Call>
void LookAfter(Call call, cudaStream_t stream = program::NonBlockingStream()) {
  int held = 0;
  int still = 0;
  LookForHolds(stream, program::NonBlockingStream(), [&] {
    ++held;
    const uint64_t begin = simNow();
    call();
    const bool waited = simNow() - begin > 1'000'000;
    still += waited || IsWorkLeft() ? 1 : 0;
    return true;
  });
  printf("# held %d, still held %d\n", held, still);
}

// Before the pool's own handler, and once more after it.
void AtExit() {
  static cudaStream_t stream = program::NonBlockingStream();
  static cudaStream_t later = program::NonBlockingStream();
  static bool is_second = false;
  if (is_second) printf("# still held %d\n", IsWorkLeft());
  int held = 0;
  LookForHolds(stream, later, [&] {
    ++held;
    return is_second;  // that of the first time stays
  });
  printf("# held %d\n", held);
  is_second = true;
}

int Ends(const std::string& how) {
  void* host = nullptr;
  alignas(4096) static char own[4096];
  const cudaStream_t idle = program::NonBlockingStream();
  if (how == "exit") atexit(&AtExit);  // CUDA has its handler, the pool none yet
  Free();
  if (how == "exit") {
    atexit(&AtExit);
  } else if (how == "own-stream") {
    std::thread([] {  // not the first thread, but the first to have work on a stream of its own
      const auto wait = [] { MUST(cudaStreamSynchronize(cudaStreamPerThread)); };
      LookAfter(wait, cudaStreamPerThread);
    })
        .join();
  } else if (how == "free-in-capture") {
    LookAfter([&] {
      MUST(cudaStreamBeginCapture(idle, cudaStreamCaptureModeRelaxed));
      Free();
      EndCapture(idle);
    });
  } else if (how == "free-managed") {
    LookAfter([] {
      void* managed = nullptr;
      MUST(cudaMallocManaged(&managed, 8));
      MUST(cudaFree(managed));
    });
  } else if (how == "free-host") {
    LookAfter([&] {
      MUST(cudaMallocHost(&host, 8));
      MUST(cudaFreeHost(host));
    });
  } else if (how == "unregister") {
    LookAfter([&] {
      MUST(cudaHostRegister(own, sizeof(own), cudaHostRegisterDefault));
      MUST(cudaHostUnregister(own));
    });
  } else if (how == "release") {
    LookAfter([&] {
      CUcontext context = nullptr;
      if (cuDevicePrimaryCtxRetain(&context, 0) != CUDA_SUCCESS) _Exit(3);
      if (cuDevicePrimaryCtxRelease(0) != CUDA_SUCCESS) _Exit(3);
    });
  } else {  // nothing lets go
    LookAfter([] {});
  }
  return 0;
}

int Resets(int count) {
  for (int i = 0; i < count; ++i) {
    const cudaStream_t streams[] = {program::NonBlockingStream(), program::NonBlockingStream()};
    for (int round = 0; round < 20; ++round) {
      Launch(streams[0]);
      Free();
      Launch(streams[1]);
      MUST(cudaDeviceSynchronize());
    }
    MUST(cudaDeviceReset());
  }
  return 0;
}

// What the host waited for, in each way, before it frees.
int Waited() {
  const cudaStream_t stream = program::NonBlockingStream();
  const cudaStream_t later = program::NonBlockingStream();
  char* memory = program::Allocate(8);
  void* host = nullptr;
  MUST(cudaMallocHost(&host, 8));
  for (int round = 0; round < 20; ++round) {
    MUST(cudaMemcpyAsync(host, memory, 8, cudaMemcpyDeviceToHost, stream));
    round % 2 == 0 ? MUST(cudaStreamSynchronize(stream)) : MUST(cudaDeviceSynchronize());
    Free();
    Launch(later);
    MUST(cudaDeviceSynchronize());
  }
  return 0;
}

// The host could see the end of any work.
int Mapped() {
  void* host = nullptr;
  MUST(cudaHostAlloc(&host, 8, cudaHostAllocMapped));
  const cudaStream_t stream = program::NonBlockingStream();
  for (int round = 0; round < 20; ++round) {
    Launch(stream);
    Free();
  }
  return 0;
}

// ---- Ends that no exit handler sees

size_t LinesIn(const char* path) {
  FILE* file = fopen(path, "r");
  size_t lines = 0;
  for (int c = 0; file != nullptr && (c = fgetc(file)) != EOF;) lines += c == '\n' ? 1 : 0;
  if (file != nullptr) fclose(file);
  return lines;
}

int Die(const std::string& how, const char* path) {
  constexpr size_t kLines = 4;  // two to begin with, and two streams
  Roles("ab", 1);
  for (int i = 0; i < 10000 && LinesIn(path) < kLines; ++i) usleep(1000);
  // A child that ends by itself has nothing to say of its parent.
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) exit(0);
  waitpid(child, nullptr, 0);
  if (how == "_exit") _exit(6);
  if (how == "abort") abort();
  return raise(SIGKILL);
}

int Run(const std::string& what, const char* argument, const char* file) {
  if (what == "holds") return Holds(argument);
  if (what == "copies") return Copies();
  if (what == "often") return Often(argument);
  if (what == "host") return OftenHost(argument);
  if (what == "own") return Own();
  if (what == "many") return Many();
  if (what == "destroyed") return Destroyed();
  if (what == "ends") return Ends(argument);
  if (what == "resets") return Resets(atoi(argument));
  if (what == "waited") return Waited();
  if (what == "mapped") return Mapped();
  if (what == "dies") return Die(argument, file);
  if (what == "roles") return Roles(argument);
  if (what == "generations") return Generations(atoi(argument));
  if (what == "together") return Together(*argument != '\0');
  if (what == "stacks") return Stacks();
  return 2;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) return 2;
  const int code = Run(arguments[1], count > 2 ? arguments[2] : "", count > 3 ? arguments[3] : "");
  MUST(cudaDeviceSynchronize());
  program::SayHazards();
  return code;
}
