// Threads that ask all the time whether work is done, as watchdogs and progress engines do, beside
// one that frees. The real cudaFree stops the thread that calls it, and nobody else.
//
//   polling [--seconds S]
//
// Beside frees: one thread launches long kernels and frees a small block after each; another polls
// the event of a shorter kernel of its own. Beside a watchdog: a thread allocates, launches and
// frees; first alone, then while another one looks at the events of all streams every 100 µs.
//
// Prints one JSON line of counts: polls a second, of those the ones that took longer than 2 ms (but
// for the first poll), frees a second beside them; iterations a second alone and beside the
// watchdog, and the looks of that which found work undone.
#include "../demo/kernels.h"
#include "program.h"

namespace {

using cmp::demo::Kernels;
using namespace cmp::gpu;

constexpr uint64_t kLongNs = 20'000'000;
constexpr uint64_t kShortNs = 5'000'000;
constexpr uint64_t kIterationNs = 20'000;
constexpr double kSlow = 0.002;  // s
constexpr size_t kStreams = 4;

cudaEvent_t MakeEvent() {
  cudaEvent_t event = nullptr;
  CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return event;
}

bool IsReady(cudaEvent_t event) {
  const cudaError_t answer = cudaEventQuery(event);
  if (answer != cudaErrorNotReady) CHECK(answer);
  cudaGetLastError();
  return answer == cudaSuccess;
}

struct Polls {
  double seconds = 0;
  uint64_t polls = 0;
  uint64_t slow = 0;
  uint64_t frees = 0;
};

Polls BesideFrees(const Kernels& kernels, Watchdog& watchdog, double seconds) {
  const cudaStream_t frees_on = MakeStream(cudaStreamNonBlocking);
  const cudaStream_t polls_on = MakeStream(cudaStreamNonBlocking);
  const cudaEvent_t event = MakeEvent();
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> frees{0};
  std::thread other([&] {
    CHECK(cudaSetDevice(0));
    while (!stop) {
      kernels.Delay(frees_on, kLongNs);
      CHECK(cudaFree(Allocate<char>(4096)));
      frees.fetch_add(1);
      CHECK(cudaStreamSynchronize(frees_on));  // where the free did not: no backlog
    }
  });
  while (frees == 0) std::this_thread::yield();
  Polls polls;
  const uint64_t frees_before = frees;
  bool is_first = true;
  const auto begin = Clock::now();
  for (double now = 0; now < seconds;) {
    watchdog.Progress("polls beside frees");
    kernels.Delay(polls_on, kShortNs);
    CHECK(cudaEventRecord(event, polls_on));
    for (bool ready = false; !ready && now < seconds;) {
      const double before = SecondsSince(begin);
      ready = IsReady(event);
      now = SecondsSince(begin);
      if (!is_first) {
        ++polls.polls;
        polls.slow += now - before > kSlow ? 1 : 0;
      }
      is_first = false;
    }
  }
  polls.seconds = SecondsSince(begin);
  polls.frees = frees - frees_before;
  stop = true;
  other.join();
  CHECK(cudaDeviceSynchronize());
  return polls;
}

struct Training {
  const Kernels& kernels;
  Watchdog& watchdog;
  cudaStream_t streams[kStreams];
  cudaEvent_t events[kStreams];

  // Iterations a second.
  double Train(double seconds) {
    uint64_t iterations = 0;
    const auto begin = Clock::now();
    while (SecondsSince(begin) < seconds) {
      watchdog.Progress("training");
      const size_t at = iterations++ % kStreams;
      char* block = Allocate<char>(kMiB);
      kernels.Delay(streams[at], kIterationNs);
      CHECK(cudaEventRecord(events[at], streams[at]));
      CHECK(cudaFree(block));
    }
    CHECK(cudaDeviceSynchronize());
    return static_cast<double>(iterations) / SecondsSince(begin);
  }

  // The same beside a thread that looks; `undone`: how often it found work undone.
  double TrainBesideLooks(double seconds, uint64_t* undone) {
    std::atomic<bool> stop{false};
    std::thread looks([&] {
      CHECK(cudaSetDevice(0));
      while (!stop) {
        for (const cudaEvent_t event : events) *undone += IsReady(event) ? 0 : 1;
        usleep(100);
      }
    });
    const double rate = Train(seconds);
    stop = true;
    looks.join();
    return rate;
  }
};

}  // namespace

int main(int argc, char** argv) {
  const double seconds = std::atof(Argument(argc, argv, "--seconds", "1"));
  StartCudaOrSkip();
  Watchdog watchdog(20);
  const Kernels kernels;
  CHECK(cudaFree(Allocate<char>(4096)));
  CHECK(cudaDeviceSynchronize());
  const Polls polls = BesideFrees(kernels, watchdog, seconds);
  Training training{kernels, watchdog, {}, {}};
  for (size_t i = 0; i < kStreams; ++i) {
    training.streams[i] = MakeStream(cudaStreamNonBlocking);
    training.events[i] = MakeEvent();
  }
  training.Train(seconds / 4);  // the pool fills
  const double alone = training.Train(seconds);
  uint64_t undone = 0;
  const double beside = training.TrainBesideLooks(seconds, &undone);
  std::printf(
      "{\"polls_per_second\": %.0f, \"polls_over_2_ms\": %llu, \"frees_per_second\": %.0f, "
      "\"iterations_alone\": %.0f, \"iterations_beside_watchdog\": %.0f, \"looks_undone\": %llu}\n",
      static_cast<double>(polls.polls) / polls.seconds, static_cast<unsigned long long>(polls.slow),
      static_cast<double>(polls.frees) / polls.seconds, alone, beside,
      static_cast<unsigned long long>(undone));
  return 0;
}
