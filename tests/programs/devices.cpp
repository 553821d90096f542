// Several devices that use each other's memory: kernels on another device's blocks, peer copies in
// both directions, frees under any current device, a device that is reset beside others.
//
//   devices use SEED OPERATIONS THREADS [pending]   blocks of all devices, used by all
//   devices order       what a free gives, seen from another device
//   devices apart       a thread for each device, whose kernels wait for each other
//   devices overwrite   what is copied while a free comes, is copied
//   devices copies      blocks are freed while they are copied to; pending
//   devices sources     blocks are freed while they are copied from
//   devices short       memory runs out while freed blocks are copied to; pending
//   devices frees       what the real free waits for of another device's copies
//   devices host        what a free gives, of copies to the host
//   devices reset       of one device after the other
//   devices ends        a device is reset, or a context destroyed, that writes into freed blocks;
//                       pending
//   devices guest       a device works that never allocates; pending
//   devices stays [access | box]   a kernel stays on one device while another one allocates and
//   copies
//
// The real free waits for what runs on the block's own device alone: kernels of its streams, and
// copies from it to another device; a copy to it runs on its source. So a program waits for the
// rest before it frees; with `pending` it does not, for a pool that must not hand out the block
// meanwhile.
#include <cuda.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <thread>
#include <vector>

#include "create_context.h"
#include "program.h"

namespace {

using program::Allocate;
using program::Must;
using program::Random;
using program::Say;

constexpr size_t kSizes[] = {256, 5000, 70000, size_t{1} << 20, (size_t{2} << 20) + 4096};
constexpr uint64_t kWorkNs = 20000;

// Small ones more often: the host copies what the program has copied.
size_t DrawSize(Random& random) {
  return kSizes[std::min(random.Below(std::size(kSizes)), random.Below(std::size(kSizes)))];
}

int Devices() {
  int count = 0;
  MUST(cudaGetDeviceCount(&count));
  return count;
}

void EnableAllAccess() {
  for (int device = 0; device < Devices(); ++device) {
    for (int peer = 0; peer < Devices(); ++peer) {
      if (device == peer) continue;
      MUST(cudaSetDevice(device));
      MUST(cudaDeviceEnablePeerAccess(peer, 0));
    }
  }
}

void SynchronizeAll() {
  for (int device = 0; device < Devices(); ++device) {
    MUST(cudaSetDevice(device));
    MUST(cudaDeviceSynchronize());
  }
}

struct Stream {
  int device = 0;
  cudaStream_t handle = nullptr;
  cudaEvent_t event = nullptr;
};

Stream MakeStream(int device) {
  Stream stream{device, nullptr, nullptr};
  MUST(cudaSetDevice(device));
  stream.handle = program::NonBlockingStream();
  MUST(cudaEventCreateWithFlags(&stream.event, cudaEventDisableTiming));
  return stream;
}

// A block and the stream that used it last; all uses are ordered by events.
struct Block {
  char* pointer = nullptr;
  size_t bytes = 0;
  int device = 0;
  uint64_t seed = 0;
  const Stream* last = nullptr;
  int runs_on = 0;  // the device on which that use runs
};

class Actor {
 public:
  Actor(uint64_t seed, bool pending, std::atomic<uint64_t>& wrong)
      : random_(seed), pending_(pending), wrong_(wrong) {
    for (int device = 0; device < Devices(); ++device) {
      for (int i = 0; i < 2; ++i) streams_.push_back(MakeStream(device));
    }
  }
  ~Actor() {
    while (!blocks_.empty()) Free(blocks_.size() - 1);
    for (const Stream& stream : streams_) {
      MUST(cudaSetDevice(stream.device));
      MUST(cudaStreamDestroy(stream.handle));
      MUST(cudaEventDestroy(stream.event));
    }
  }
  Actor(const Actor&) = delete;
  Actor& operator=(const Actor&) = delete;

  void Step() {
    const uint64_t what = random_.Below(10);
    if (blocks_.size() < 4 || what == 0) {
      const int device = RandomDevice();
      Make(device, DrawSize(random_), RandomStreamOf(device));
    } else if (what < 3) {
      Check(blocks_[random_.Below(blocks_.size())]);
    } else if (what == 3) {
      Write(blocks_[random_.Below(blocks_.size())], RandomStream());
    } else if (what < 6) {
      Copy(blocks_[random_.Below(blocks_.size())]);
    } else if (what < 8) {
      Free(random_.Below(blocks_.size()));
    } else {
      Pass();
    }
  }

