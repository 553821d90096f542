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

#include "owned_blocks.h"

namespace {

using cmp::demo::Corruptions;
using cmp::demo::Kernels;
using namespace cmp::gpu;

struct Block {
  void* words = nullptr;
  int device = 0;
  uint32_t count = 0;
  uint32_t id = 0;

  size_t bytes() const { return size_t{count} * 4; }
};

struct Shared {
  int devices;
  std::vector<Kernels> kernels;
  std::vector<Corruptions*> corruptions;  // one of each device
  bool peer_kernels;
  bool wait_for_peers;
};

class Worker {
 public:
  Worker(Traffic& traffic, const Shared& shared, unsigned index, unsigned seed)
      : traffic_(traffic),
        shared_(shared),
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

  void Step(uint32_t id) {
    const unsigned use = random_() % 8;
    const cudaStream_t stream = DrawStream(home_);
    const Block block = Make(home_, DrawWords(random_), id);
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

  // A GPU's queues have an end, where launches wait; the simulated ones have none.
  void Pause() {
    if (shared_.kernels[0].simulated()) CHECK(cudaStreamSynchronize(DrawStream(DrawDevice())));
  }
  void FreeAll(const std::vector<void*>& blocks) {
    for (void* words : blocks) {
      Use(DrawDevice());
      CHECK(cudaFree(words));
    }
  }
  void Finish() {
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
    // With peer access a copy runs in its source's context, whichever device's stream it is on. The
    // real cudaFree of its target unmaps the block there before it waits for a kernel that looks.
    const cudaStream_t foreign_to_block = on_others ? copying : nullptr;
    if (random_() % 2 == 0) {
      Free(block, foreign_to_block);
      Free(landing, copying);
    } else {
      Free(landing, copying);
      Free(block, foreign_to_block);
    }
  }

  // Frees it under any device, or has another thread do so. `foreign`: a stream of another device
  // with work on it, or nullptr.
  void Free(const Block& block, cudaStream_t foreign) {
    if (foreign != nullptr && shared_.wait_for_peers) CHECK(cudaStreamSynchronize(foreign));
    if (foreign != nullptr && random_() % 128 == 0) traffic_.AskWhetherPending(foreign);
    if (random_() % 16 == 0) {
      traffic_.Draw(random_).Put(block.words);
      return;
    }
    Use(DrawDevice());
    CHECK(cudaFree(block.words));
  }

  Traffic& traffic_;
  const Shared& shared_;
  int home_;
  std::mt19937 random_;
  std::vector<std::vector<cudaStream_t>> streams_;  // by device
  std::vector<cudaEvent_t> events_;
};

}  // namespace

int main(int argc, char** argv) {
  const int devices = DevicesOrSkip(std::atoi(Argument(argc, argv, "--devices", "64")));
  Amount amount(argc, argv, "4");
  amount.threads *= static_cast<unsigned>(devices);
  Watchdog watchdog(20);
  Shared shared{devices, LoadKernels(devices), {}, false, HasFlag(argc, argv, "--wait-for-peers")};
  for (int device = 0; device < devices; ++device) {
    Use(device);
    shared.corruptions.push_back(AllocateZeros<Corruptions>(1));
  }
  shared.peer_kernels = !HasFlag(argc, argv, "--no-access") && EnableAllAccess(devices);
  Traffic traffic(watchdog, amount);
  traffic.Run([&](unsigned index) { return Worker(traffic, shared, index, amount.seed); });
  Use(0);
  for (void* words : traffic.Left()) CHECK(cudaFree(words));
  for (int device = 0; device < devices; ++device) {
    Use(device);
    CHECK(cudaDeviceSynchronize());
  }
  std::fprintf(stderr, "two_gpus: peer_kernels %d\n", shared.peer_kernels ? 1 : 0);
  traffic.PrintRate("foreign_work_pending_at_free");
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
  std::printf("devices %d blocks %llu corruptions %llu\n", devices, traffic.blocks(),
              static_cast<unsigned long long>(found.words));
  return traffic.ExitCode(found.words);
}
