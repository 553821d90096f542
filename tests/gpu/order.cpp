// What programs get from cudaFree without knowing: work submitted after it runs after the work
// submitted before it, across streams. And what they get from cudaMalloc: it waits for nothing.
//
// Order: a kernel on one stream writes x late; something else is freed; whoever reads x on another
// stream afterwards must see the new value. By every reader, from every kind of stream, with one
// stream or several used before, freed by the same or another thread.
// Spin: a kernel that runs until a later one is launched on another stream, with allocations and
// earlier frees around; a pool that orders too much, or waits in cudaMalloc, never ends.
//
//   order [--rounds N] [--expect-stale | --stale-allowed]
//
// Prints `reads N stale N` for each reader and in all. Exit code 1 if there was a stale read; with
// --expect-stale if there was none; with --stale-allowed (CMP_FREE_SYNC=none) for hangs alone.
#include <functional>

#include "../demo/kernels.h"
#include "program.h"

namespace {

using cmp::demo::Kernels;
using namespace cmp::gpu;

constexpr uint64_t kLateNs = 150000;

struct Stage {
  const Kernels& kernels;
  Watchdog& watchdog;
  uint32_t* x;         // written late
  uint32_t* y;         // where readers on the device copy it
  uint32_t* x_pinned;  // where asynchronous readers copy it
  uint32_t* pattern;   // on the device
  uint32_t* gave_up;
  cudaStream_t reader;  // the stream of the reader at hand
};

// Every value is used once: it also names the work on the simulated CUDA.
uint32_t NewValue() {
  static uint32_t last = 1000;
  return ++last;
}

uint32_t CopiedBy(Stage& stage) {
  CHECK(cudaStreamSynchronize(stage.reader));
  return ReadBack(stage.y);
}

// A graph that copies x to y.
cudaGraphExec_t CopyGraph(const Stage& stage) {
  const cudaStream_t stream = MakeStream(cudaStreamNonBlocking);
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  stage.kernels.CopyWord(stream, stage.x, stage.y);
  cudaGraph_t graph = nullptr;
  CHECK(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t exec = nullptr;
  CHECK(cudaGraphInstantiate(&exec, graph, 0));
  CHECK(cudaGraphDestroy(graph));
  CHECK(cudaStreamDestroy(stream));
  return exec;
}

// A reader answers what it saw of x, when the writer wrote `value`. Sets answer `value` when they
// came after the write.
struct Reader {
  const char* name;
  bool legacy;  // always on the legacy stream: the stream at hand does not matter
  std::function<uint32_t(Stage&, uint32_t value)> read;
};

std::vector<Reader> Readers(const Stage& stage) {
  return {
      {"cudaMemcpy to the host", true, [](Stage& s, uint32_t) { return ReadBack(s.x); }},
      {"cudaMemcpy on the device", true,
       [](Stage& s, uint32_t) {
         CHECK(cudaMemcpy(s.y, s.x, sizeof(uint32_t), cudaMemcpyDeviceToDevice));
         return ReadBack(s.y);
       }},
      {"kernel", false,
       [](Stage& s, uint32_t) {
         s.kernels.CopyWord(s.reader, s.x, s.y);
         return CopiedBy(s);
       }},
      {"cudaMemcpyAsync on the device", false,
       [](Stage& s, uint32_t) {
         CHECK(cudaMemcpyAsync(s.y, s.x, sizeof(uint32_t), cudaMemcpyDeviceToDevice, s.reader));
         return CopiedBy(s);
       }},
      {"cudaMemcpyAsync to the host", false,
       [](Stage& s, uint32_t) {
         CHECK(
             cudaMemcpyAsync(s.x_pinned, s.x, sizeof(uint32_t), cudaMemcpyDeviceToHost, s.reader));
         CHECK(cudaStreamSynchronize(s.reader));
         return *s.x_pinned;
       }},
      {"graph launch", false,
       [exec = CopyGraph(stage)](Stage& s, uint32_t) {
         CHECK(cudaGraphLaunch(exec, s.reader));
         return CopiedBy(s);
       }},
      {"second free, then kernel", false,
       [](Stage& s, uint32_t) {
         CHECK(cudaFree(Allocate<char>(3000)));
         s.kernels.CopyWord(s.reader, s.x, s.y);
         return CopiedBy(s);
       }},
      {"cudaMemset", true,
       [](Stage& s, uint32_t value) {
         CHECK(cudaMemset(s.x, 0xAB, sizeof(uint32_t)));
         CHECK(cudaDeviceSynchronize());
         return ReadBack(s.x) == 0xABABABAB ? value : 0;
       }},
      {"cudaMemsetAsync", false,
       [](Stage& s, uint32_t value) {
         CHECK(cudaMemsetAsync(s.x, 0xAB, sizeof(uint32_t), s.reader));
         CHECK(cudaDeviceSynchronize());
         return ReadBack(s.x) == 0xABABABAB ? value : 0;
       }},
      {"cudaMemcpyAsync over it", false,
       [](Stage& s, uint32_t value) {
         CHECK(
             cudaMemcpyAsync(s.x, s.pattern, sizeof(uint32_t), cudaMemcpyDeviceToDevice, s.reader));
         CHECK(cudaDeviceSynchronize());
         return ReadBack(s.x) == 0xCDCDCDCD ? value : 0;
       }},
  };
}

struct Count {
  unsigned long long reads = 0;
  unsigned long long stale = 0;
};

struct Way {
  cudaStream_t writer;
  bool several;       // streams were used since the last synchronisation
  bool other_thread;  // frees
  size_t bytes;       // are freed
};

bool IsStale(Stage& stage, const Way& way, const Reader& reader, cudaStream_t third) {
  uint32_t* other = Allocate<uint32_t>(way.bytes / sizeof(uint32_t));
  const uint32_t value = NewValue();
  CHECK(cudaDeviceSynchronize());
  if (way.several) {
    stage.kernels.Empty(third);
    stage.kernels.Empty(stage.reader);
  }
  stage.kernels.WriteLate(way.writer, stage.x, value, kLateNs);
  if (way.other_thread) {
    std::thread([other] { CHECK(cudaFree(other)); }).join();
  } else {
    CHECK(cudaFree(other));
  }
  const uint32_t seen = reader.read(stage, value);
  CHECK(cudaDeviceSynchronize());
  return seen != value;
}

// REQUIRES: `streams` are of all kinds; the first two are non-blocking.
Count Order(Stage& stage, const std::vector<cudaStream_t>& streams, int rounds) {
  Count total;
  for (const Reader& reader : Readers(stage)) {
    Count count;
    stage.watchdog.Progress(reader.name);
    for (const cudaStream_t writer : streams) {
      for (const cudaStream_t read_on : streams) {
        if (read_on == writer || (reader.legacy && read_on != streams.back())) continue;
        for (int variant = 0; variant < 8; ++variant) {
          const Way way = {writer, (variant & 1) != 0, (variant & 2) != 0,
                           (variant & 4) != 0 ? 5 * kMiB : 2000};
          stage.reader = read_on;
          for (int round = 0; round < rounds; ++round) {
            ++count.reads;
            count.stale += IsStale(stage, way, reader, streams[1]) ? 1 : 0;
          }
        }
      }
    }
    std::printf("%-32s reads %llu stale %llu\n", reader.name, count.reads, count.stale);
    total.reads += count.reads;
    total.stale += count.stale;
  }
  return total;
}

// ---- Spin

enum class Releaser { kKernel, kMemset, kCopy, kBlockingCopy };

// What may come between the start of the spinning kernel and its releaser: allocations of every
// kind. No free: the real one would wait for ever, too.
void AllocateAround(std::vector<void*>& blocks) {
  for (const size_t bytes : {size_t{256}, size_t{2000}, 100 * kKiB, kMiB, 5 * kMiB, 40 * kMiB}) {
    for (int i = 0; i < 3; ++i) blocks.push_back(Allocate<char>(bytes));
  }
}

// `pending`: on how many streams work was submitted before the free; 0: there is no free.
void SpinOnce(Stage& stage, const std::vector<cudaStream_t>& streams, unsigned pending,
              Releaser releaser, bool allocates) {
  const cudaStream_t spins = streams[0];
  const cudaStream_t releases = streams[1];
  const uint32_t value = releaser == Releaser::kMemset   ? 0xABABABAB
                         : releaser == Releaser::kKernel ? NewValue()
                                                         : 0xCDCDCDCD;
  CHECK(cudaMemset(stage.x, 0, sizeof(uint32_t)));
  CHECK(cudaDeviceSynchronize());
  std::vector<void*> blocks;
  if (pending > 0) {
    AllocateAround(blocks);
    for (unsigned i = 0; i < pending; ++i) stage.kernels.Delay(streams[i], kLateNs);
    for (void* block : blocks) CHECK(cudaFree(block));
    blocks.clear();
  }
  stage.kernels.SpinUntil(spins, stage.x, value, stage.gave_up);
  if (allocates) AllocateAround(blocks);
  switch (releaser) {
    case Releaser::kKernel:
      stage.kernels.WriteLate(releases, stage.x, value, 0);
      break;
    case Releaser::kMemset:
      CHECK(cudaMemsetAsync(stage.x, 0xAB, sizeof(uint32_t), releases));
      break;
    case Releaser::kCopy:
      CHECK(cudaMemcpyAsync(stage.x, stage.pattern, sizeof(uint32_t), cudaMemcpyDeviceToDevice,
                            releases));
      break;
    case Releaser::kBlockingCopy:
      CHECK(cudaMemcpy(stage.x, stage.pattern, sizeof(uint32_t), cudaMemcpyDeviceToDevice));
      break;
  }
  CHECK(cudaDeviceSynchronize());
  for (void* block : blocks) CHECK(cudaFree(block));
  const uint32_t gave_up = ReadBack(stage.gave_up);
  if (gave_up == 0) return;
  std::printf(
      "spin: DEADLOCK: a kernel spun for 3 s, because what should have ended it, or a cudaMalloc "
      "before that, waited for it (pending streams %u, releaser %d, allocations %d)\n",
      pending, static_cast<int>(releaser), allocates ? 1 : 0);
  std::fflush(stdout);
  _exit(1);
}

void Spin(Stage& stage, const std::vector<cudaStream_t>& streams, int rounds) {
  // On the simulated CUDA only a kernel can release.
  const std::vector<Releaser> releasers =
      stage.kernels.simulated() ? std::vector<Releaser>{Releaser::kKernel}
                                : std::vector<Releaser>{Releaser::kKernel, Releaser::kMemset,
                                                        Releaser::kCopy, Releaser::kBlockingCopy};
  int spins = 0;
  for (int round = 0; round < rounds; ++round) {
    for (const Releaser releaser : releasers) {
      for (const unsigned pending : {0u, 1u, 2u, 3u}) {
        for (const bool allocates : {false, true}) {
          stage.watchdog.Progress("a kernel that spins until a later one runs");
          SpinOnce(stage, streams, pending, releaser, allocates);
          ++spins;
        }
      }
    }
  }
  std::printf("spin: %d kernels ended\n", spins);
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = std::atoi(Argument(argc, argv, "--rounds", "3"));
  StartCudaOrSkip();
  Watchdog watchdog(20);
  const Kernels kernels;
  uint32_t* pinned = nullptr;
  CHECK(cudaMallocHost(reinterpret_cast<void**>(&pinned), sizeof(uint32_t)));
  Stage stage{kernels,
              watchdog,
              AllocateZeros<uint32_t>(1),
              AllocateZeros<uint32_t>(1),
              pinned,
              AllocateZeros<uint32_t>(1),
              AllocateZeros<uint32_t>(1),
              nullptr};
  CHECK(cudaMemset(stage.pattern, 0xCD, sizeof(uint32_t)));
  CHECK(cudaDeviceSynchronize());
  const std::vector<cudaStream_t> streams = {
      MakeStream(cudaStreamNonBlocking), MakeStream(cudaStreamNonBlocking),
      MakeStream(cudaStreamDefault), cudaStreamPerThread, cudaStreamLegacy};
  const Count total = Order(stage, streams, rounds);
  std::printf("order: reads %llu stale %llu\n", total.reads, total.stale);
  std::fflush(stdout);
  // No blocking stream here: the blocking copy waits for those.
  Spin(stage, {streams[0], streams[1], MakeStream(cudaStreamNonBlocking)}, rounds);
  if (HasFlag(argc, argv, "--stale-allowed")) return 0;
  return (total.stale != 0) == HasFlag(argc, argv, "--expect-stale") ? 0 : 1;
}