 private:
  int RandomDevice() { return static_cast<int>(random_.Below(static_cast<uint64_t>(Devices()))); }
  const Stream& RandomStream() { return streams_[random_.Below(streams_.size())]; }

  const Stream& RandomStreamOf(int device) {
    return streams_[2 * static_cast<size_t>(device) + random_.Below(2)];
  }

  // The stream's device is current afterwards.
  void Follow(Block& block, const Stream& stream) {
    if (block.last != nullptr && block.last != &stream) {
      MUST(cudaSetDevice(block.last->device));
      MUST(cudaEventRecord(block.last->event, block.last->handle));
      MUST(cudaStreamWaitEvent(stream.handle, block.last->event, 0));
    }
    MUST(cudaSetDevice(stream.device));
    block.last = &stream;
    block.runs_on = stream.device;
  }

  // Written by a kernel on the stream, of any device.
  void Make(int device, size_t bytes, const Stream& stream) {
    MUST(cudaSetDevice(device));
    Block block{Allocate(bytes), bytes, device, 0, nullptr, device};
    simNoteAlloc(block.pointer, bytes);
    blocks_.push_back(block);
    Write(blocks_.back(), stream);
  }
  void Write(Block& block, const Stream& stream) {
    Follow(block, stream);
    block.seed = random_.Next();
    program::LaunchWrite(stream.handle, block.pointer, block.bytes, block.seed, kWorkNs);
  }
  void Check(Block& block) {
    const Stream& stream = RandomStream();
    Follow(block, stream);
    program::LaunchCheck(stream.handle, block.pointer, block.bytes, block.seed, &wrong_, kWorkNs);
  }
  // To a new block of any device, on any device's stream.
  void Copy(const Block& chosen) {
    const auto from = static_cast<size_t>(&chosen - blocks_.data());
    Make(RandomDevice(), chosen.bytes, RandomStream());
    Block& source = blocks_[from];
    Block& target = blocks_.back();
    const Stream& stream = RandomStream();
    Follow(source, stream);
    Follow(target, stream);
    MUST(cudaMemcpyPeerAsync(target.pointer, target.device, source.pointer, source.device,
                             source.bytes, stream.handle));
    source.runs_on = target.runs_on = source.device;
    target.seed = source.seed;
  }
  // A block that another device alone uses, and that is freed at once.
  void Pass() {
    const Stream& stream = RandomStream();
    Make(RandomDevice(), DrawSize(random_), stream);
    Free(blocks_.size() - 1);
  }
  void Free(size_t index) {
    const Block block = blocks_[index];
    blocks_[index] = blocks_.back();
    blocks_.pop_back();
    if (!pending_ && block.runs_on != block.device) {
      MUST(cudaStreamSynchronize(block.last->handle));
    }
    MUST(cudaSetDevice(RandomDevice()));
    simNoteFree(block.pointer);
    MUST(cudaFree(block.pointer));
  }

