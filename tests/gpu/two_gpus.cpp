// stress.cpp for several GPUs: is memory ever handed out while another device may still touch it?
// Threads on every device allocate blocks of mixed sizes there and have them used by kernels of
// their own device, by kernels of another one (peer access), and by peer copies in both directions
// on either device's streams; they free them while that is pending, under any current device, or
// hand them to a thread of any device to free. A kernel owns its block from its beginning to its
// end (Kernels::Stamp), so whoever gets the block too early is found: by the late write of a kernel
// or of a copy, or by what a copy brought from a block that was not the sender's any more.
//
//   two_gpus [--devices N] [--threads N] [--blocks N] [--seconds S] [--seed N]
//            [--wait-for-peers] [--no-access] [--expect-corruption]
//
// Threads are per device. With --no-access no device may use another one's memory: there are copies
// alone between them. With --wait-for-peers a block is freed when what other devices did with
// it is over, and only its own device's work is pending: for a cudaFree that waits for no more.
// Prints `devices N blocks N corruptions N`; exit code 1 if there was a corruption, or with
// --expect-corruption if there was none.
#include "two_gpus.h"

#include <mutex>
#include <random>
#include <utility>

namespace {

using cmp::demo::Corruptions;
using cmp::demo::Kernels;
using namespace cmp::gpu;

constexpr uint32_t kLeastWords = 64;       // 256 B
constexpr uint32_t kMostWords = 2u << 20;  // 8 MiB

struct Block {
  void* words = nullptr;
  int device = 0;
  uint32_t count = 0;
  uint32_t id = 0;

  size_t bytes() const { return size_t{count} * 4; }
};

// Blocks on their way to another thread, which frees them.
class Mailbox {
 public:
  void Put(void* words) {
    const std::lock_guard<std::mutex> lock(mutex_);
    words_.push_back(words);
  }
  std::vector<void*> TakeAll() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(words_, {});
  }

 private:
  std::mutex mutex_;
  std::vector<void*> words_;
};

struct Shared {
  int devices;
  std::vector<Kernels> kernels;
  std::vector<Corruptions*> corruptions;  // one of each device
  bool peer_kernels;
  bool wait_for_peers;
  Watchdog& watchdog;
  Clock::time_point end;
  std::vector<Mailbox> mailboxes;
  std::atomic<uint64_t> blocks{0};
  std::atomic<uint64_t> asked{0};
  std::atomic<uint64_t> pending{0};
};

uint64_t DrawNanoseconds(std::mt19937& random) {
  const uint64_t usual = 3000 + random() % 25000;
  return random() % 32 == 0 ? usual + 200000 : usual;
}

class Worker {
 public:
  Worker(Shared& shared, unsigned index, unsigned seed)
      : shared_(shared),
        index_(index),
        home_(static_cast<int>(index) % shared.devices),
        random_(seed * 1000 + index) {
    for (int device = 0; device < shared.devices; ++device) {
      streams_.push_back({MakeStreamOn(device, cudaStreamNonBlocking),
                          MakeStreamOn(device, cudaStreamNonBlocking),
                          MakeStreamOn(device, cudaStreamDefault)});
      events_.push_back(nullptr);
      CHECK(cudaEventCreateWithFlags(&events_.back(), cudaEventDisableTiming));
    }
  }

  void Run(uint32_t first_id, uint32_t blocks) {
    uint32_t done = 0;
    for (; done < blocks; ++done) {
      Step(first_id + done);
      if (done % 64 != 0) continue;
      // A GPU's queues have an end, where launches wait; the simulated ones have none.
      if (shared_.kernels[0].simulated()) {
        CHECK(cudaStreamSynchronize(DrawStream(DrawDevice())));
      }
      shared_.watchdog.Progress("allocating and freeing");
      EmptyMailbox();
      if (Clock::now() >= shared_.end) break;
    }
    shared_.blocks += done;
  }

  void Finish() {
    EmptyMailbox();
    for (size_t device = 0; device < streams_.size(); ++device) {
      Use(static_cast<int>(device));
      for (cudaStream_t stream : streams_[device]) CHECK(cudaStreamDestroy(stream));
      CHECK(cudaEventDestroy(events_[device]));
    }
  }

