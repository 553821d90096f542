// Threads that ask again and again whether work is done, beside threads that free.
//
//   polls beside ROUNDS    what a poll costs: calls of the driver, virtual time
//   polls ends             who has stopped asking stops no frees any more
//   polls told ROUNDS      who is told of a free never hears "not ready" of what was before it
//
// Notes ("# ") are counts that depend on the preload.
#include <chrono>
#include <thread>
#include <vector>

#include "helper.h"
#include "words.h"

namespace {

using program::Allocate;
using program::Helper;
using program::NonBlockingStream;
using program::WriteWord;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kLong = 50 * 1000 * 1000;  // ns: longer than all calls of a round
constexpr int kPolls = 10;

char* DeviceWord() {
  char* block = Allocate(4096);
  MUST(cudaMemset(block, 0, 4096));
  MUST(cudaDeviceSynchronize());
  return block;
}

void FreeUnrelated() { MUST(cudaFree(Allocate(1000))); }

uint64_t Questions() { return simCallCount("cuEventQuery") + simCallCount("cuEventSynchronize"); }

// A thread with a kernel of its own, and an event behind that.
struct Poller {
  char* word = DeviceWord();
  cudaStream_t stream = NonBlockingStream();
  cudaEvent_t event = nullptr;
  uint64_t polls = 0;
  uint64_t questions = 0;  // of the driver, by these polls
  uint64_t worst_ns = 0;   // of virtual time, of one poll
  uint64_t ready = 0;

  Poller() { MUST(cudaEventCreateWithFlags(&event, cudaEventDisableTiming)); }
  void Launch() {
    WriteWord(stream, word, 1, kLong);
    MUST(cudaEventRecord(event, stream));
  }
  // Nobody else makes calls meanwhile.
  void Poll(int times) {
    for (int i = 0; i < times; ++i) {
      const uint64_t before = Questions();
      const uint64_t begin = simNow();
      ready += cudaEventQuery(event) == cudaSuccess ? 1 : 0;
      cudaGetLastError();
      worst_ns = std::max(worst_ns, simNow() - begin);
      questions += Questions() - before;
      ++polls;
    }
  }
};

struct Meanwhile {
  std::thread::id thread;
  Helper& helper;
  Poller& poller;