  Random random_;
  bool pending_;
  std::atomic<uint64_t>& wrong_;
  std::vector<Stream> streams_;
  std::vector<Block> blocks_;
};

void Use(uint64_t seed, int operations, int threads, bool pending) {
  EnableAllAccess();
  std::atomic<uint64_t> wrong{0};
  std::vector<std::thread> actors;
  for (int i = 0; i < threads; ++i) {
    actors.emplace_back([&, i] {
      Actor actor(seed * 100 + static_cast<uint64_t>(i), pending, wrong);
      for (int done = 0; done < operations; ++done) actor.Step();
    });
  }
  for (std::thread& actor : actors) actor.join();
  SynchronizeAll();
  printf("wrong words %llu, last error %d\n", static_cast<unsigned long long>(wrong),
         static_cast<int>(cudaPeekAtLastError()));
}

// ---- Order

struct Copied {
  const uint64_t* from;
  uint64_t* to;
};
void CopyWord(void* data) {
  const std::unique_ptr<Copied> copied(static_cast<Copied*>(data));
  *copied->to = *copied->from;
}

void LaunchStore(cudaStream_t stream, uint64_t* word, uint64_t value) {
  struct Store {
    uint64_t* word;
    uint64_t value;
  };
  const SimRange range = {word, sizeof *word};
  SimWork work = {};
  work.duration_ns = 1000000;
  work.writes = &range;
  work.write_count = 1;
  work.effect = [](void* data) {
    const std::unique_ptr<Store> store(static_cast<Store*>(data));
    *store->word = store->value;
  };
  work.data = new Store{word, value};
  MUST(program::Launch(stream, work));
}

void LaunchCopy(cudaStream_t stream, const uint64_t* from, uint64_t* to) {
  const SimRange read = {from, sizeof *from};
  const SimRange written = {to, sizeof *to};
  SimWork work = {};
  work.duration_ns = 1000;
  work.reads = &read;
  work.read_count = 1;
  work.writes = &written;
  work.write_count = 1;
  work.effect = &CopyWord;
  work.data = new Copied{from, to};
  MUST(program::Launch(stream, work));
}

uint64_t ReadBack(const uint64_t* word) {
  uint64_t value = 0;
  MUST(cudaMemcpy(&value, word, sizeof value, cudaMemcpyDeviceToHost));
  return value;
}

void CopyWithAttributes(void* to, const void* from, size_t bytes, cudaStream_t stream) {
#if CUDA_VERSION >= 13000
  CUmemcpyAttributes attributes{};
  attributes.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
  MUST(static_cast<cudaError_t>(cuMemcpyWithAttributesAsync(reinterpret_cast<CUdeviceptr>(to),
                                                            reinterpret_cast<CUdeviceptr>(from),
                                                            bytes, &attributes, stream)));
#else
  MUST(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream));
#endif
}

// A kernel of one device writes x late, something else of that device is freed, perhaps by another
// thread, and another device reads x.
// Without access to each other's memory the devices only copy.
void Order(bool access, bool other_thread) {
  uint64_t value = 100;
  constexpr const char* kReaders[] = {"kernel",
                                      "kernel on the legacy stream",
                                      "peer copy",
                                      "synchronous peer copy",
                                      "copy to the host",
                                      "graph launch",
                                      "copy with attributes"};
  for (size_t how = access ? 0 : 2; how < std::size(kReaders); ++how) {
    for (int writer = 0; writer < Devices(); ++writer) {
      const int reader = (writer + 1) % Devices();
      MUST(cudaSetDevice(reader));
      auto* y = reinterpret_cast<uint64_t*>(Allocate(512));
      const cudaStream_t reading = program::NonBlockingStream();
      MUST(cudaSetDevice(writer));
      auto* x = reinterpret_cast<uint64_t*>(Allocate(512));
      const cudaStream_t writing = program::NonBlockingStream();
      MUST(cudaMemset(x, 0, 512));
      char* freed = Allocate(5000);
      cudaGraphExec_t graph = nullptr;
      if (how == 5) {
        MUST(cudaSetDevice(reader));
        cudaGraph_t captured = nullptr;
        MUST(cudaStreamBeginCapture(reading, cudaStreamCaptureModeRelaxed));
        MUST(cudaMemcpyAsync(y, x, sizeof *x, cudaMemcpyDefault, reading));
        MUST(cudaStreamEndCapture(reading, &captured));
        MUST(cudaGraphInstantiate(&graph, captured, 0));
        MUST(cudaGraphDestroy(captured));
        MUST(cudaSetDevice(writer));
      }
      SynchronizeAll();
      MUST(cudaSetDevice(writer));
      LaunchStore(writing, x, ++value);
      if (other_thread) {
        std::thread([freed] { MUST(cudaFree(freed)); }).join();
      } else {
        MUST(cudaFree(freed));
      }
      MUST(cudaSetDevice(reader));
      uint64_t seen = 0;
      if (how == 0) LaunchCopy(reading, x, y);
      if (how == 1) LaunchCopy(nullptr, x, y);
      if (how == 2) MUST(cudaMemcpyPeerAsync(y, reader, x, writer, sizeof *x, reading));
      if (how == 3) MUST(cudaMemcpyPeer(y, reader, x, writer, sizeof *x));
      if (how == 4) seen = ReadBack(x);
      if (how == 5) MUST(cudaGraphLaunch(graph, reading));
      if (how == 6) CopyWithAttributes(y, x, sizeof *x, reading);
      MUST(cudaStreamSynchronize(how == 1 ? nullptr : reading));
      if (how != 4) seen = ReadBack(y);
      printf("%s on device %d, %s, freed by %s: %s\n", kReaders[how], reader,
             access ? "with access" : "apart", other_thread ? "another thread" : "this one",
             seen == value ? "right" : "stale");
      SynchronizeAll();
      if (graph != nullptr) MUST(cudaGraphExecDestroy(graph));
      MUST(cudaFree(x));
      MUST(cudaFree(y));
      MUST(cudaSetDevice(writer));
      MUST(cudaStreamDestroy(writing));
      MUST(cudaSetDevice(reader));
      MUST(cudaStreamDestroy(reading));
    }
  }
}