 private:
  int DrawDevice() { return static_cast<int>(random_() % static_cast<unsigned>(shared_.devices)); }
  int DrawOther(int device) {
    const unsigned step = 1 + random_() % static_cast<unsigned>(shared_.devices - 1);
    return (device + static_cast<int>(step)) % shared_.devices;
  }
  cudaStream_t DrawStream(int device) {
    const auto& streams = streams_[static_cast<size_t>(device)];
    return streams[random_() % streams.size()];
  }
  // Every doubling from 256 B to 8 MiB, small ones more often.
  uint32_t DrawWords() {
    constexpr uint32_t kDoublings = 15;
    const uint32_t least = std::min(random_() % kDoublings, random_() % kDoublings);
    const uint32_t words = kLeastWords << least;
    return std::min(words + static_cast<uint32_t>(random_()) % words, kMostWords);
  }

  Block Make(int device, uint32_t count, uint32_t id) {
    Use(device);
    Block block{nullptr, device, count, id};
    CHECK(cudaMalloc(&block.words, block.bytes()));
    return block;
  }

  // A kernel of `device` on a block of any device. REQUIRES: `device` is current
  void Stamp(int device, cudaStream_t stream, const Block& block, bool fresh) {
    const auto at = static_cast<size_t>(device);
    shared_.kernels[at].Stamp(stream, block.words, block.count, block.id, fresh,
                              DrawNanoseconds(random_), shared_.corruptions[at]);
  }

  // Later work of `to` runs after what `from`, a stream of `device`, was given so far.
  void OrderAfter(int device, cudaStream_t from, int to_device, cudaStream_t to) {
    const cudaEvent_t event = events_[static_cast<size_t>(device)];
    Use(device);
    CHECK(cudaEventRecord(event, from));
    Use(to_device);
    CHECK(cudaStreamWaitEvent(to, event, 0));
  }

  void Step(uint32_t id) {
    const unsigned use = random_() % 8;
    const cudaStream_t stream = DrawStream(home_);
    const Block block = Make(home_, DrawWords(), id);
    const int other = DrawOther(home_);
    if (use < 2) {
      Stamp(home_, stream, block, true);
      Free(block, nullptr);
    } else if (use < 4 && shared_.peer_kernels) {
      const cudaStream_t peer = DrawStream(other);
      Use(other);
      Stamp(other, peer, block, true);
      Free(block, peer);
    } else {
      CopyTo(other, stream, block, use % 2 == 0);
    }
  }

  // The block's contents go to a block of another device, on a stream of one of the two, and are
  // looked at there; both are freed behind it.
  void CopyTo(int other, cudaStream_t stream, const Block& block, bool on_others) {
    const cudaStream_t others = DrawStream(other);
    const cudaStream_t copying = on_others ? others : stream;
    Stamp(home_, stream, block, true);
    const Block landing = Make(other, block.count, block.id);
    if (on_others) OrderAfter(home_, stream, other, others);
    Use(on_others ? other : home_);
    CHECK(cudaMemcpyPeerAsync(landing.words, landing.device, block.words, block.device,
                              block.bytes(), copying));
    const bool look = random_() % 2 == 0;  // or the copy itself is what is pending at the free
    if (look) {
      if (!on_others) OrderAfter(home_, stream, other, others);
      Use(other);
      Stamp(other, others, landing, false);
    }
    const bool foreign_to_block = on_others;
    // With peer access a copy runs in its source's context, whichever device's stream it is on.
    const bool foreign_to_landing = !look;
    if (random_() % 2 == 0) {
      Free(block, foreign_to_block ? copying : nullptr);
      Free(landing, foreign_to_landing ? copying : nullptr);
    } else {
      Free(landing, foreign_to_landing ? copying : nullptr);
      Free(block, foreign_to_block ? copying : nullptr);
    }
  }

  // Frees it under any device, or has another thread do so. `foreign`: a stream of another device
  // with work on it, or nullptr.
  void Free(const Block& block, cudaStream_t foreign) {
    if (foreign != nullptr && shared_.wait_for_peers) CHECK(cudaStreamSynchronize(foreign));
    if (foreign != nullptr && random_() % 128 == 0) AskWhetherPending(foreign);
    if (random_() % 16 == 0) {
      shared_.mailboxes[random_() % shared_.mailboxes.size()].Put(block.words);
      return;
    }
    Use(DrawDevice());
    CHECK(cudaFree(block.words));
  }