  static void Called(void* data) {
    auto* that = static_cast<Meanwhile*>(data);
    if (std::this_thread::get_id() != that->thread) return;
    that->helper.Do([=] { that->poller.Poll(kPolls); });
  }
};

// Polls before, during and after frees, none of which the poller is told of before they return.
void Beside(int rounds) {
  char* word = DeviceWord();
  const cudaStream_t stream = NonBlockingStream();
  Poller poller;
  Helper helper;
  Meanwhile meanwhile = {std::this_thread::get_id(), helper, poller};
  uint64_t ready_after = 0;
  for (int round = 0; round < rounds; ++round) {
    WriteWord(stream, word, 1, kLong);
    helper.Do([&] {
      poller.Launch();
      poller.Poll(kPolls);
    });
    helper.Wait();
    // Where the free waits, the other thread goes on asking.
    simOnCall("cuEventSynchronize", SIM_BEFORE_CALL, Meanwhile::Called, &meanwhile);
    FreeUnrelated();
    simOnCall("cuEventSynchronize", SIM_BEFORE_CALL, nullptr, nullptr);
    helper.Do([&] {
      const uint64_t ready = poller.ready;
      poller.Poll(kPolls);
      ready_after += poller.ready - ready;
    });
    helper.Wait();
    MUST(cudaDeviceSynchronize());
  }
  printf("ready after the frees: %llu\n", static_cast<unsigned long long>(ready_after));
  printf("# polls: %llu\n", static_cast<unsigned long long>(poller.polls));
  printf("# questions: %llu\n", static_cast<unsigned long long>(poller.questions));
  printf("# worst ns: %llu\n", static_cast<unsigned long long>(poller.worst_ns));
}

// One poll, then none for longer than a thread counts as asking.
void Ends() {
  char* word = DeviceWord();
  const cudaStream_t stream = NonBlockingStream();
  Helper helper;
  const auto ask = [=] {
    const cudaError_t answer = cudaStreamQuery(stream);
    cudaGetLastError();
    return answer;
  };
  for (int round = 0; round < 3; ++round) {
    WriteWord(stream, word, 1, kLong);
    if (round == 0) {
      helper.Do([&] { printf("poll: %d\n", ask()); });
      helper.Wait();
    }
    FreeUnrelated();
    MUST(cudaDeviceSynchronize());
    usleep(30'000);
  }
}

// One thread works, frees and tells; one polls all the time, one now and then, one frees beside
// them. Decided by chance: how the polls lie beside the frees.
void Told(int rounds) {
  char* word = DeviceWord();
  char* other_word = DeviceWord();
  const cudaStream_t stream = NonBlockingStream();
  const cudaStream_t other_stream = NonBlockingStream();
  cudaEvent_t event = nullptr;
  MUST(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  std::atomic<int> told{0};   // rounds
  std::atomic<int> heard{0};  // answers
  std::atomic<int64_t> free_began{0};
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> wrong{0};
  std::atomic<uint64_t> judged{0};
  constexpr int kPollers = 2;
  // What is waited for after all ends at once: the pool's own questions bring it about.
  simOnCall(
      "cuEventQuery", SIM_BEFORE_CALL, [](void*) { simAdvance(10 * kLong); }, nullptr);
  const auto now = [] { return Clock::now().time_since_epoch().count(); };
  const auto poll = [&](int number) {
    MUST(cudaSetDevice(0));
    program::Random random(static_cast<uint64_t>(number) + 1);
    for (int round = 1; round <= rounds; ++round) {
      int seen = told;
      while (seen < round) {
        if (number == 0 || random.Below(20) == 0) {
          cudaStreamQuery(stream);
          cudaGetLastError();
        }
        if (random.Below(4) == 0) std::this_thread::yield();
        seen = told;
      }
      const cudaError_t answer = cudaStreamQuery(stream);
      cudaGetLastError();
      // A query waits for another thread's free for 100 ms at most.
      const auto passed = std::chrono::nanoseconds(now() - free_began);
      if (passed < std::chrono::milliseconds(50)) {
        ++judged;
        if (answer != cudaSuccess) ++wrong;
      }
      ++heard;
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < kPollers; ++i) threads.emplace_back(poll, i);
  threads.emplace_back([&] {
    MUST(cudaSetDevice(0));
    program::Random random(77);
    while (!stop) {
      if (random.Below(3) == 0) WriteWord(other_stream, other_word, 1, 1000);
      FreeUnrelated();
      usleep(static_cast<useconds_t>(random.Below(30) == 0 ? 12'000 : random.Below(200)));
    }
  });
  program::Random random(5);
  for (int round = 1; round <= rounds; ++round) {
    WriteWord(stream, word, 1, kLong);
    if (random.Below(2) == 0) usleep(static_cast<useconds_t>(random.Below(100)));
    free_began = now();
    FreeUnrelated();
    told = round;
    while (heard < round * kPollers) std::this_thread::yield();
    if (random.Below(20) == 0) usleep(15'000);
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  simOnCall("cuEventQuery", SIM_BEFORE_CALL, nullptr, nullptr);
  MUST(cudaDeviceSynchronize());
  printf("wrong: %llu\n", static_cast<unsigned long long>(wrong));
  printf("# judged: %llu\n", static_cast<unsigned long long>(judged));
}

}  // namespace

int main(int count, char** arguments) {
  const char* scenario = count > 1 ? arguments[1] : "";
  const int rounds = count > 2 ? atoi(arguments[2]) : 1;
  MUST(cudaFree(nullptr));
  FreeUnrelated();
  if (strcmp(scenario, "beside") == 0) {
    Beside(rounds);
  } else if (strcmp(scenario, "ends") == 0) {
    Ends();
  } else if (strcmp(scenario, "told") == 0) {
    Told(rounds);
  } else {
    return 2;
  }
  program::SayHazards();
  return 0;
}