// ---- Kernels of two devices that wait for each other, as those of NCCL do; each device has its
// thread. The one frees, behind a kernel that ends once the other's is launched; the other does
// something before it launches that.
void Apart() {
  struct Way {
    const char* name;
    void (*before)(cudaStream_t busy, char* foreign);
  };
  const Way kWays[] = {
      {"query", [](cudaStream_t busy, char*) { cudaStreamQuery(busy); }},
      {"a texture is destroyed", [](cudaStream_t, char*) { cuTexObjectDestroy(12345); }},
      {"a free of other memory", [](cudaStream_t, char* foreign) { MUST(cudaFree(foreign)); }},
  };
  uint64_t id = 1;
  for (const Way& way : kWays) {
    const Stream one = MakeStream(0);
    const Stream other = MakeStream(1);
    char* foreign = nullptr;
    MUST(cudaMallocAsync(reinterpret_cast<void**>(&foreign), 5000, other.handle));
    MUST(cudaSetDevice(0));
    char* freed = Allocate(5000);
    SynchronizeAll();
    const auto launch = [](const Stream& stream, uint64_t own, uint64_t until) {
      SimWork work = {};
      work.duration_ns = 1000000;
      work.id = own;
      work.spin_until_id = until;
      MUST(program::Launch(stream.handle, work));
    };
    const uint64_t first = id++;
    const uint64_t second = id++;
    std::atomic<bool> launched{false};
    std::atomic<bool> returned{false};
    std::atomic<bool> ends{false};
    std::thread frees([&] {
      MUST(cudaSetDevice(0));
      launch(one, first, second);
      launched = true;
      MUST(cudaFree(freed));
      returned = true;
      while (!ends) std::this_thread::yield();
    });
    MUST(cudaSetDevice(1));
    while (!launched) std::this_thread::yield();
    // The real free does not return yet.
    for (int i = 0; i < 50 && !returned; ++i) usleep(1000);
    launch(other, id++, 0);
    way.before(other.handle, foreign);
    cudaGetLastError();
    launch(other, second, 0);
    ends = true;
    frees.join();
    SynchronizeAll();
    printf("%s: done\n", way.name);
    MUST(cudaStreamDestroy(one.handle));
    MUST(cudaStreamDestroy(other.handle));
  }
}

// A copy that waits on another device's stream reads x; something else of x's device is freed, and
// a kernel there writes x. The free waits for the copy, so that must not come before it.
void Overwrite(bool access, bool legacy) {
  static uint64_t value = 100;
  for (int owner = 0; owner < Devices(); ++owner) {
    const int other = (owner + 1) % Devices();
    MUST(cudaSetDevice(other));
    auto* y = reinterpret_cast<uint64_t*>(Allocate(512));
    const cudaStream_t copying = legacy ? nullptr : program::NonBlockingStream();
    MUST(cudaSetDevice(owner));
    auto* x = reinterpret_cast<uint64_t*>(Allocate(512));
    const cudaStream_t writing = legacy ? nullptr : program::NonBlockingStream();
    char* freed = Allocate(5000);
    LaunchStore(writing, x, ++value);
    SynchronizeAll();
    MUST(cudaSetDevice(other));
    LaunchStore(copying, y, 0);
    MUST(cudaMemcpyPeerAsync(y, other, x, owner, sizeof *x, copying));
    MUST(cudaSetDevice(owner));
    MUST(cudaFree(freed));
    LaunchStore(writing, x, 1);
    SynchronizeAll();
    printf("copied from device %d %s access, %s: %s\n", owner, access ? "with" : "without",
           legacy ? "legacy streams" : "streams", ReadBack(y) == value ? "right" : "overwritten");
    MUST(cudaFree(x));
    MUST(cudaFree(y));
    if (legacy) continue;
    MUST(cudaSetDevice(owner));
    MUST(cudaStreamDestroy(writing));
    MUST(cudaSetDevice(other));
    MUST(cudaStreamDestroy(copying));
  }
}