  void EmptyMailbox() {
    for (void* words : shared_.mailboxes[index_].TakeAll()) {
      Use(DrawDevice());
      CHECK(cudaFree(words));
    }
  }

  void AskWhetherPending(cudaStream_t stream) {
    const cudaError_t status = cudaStreamQuery(stream);
    if (status != cudaErrorNotReady) CHECK(status);
    ++shared_.asked;
    shared_.pending += status == cudaErrorNotReady ? 1 : 0;
    cudaGetLastError();
  }

  Shared& shared_;
  unsigned index_;
  int home_;
  std::mt19937 random_;
  std::vector<std::vector<cudaStream_t>> streams_;  // by device
  std::vector<cudaEvent_t> events_;
};

}  // namespace

int main(int argc, char** argv) {
  const int devices = DevicesOrSkip(std::atoi(Argument(argc, argv, "--devices", "64")));
  const auto per_device =
      static_cast<unsigned>(std::max(1, std::atoi(Argument(argc, argv, "--threads", "4"))));
  const auto blocks =
      static_cast<uint32_t>(std::atoll(Argument(argc, argv, "--blocks", "2000000")));
  const double seconds = std::atof(Argument(argc, argv, "--seconds", "80"));
  const auto seed = static_cast<unsigned>(std::atoi(Argument(argc, argv, "--seed", "1")));
  const bool expected = HasFlag(argc, argv, "--expect-corruption");
  const unsigned threads = per_device * static_cast<unsigned>(devices);
  Watchdog watchdog(20);
  std::vector<Kernels> kernels = LoadKernels(devices);
  std::vector<Corruptions*> corruptions;
  for (int device = 0; device < devices; ++device) {
    Use(device);
    corruptions.push_back(AllocateZeros<Corruptions>(1));
  }
  const bool peer_kernels = !HasFlag(argc, argv, "--no-access") && EnableAllAccess(devices);
  const auto begin = Clock::now();
  Shared shared{devices,
                std::move(kernels),
                std::move(corruptions),
                peer_kernels,
                HasFlag(argc, argv, "--wait-for-peers"),
                watchdog,
                begin + std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000)),
                std::vector<Mailbox>(threads)};
  const uint32_t each = (blocks + threads - 1) / threads;
  std::vector<std::thread> workers;
  for (unsigned i = 0; i < threads; ++i) {
    workers.emplace_back([&shared, i, seed, each] {
      Worker worker(shared, i, seed);
      worker.Run(i * each + 1, each);
      worker.Finish();
    });
  }
  for (std::thread& worker : workers) worker.join();
  Use(0);
  for (Mailbox& mailbox : shared.mailboxes) {  // of threads that had ended
    for (void* words : mailbox.TakeAll()) CHECK(cudaFree(words));
  }
  for (int device = 0; device < devices; ++device) {
    Use(device);
    CHECK(cudaDeviceSynchronize());
  }
  const double taken = SecondsSince(begin);
  Corruptions found = {};
  for (int device = 0; device < devices; ++device) {
    const Corruptions here = ReadBack(shared.corruptions[static_cast<size_t>(device)]);
    found.words += here.words;
    if (here.words != 0) {
      std::fprintf(stderr, "two_gpus: the first of device %d: block %u found the stamp of %u\n",
                   device, here.expected, here.found);
    }
    CHECK(cudaFree(shared.corruptions[static_cast<size_t>(device)]));
  }
  std::printf("devices %d blocks %llu corruptions %llu\n", devices,
              static_cast<unsigned long long>(shared.blocks),
              static_cast<unsigned long long>(found.words));
  std::fprintf(stderr,
               "two_gpus: peer_kernels %d seconds %.3f blocks_per_second %.0f "
               "foreign_work_pending_at_free %.1f%%\n",
               peer_kernels ? 1 : 0, taken, static_cast<double>(shared.blocks) / taken,
               100.0 * static_cast<double>(shared.pending) /
                   static_cast<double>(std::max<uint64_t>(shared.asked, 1)));
  return (found.words != 0) == expected ? 0 : 1;
}