// ---- Copies into a freed block, from a device where nothing else is under way.

void Copies() {
  EnableAllAccess();
  for (int owner = 0; owner < Devices(); ++owner) {
    const int source = (owner + 1) % Devices();
    constexpr size_t kBytes = size_t{3} << 20;
    MUST(cudaSetDevice(source));
    char* from = Allocate(kBytes);
    const Stream stream = MakeStream(owner);
    SynchronizeAll();
    MUST(cudaSetDevice(owner));
    for (int round = 0; round < 20; ++round) {
      for (const size_t bytes : kSizes) {
        char* block = Allocate(bytes);
        simNoteAlloc(block, bytes);
        program::LaunchWrite(stream.handle, block, bytes, bytes, kWorkNs);
        MUST(cudaMemcpyPeerAsync(block, owner, from, source, bytes, stream.handle));
        simNoteFree(block);
        MUST(cudaFree(block));
      }
    }
    SynchronizeAll();  // before the bound makes the pool free memory really
  }
  program::NoteServed("the last device", 5000);
}

// Copies from a block, on another device's default stream; its own device's is synchronised, which
// says nothing of them, and it is freed, which waits for them.
void Sources() {
  EnableAllAccess();
  constexpr size_t kBytes = size_t{3} << 20;
  for (const cudaStream_t stream : {cudaStream_t{nullptr}, cudaStream_t{cudaStreamPerThread}}) {
    for (int owner = 0; owner < Devices(); ++owner) {
      const int other = (owner + 1) % Devices();
      MUST(cudaSetDevice(other));
      char* to = Allocate(kBytes);
      for (int round = 0; round < 20; ++round) {
        MUST(cudaSetDevice(owner));
        char* block = Allocate(kBytes);
        simNoteAlloc(block, kBytes);
        MUST(cudaSetDevice(other));
        program::LaunchWrite(stream, to, kBytes, 1, kWorkNs);
        MUST(cudaMemcpyPeerAsync(to, other, block, owner, kBytes, stream));
        MUST(cudaSetDevice(owner));
        MUST(cudaStreamSynchronize(stream));
        simNoteFree(block);
        MUST(cudaFree(block));
      }
      SynchronizeAll();
      MUST(cudaSetDevice(other));
      MUST(cudaFree(to));
    }
  }
  MUST(cudaSetDevice(0));
  program::NoteServed("the first device", 5000);
}

// Copies into freed blocks, on their own device's stream, from a device where nothing else is under
// way: with access they run there, and the block's own context has nothing to do. Then memory runs
// out. (The real free of a small block waits for them: tests/gpu/two_gpus_h200.md.)
void Short() {
  EnableAllAccess();
  constexpr size_t kChunk = size_t{2} << 20;
  constexpr size_t kBytes = kChunk * 3 / 4;
  for (int owner = 0; owner < Devices(); ++owner) {
    const int source = (owner + 1) % Devices();
    MUST(cudaSetDevice(source));
    char* from = Allocate(kBytes);
    const Stream stream = MakeStream(owner);
    char* large = Allocate(kChunk);  // nothing but the block makes room for it
    SynchronizeAll();
    MUST(cudaSetDevice(owner));
    std::vector<char*> others;
    size_t free = 0;
    size_t total = 0;
    for (MUST(cudaMemGetInfo(&free, &total)); free >= kChunk; free -= kChunk) {
      others.push_back(Allocate(kChunk));
    }
    for (int round = 0; round < 20; ++round) {
      MUST(cudaFree(large));
      char* block = Allocate(kBytes);
      simNoteAlloc(block, kBytes);
      MUST(cudaMemcpyPeerAsync(block, owner, from, source, kBytes, stream.handle));
      simNoteFree(block);
      MUST(cudaFree(block));
      large = Allocate(kChunk);
    }
    MUST(cudaFree(large));
    for (char* block : others) MUST(cudaFree(block));
    MUST(cudaSetDevice(source));
    MUST(cudaFree(from));
  }
}

// Copies into a small block, on its own device's stream.
void Frees() {
  EnableAllAccess();
  constexpr size_t kSmall = size_t{64} << 10;
  constexpr size_t kLarge = size_t{4} << 20;
  MUST(cudaSetDevice(1));
  char* from = Allocate(kSmall);
  const Stream stream = MakeStream(0);
  char* small = Allocate(kSmall);
  char* other = Allocate(kSmall);
  char* large = Allocate(kLarge);
  SynchronizeAll();
  MUST(cudaSetDevice(0));
  for (int i = 0; i < 200; ++i) {
    MUST(cudaMemcpyPeerAsync(small, 0, from, 1, kSmall, stream.handle));
  }
  const auto free_one = [](const char* name, char* block) {
    MUST(cudaFree(block));
    printf("%s: %s\n", name, simPendingCount(nullptr) == 0 ? "waited" : "pending");
  };
  free_one("another small block", other);
  free_one("a large block", large);
  free_one("the small block", small);
}

// ---- A copy to page-locked memory on another device's stream: the free of memory of the block's
// device waits for it.

void Host() {
  uint64_t value = 100;
  void* memory = nullptr;
  MUST(cudaHostAlloc(&memory, 512, cudaHostAllocPortable));
  volatile uint64_t* host = static_cast<uint64_t*>(memory);
  for (int owner = 0; owner < Devices(); ++owner) {
    const int other = (owner + 1) % Devices();
    const Stream copying = MakeStream(other);
    auto* late = reinterpret_cast<uint64_t*>(Allocate(512));
    const Stream writing = MakeStream(owner);
    auto* x = reinterpret_cast<uint64_t*>(Allocate(512));
    for (int round = 0; round < 3; ++round) {
      char* freed = Allocate(5000);
      LaunchStore(writing.handle, x, ++value);
      SynchronizeAll();
      MUST(cudaSetDevice(other));
      LaunchStore(copying.handle, late, 0);
      MUST(cudaMemcpyAsync(memory, x, sizeof *x, cudaMemcpyDeviceToHost, copying.handle));
      MUST(cudaSetDevice(owner));
      MUST(cudaFree(freed));
      printf("copied from device %d: %s\n", owner, *host == value ? "right" : "not there");
    }
  }
  SynchronizeAll();
}

// ---- Resets

// Copies between two devices are pending, in both directions, when one of them is reset; blocks of
// the other were freed behind them.
void Reset() {
  static std::atomic<uint64_t> wrong{0};
  for (int gone = 0; gone < Devices(); ++gone) {
    const int kept = (gone + 1) % Devices();
    Stream stream = MakeStream(gone);
    const Stream keeping = MakeStream(kept);
    for (const size_t bytes : kSizes) {
      MUST(cudaSetDevice(gone));
      char* theirs = Allocate(bytes);
      MUST(cudaSetDevice(kept));
      char* source = Allocate(bytes);
      char* target = Allocate(bytes);
      char* stays = Allocate(bytes);
      program::LaunchWrite(keeping.handle, source, bytes, bytes, kWorkNs);
      program::LaunchWrite(keeping.handle, stays, bytes, bytes + 1, kWorkNs);
      MUST(cudaStreamSynchronize(keeping.handle));
      MUST(cudaSetDevice(gone));
      MUST(cudaMemcpyPeerAsync(theirs, gone, source, kept, bytes, stream.handle));
      MUST(cudaMemcpyPeerAsync(target, kept, theirs, gone, bytes, stream.handle));
      program::LaunchCheck(keeping.handle, stays, bytes, bytes + 1, &wrong, kWorkNs);
      if (bytes == kSizes[0]) MUST(cudaFree(Allocate(bytes)));
      MUST(cudaStreamSynchronize(stream.handle));  // the real free waits for its own device alone
      MUST(cudaMemcpyPeerAsync(theirs, gone, stays, kept, bytes, stream.handle));  // pending
      MUST(cudaFree(source));
      MUST(cudaSetDevice(gone));
      Say("reset", cudaDeviceReset());
      Say("free of what is gone", cudaFree(theirs));
      cudaGetLastError();
      program::LaunchCheck(keeping.handle, target, bytes, bytes, &wrong, kWorkNs);
      MUST(cudaFree(target));
      program::LaunchCheck(keeping.handle, stays, bytes, bytes + 1, &wrong, kWorkNs);
      MUST(cudaFree(stays));  // under the device that was reset
      MUST(cudaStreamSynchronize(keeping.handle));
      MUST(cudaSetDevice(gone));
      stream = MakeStream(gone);
    }
    SynchronizeAll();
    MUST(cudaSetDevice(kept));
    program::NoteServed("the device that was not reset", 5000);
    MUST(cudaSetDevice(gone));
    program::NoteServed("the device that was", 5000);
  }
  printf("wrong words %llu, last error %d\n", static_cast<unsigned long long>(wrong),
         static_cast<int>(cudaPeekAtLastError()));
}

// A context of device 1 ends while its kernels write into a block of device 0, which is freed
// before or at that very moment; then device 0 allocates. The end waits for the kernels, but does
// so yet.
void Ends(bool destroy, bool freed_before) {
  constexpr size_t kBytes = size_t{3} << 19;
  static char* block;
  static bool freed;
  const auto free_block = [] {
    MUST(cudaSetDevice(0));
    simNoteFree(block);
    MUST(cudaFree(block));
    freed = true;
  };
  MUST(cudaSetDevice(0));
  MUST(cudaFree(Allocate(1000)));
  block = Allocate(kBytes);
  simNoteAlloc(block, kBytes);
  freed = false;
  CUcontext own = nullptr;
  CUcontext ending = nullptr;
  MUST(static_cast<cudaError_t>(cuCtxGetCurrent(&own)));
  MUST(cudaSetDevice(1));
  if (destroy) {
    MUST(static_cast<cudaError_t>(CreateContext(&ending, 1)));
    MUST(static_cast<cudaError_t>(cuCtxEnablePeerAccess(own, 0)));
  } else {
    MUST(cudaDeviceEnablePeerAccess(0, 0));
  }
  MUST(cudaFree(Allocate(1000)));
  program::LaunchWrite(program::NonBlockingStream(), block, kBytes, 1, 5'000'000);
  if (freed_before) free_block();
  constexpr const char* kEnds[] = {"cuDevicePrimaryCtxReset", "cuCtxDestroy_v2"};
  simOnCall(
      kEnds[destroy ? 1 : 0], SIM_BEFORE_CALL,
      [](void* at_once) {
        std::thread([at_once] {
          MUST(cudaSetDevice(0));
          if (!freed) (*static_cast<decltype(free_block)*>(at_once))();
          char* next = Allocate(kBytes);
          simNoteAlloc(next, kBytes);
          simNoteFree(next);
          MUST(cudaFree(next));
        }).join();
      },
      const_cast<void*>(static_cast<const void*>(&free_block)));
  if (destroy) {
    MUST(static_cast<cudaError_t>(cuCtxDestroy(ending)));
  } else {
    MUST(cudaSetDevice(1));
    MUST(cudaDeviceReset());
  }
  simOnCall(kEnds[destroy ? 1 : 0], SIM_BEFORE_CALL, nullptr, nullptr);
  MUST(cudaSetDevice(0));
  printf("%s, freed %s: last error %d\n", destroy ? "destroyed" : "reset",
         freed_before ? "before" : "meanwhile", static_cast<int>(cudaPeekAtLastError()));
  program::NoteServed("the device that stays", 5000);
}

// ---- A device that has no memory of its own, and uses that of device 0.

void Guest() {
  EnableAllAccess();
  for (const bool legacy : {false, true}) {
    for (int guest = 1; guest < Devices(); ++guest) {
      const Stream stream = MakeStream(guest);
      for (int round = 0; round < 20; ++round) {
        for (const size_t bytes : kSizes) {
          MUST(cudaSetDevice(0));
          char* block = Allocate(bytes);
          simNoteAlloc(block, bytes);
          MUST(cudaSetDevice(guest));
          program::LaunchWrite(legacy ? nullptr : stream.handle, block, bytes, bytes, kWorkNs);
          MUST(cudaSetDevice(round % 2 == 0 ? 0 : guest));
          simNoteFree(block);
          MUST(cudaFree(block));
        }
      }
      SynchronizeAll();  // before the bound makes the pool free memory really
    }
  }
  MUST(cudaSetDevice(0));
  program::NoteServed("the host", 5000);
}

// ---- A kernel that stays, as servers have one, beside a device that is used as ever.

// With `box` the devices were used by one copy of whose parts nothing is known.
void Stays(bool access, bool box) {
  constexpr size_t kBytes = size_t{3} << 20;
  if (access) EnableAllAccess();
  MUST(cudaSetDevice(1));
  char* theirs = Allocate(4096);
  MUST(cudaMemcpyPeer(theirs, 1, theirs, 1, 4096));
  const Stream staying = MakeStream(1);
  const Stream ending = MakeStream(1);
  SynchronizeAll();
  SimWork kernel{};
  kernel.id = 1000001;
  kernel.spin_until_id = 1000002;
  simLaunch(staying.handle, &kernel);
  MUST(cudaSetDevice(0));
  const Stream stream = MakeStream(0);
  char* copy = Allocate(kBytes);
  if (box) {
    CUDA_MEMCPY2D rows{};
    rows.srcMemoryType = rows.dstMemoryType = CU_MEMORYTYPE_UNIFIED;
    rows.srcDevice = reinterpret_cast<CUdeviceptr>(theirs);
    rows.dstDevice = reinterpret_cast<CUdeviceptr>(copy);
    rows.srcPitch = rows.dstPitch = rows.WidthInBytes = rows.Height = 64;
    MUST(static_cast<cudaError_t>(cuMemcpy2D(&rows)));
  } else if (!access) {
    MUST(cudaMemcpyPeer(copy, 0, theirs, 1, 4096));
  }
  for (int round = 0; round < 50; ++round) {
    char* block = Allocate(kBytes);
    simNoteAlloc(block, kBytes);
    program::LaunchWrite(stream.handle, block, kBytes, 1, kWorkNs);
    MUST(cudaMemcpyAsync(copy, block, kBytes, cudaMemcpyDefault, stream.handle));
    MUST(cudaStreamSynchronize(stream.handle));
    simNoteFree(block);
    MUST(cudaFree(block));
  }
  MUST(cudaSetDevice(1));
  SimWork end{};
  end.id = kernel.spin_until_id;
  simLaunch(ending.handle, &end);
  SynchronizeAll();
}

}  // namespace

int main(int count, char** arguments) {
  const char* scenario = count > 1 ? arguments[1] : "";
  if (strcmp(scenario, "use") == 0 && count > 4) {
    Use(static_cast<uint64_t>(atoll(arguments[2])), atoi(arguments[3]), atoi(arguments[4]),
        count > 5);
  } else if (strcmp(scenario, "order") == 0) {
    for (const bool access : {false, true}) {
      if (access) EnableAllAccess();
      for (const bool other_thread : {false, true}) Order(access, other_thread);
    }
  } else if (strcmp(scenario, "apart") == 0) {
    Apart();
  } else if (strcmp(scenario, "overwrite") == 0) {
    for (const bool access : {false, true}) {
      if (access) EnableAllAccess();
      for (const bool legacy : {false, true}) Overwrite(access, legacy);
    }
  } else if (strcmp(scenario, "stays") == 0) {
    Stays(count > 2 && strcmp(arguments[2], "access") == 0,
          count > 2 && strcmp(arguments[2], "box") == 0);
  } else if (strcmp(scenario, "copies") == 0) {
    Copies();
  } else if (strcmp(scenario, "sources") == 0) {
    Sources();
  } else if (strcmp(scenario, "short") == 0) {
    Short();
  } else if (strcmp(scenario, "frees") == 0) {
    Frees();
  } else if (strcmp(scenario, "host") == 0) {
    Host();
  } else if (strcmp(scenario, "reset") == 0) {
    Reset();
  } else if (strcmp(scenario, "ends") == 0) {
    for (const bool destroy : {false, true}) {
      for (const bool freed_before : {true, false}) Ends(destroy, freed_before);
    }
  } else if (strcmp(scenario, "guest") == 0) {
    Guest();
  } else {
    return 2;
  }
  program::SayHazards();
  return 0;
}
