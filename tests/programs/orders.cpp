// What the real cudaFree gives, one promise at a time, where a pool could lose it.
//
//   orders SCENARIO [ROUNDS]
//
// Everything found wrong is one line; exit code 1 if there was any.
#include <thread>
#include <vector>

#include "create_context.h"
#include "helper.h"
#include "words.h"

namespace {

using program::Allocate;
using program::AtPlace;
using program::Helper;
using program::LaunchWord;
using program::NonBlockingStream;
using program::WordOf;
using program::WriteWord;

constexpr uint64_t kLong = 50 * 1000 * 1000;  // ns: longer than all calls of a round

int g_wrong = 0;

void Expect(bool good, const char* what, int line = __builtin_LINE()) {
  if (good) return;
  if (++g_wrong <= 20) printf("%s:%d: wrong: %s\n", __FILE__, line, what);
}

char* NotedAllocate(size_t bytes) {
  char* pointer = Allocate(bytes);
  simNoteAlloc(pointer, bytes);
  return pointer;
}
void NotedFree(char* pointer) {
  simNoteFree(pointer);
  MUST(cudaFree(pointer));
}

// Memory is not handed out while earlier work may touch it: by the same thread, by another one.
void Reuse(int rounds) {
  const cudaStream_t stream = NonBlockingStream();
  char* on_device = NotedAllocate(4096);
  for (int round = 0; round < rounds; ++round) {
    for (const size_t bytes : {size_t{256}, size_t{5000}, size_t{1} << 20, size_t{3} << 20}) {
      std::vector<char*> blocks(bytes < (1 << 20) ? 40 : 6);
      for (char*& block : blocks) {
        block = NotedAllocate(bytes);
        program::LaunchWrite(stream, block, bytes, 1, 20000);
      }
      for (char* block : blocks) NotedFree(block);
      const auto again = [&] {
        for (char*& block : blocks) block = NotedAllocate(bytes);
        for (char* block : blocks) NotedFree(block);
      };
      if (round % 2 == 0) {
        again();
      } else {
        std::thread(again).join();
      }
    }
    // A synchronous copy to the host finishes its stream; a copy of nothing does not, and neither
    // does one whose target is memory of the device after all (measured).
    MUST(cudaDeviceSynchronize());
    uint64_t word = 0;
    struct {
      void* to;
      size_t bytes;
    } const copies[] = {{&word, 8}, {&word, 0}, {on_device, 8}};
    for (const auto& [to, bytes] : copies) {
      char* block = NotedAllocate(5000);
      WriteWord(nullptr, block, 1, 20000);
      cuMemcpyDtoH_v2(to, reinterpret_cast<CUdeviceptr>(block), bytes);
      NotedFree(block);
      NotedFree(NotedAllocate(5000));
    }
  }
  MUST(cudaDeviceSynchronize());
  Expect(simHazardCount() == 0, "memory was handed out too early");
}

// Work after a free comes after all work before it, on another stream.
void SecondStream(int rounds) {
  char* x = NotedAllocate(4096);
  char* z = NotedAllocate(4096);
  const cudaStream_t kinds[] = {NonBlockingStream(), NonBlockingStream(), nullptr,
                                cudaStreamPerThread};
  uint64_t value = 1;
  for (int round = 0; round < rounds; ++round) {
    for (const cudaStream_t writer : kinds) {
      for (const cudaStream_t reader : kinds) {
        char* y = NotedAllocate(1000);
        WriteWord(writer, x, ++value, 30000);
        NotedFree(y);
        LaunchWord(reader, {0, x, z}, 100);
        // Not by a free or a synchronous copy, which would order everything.
        MUST(cudaStreamSynchronize(reader));
        MUST(cudaDeviceSynchronize());
        Expect(WordOf(z) == value, "a kernel on another stream read what was there before");

        // Three streams, the free between the second and the third.
        y = NotedAllocate(1000);
        WriteWord(writer, x, ++value, 30000);
        WriteWord(kinds[round % 2], z + 64, value, 10);
        NotedFree(y);
        MUST(cudaMemcpyAsync(z, x, 8, cudaMemcpyDeviceToDevice, reader));
        MUST(cudaDeviceSynchronize());
        Expect(WordOf(z) == value, "a copy on another stream read what was there before");

        // The later work writes: the earlier must not come after it.
        y = NotedAllocate(1000);
        WriteWord(writer, x, ++value, 30000);
        NotedFree(y);
        WriteWord(reader, x, ++value, 10);
        MUST(cudaDeviceSynchronize());
        Expect(WordOf(x) == value, "earlier work on another stream overwrote later work");
      }
    }
    // A stream that does not exist yet at the free; one that exists no more.
    char* y = NotedAllocate(1000);
    cudaStream_t gone = NonBlockingStream();
    WriteWord(gone, x, ++value, 30000);
    MUST(cudaStreamDestroy(gone));
    NotedFree(y);
    const cudaStream_t fresh = NonBlockingStream();
    LaunchWord(fresh, {0, x, z}, 100);
    MUST(cudaStreamSynchronize(fresh));
    MUST(cudaDeviceSynchronize());
    Expect(WordOf(z) == value, "a new stream read what was there before");
    MUST(cudaStreamDestroy(fresh));
  }
}

// The same for synchronous copies and sets, which have no stream in their name.
void SynchronousCopy(int rounds) {
  char* x = NotedAllocate(4096);
  char* z = NotedAllocate(4096);
  const cudaStream_t stream = NonBlockingStream();
  const auto device = [](char* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); };
  uint64_t value = 1;
  const auto write_and_free = [&] {
    char* y = NotedAllocate(1000);
    WriteWord(stream, x, ++value, 30000);
    NotedFree(y);
  };
  for (int round = 0; round < rounds; ++round) {
    uint64_t word = 0;
    write_and_free();
    MUST(cudaMemcpy(&word, x, 8, cudaMemcpyDeviceToHost));
    Expect(word == value, "cudaMemcpy to the host read what was there before");
    write_and_free();
    cuMemcpyDtoH_v2(&word, device(x), 8);
    Expect(word == value, "cuMemcpyDtoH read what was there before");
    write_and_free();
    cuMemcpy(reinterpret_cast<CUdeviceptr>(&word), device(x), 8);
    Expect(word == value, "cuMemcpy read what was there before");
    write_and_free();
    MUST(cudaMemcpy(z, x, 8, cudaMemcpyDeviceToDevice));
    MUST(cudaDeviceSynchronize());
    Expect(WordOf(z) == value, "cudaMemcpy between blocks read what was there before");
    write_and_free();
    MUST(cudaMemset(x, 0x17, 8));
    MUST(cudaDeviceSynchronize());
    Expect(WordOf(x) == 0x1717171717171717, "earlier work overwrote cudaMemset");
    write_and_free();
    cuMemsetD32_v2(device(x), 0x29292929, 2);
    MUST(cudaDeviceSynchronize());
    Expect(WordOf(x) == 0x2929292929292929, "earlier work overwrote cuMemsetD32");
    write_and_free();
    MUST(cudaMemcpy(x, &word, 8, cudaMemcpyHostToDevice));
    MUST(cudaDeviceSynchronize());
    Expect(WordOf(x) == word, "earlier work overwrote cudaMemcpy to the device");
  }
}

void AddOne(void* data) { *static_cast<uint64_t*>(data) += 1; }

// What the host sees when a free has returned.
void Host(int rounds) {
  char* x = NotedAllocate(4096);
  void* memory = nullptr;
  MUST(cudaMallocHost(&memory, 4096));
  auto* words = static_cast<uint64_t*>(memory);
  const cudaStream_t stream = NonBlockingStream();
  uint64_t called = 0;
  for (int round = 0; round < rounds; ++round) {
    const auto value = static_cast<uint64_t>(1000 + round);
    char* y = NotedAllocate(1000);
    WriteWord(stream, x, value, 30000);
    MUST(cudaMemcpyAsync(words, x, 8, cudaMemcpyDeviceToHost, stream));
    NotedFree(y);
    Expect(words[0] == value, "a copy to page-locked memory was not done after the free");
    y = NotedAllocate(1000);
    words[1] = value;
    MUST(cudaMemcpyAsync(x, words + 1, 8, cudaMemcpyHostToDevice, stream));
    NotedFree(y);
    words[1] = 0;
    MUST(cudaDeviceSynchronize());
    Expect(WordOf(x) == value, "a copy from page-locked memory was not done after the free");
    y = NotedAllocate(1000);
    WriteWord(stream, x, value, 30000);
    MUST(cudaLaunchHostFunc(stream, &AddOne, &called));
    NotedFree(y);
    Expect(called == static_cast<uint64_t>(round + 1),
           "a host function had not run after the free");
  }
}

// Another thread works at a place inside a pool's driver call. It, or the thread whose call that
// is, has blocks that long work is pending on when they are freed: they must not come back before
// that is done, whatever short work is done meanwhile.
struct Place {
  const char* name;
  int when;
};

enum Actions : unsigned {
  kOthersLongWork = 1,  // the other thread launches long work and frees its blocks, at the place
  kLooksForFences = 2,  // it looks for passed fences, as nothing of the size is ready
  kMakesFences = 4,     // it frees behind work on several streams
  kOwnLongWork = 8,     // the thread that makes the call freed blocks behind long work, before
  kOthersBefore = 16,   // so did the other thread
  kAllActions = 32,
};

class Blocks {
 public:
  void Allocate(size_t bytes, int count) {
    for (int i = 0; i < count; ++i) blocks_.push_back(NotedAllocate(bytes));
  }
  void Write(cudaStream_t stream, uint64_t duration_ns) const {
    for (char* block : blocks_) WriteWord(stream, block, 7, duration_ns);
  }
  void Free() {
    for (char* block : blocks_) NotedFree(block);
    blocks_.clear();
  }

 private:
  std::vector<char*> blocks_;
};

void Interleave(const Place& place, unsigned actions, size_t bytes, Helper& helper) {
  constexpr int kCount = 4;
  const size_t other_bytes = bytes / 2 * 3;
  const cudaStream_t mine = NonBlockingStream();
  const cudaStream_t others = NonBlockingStream();
  const cudaStream_t long_mine = NonBlockingStream();
  const cudaStream_t long_others = NonBlockingStream();
  Blocks my_blocks;
  Blocks my_spare;
  Blocks others_blocks;
  Blocks others_spare;
  Blocks made;
  my_blocks.Allocate(bytes, kCount);
  helper.Do([&] {
    others_blocks.Allocate(bytes, kCount);
    others_spare.Allocate(900, kCount);
  });
  helper.Wait();

  AtPlace at{std::this_thread::get_id(), helper, nullptr, false};
  at.task = [&] {
    if ((actions & kOthersLongWork) != 0) {
      others_blocks.Write(long_others, kLong);
      others_blocks.Free();
    }
    if ((actions & kLooksForFences) != 0) {
      made.Allocate(other_bytes, kCount);
      made.Allocate(bytes, kCount);
    }
    if ((actions & kMakesFences) != 0) {
      others_spare.Write(others, 10);
      others_spare.Write(mine, 10);
      others_spare.Free();
    }
  };
  if ((actions & kOthersBefore) != 0) {
    helper.Do([&] {
      others_blocks.Write(long_others, kLong);
      others_blocks.Free();
    });
    helper.Wait();
  }
  if ((actions & kOwnLongWork) != 0) {
    my_blocks.Write(long_mine, kLong);
    my_blocks.Free();
  }
  Blocks my_made;
  simOnCall(place.name, place.when, &AtPlace::Called, &at);
  for (int i = 0; i < 8 && !at.done; ++i) {
    my_spare.Allocate(700, 1);
    my_spare.Write(mine, 10);
    my_spare.Write(others, 10);
    my_spare.Free();
    if (!at.done) my_made.Allocate(bytes / 4 * 5, 1);  // looks for fences
  }
  simOnCall(place.name, place.when, nullptr, nullptr);
  helper.Wait();
  simAdvance(100000);  // short work passes, the long does not
  helper.Do([&] { made.Allocate(bytes, 2 * kCount); });
  helper.Wait();
  my_made.Allocate(bytes, 2 * kCount);
  MUST(cudaDeviceSynchronize());
  for (Blocks* blocks : {&my_blocks, &others_blocks, &others_spare, &made, &my_made}) {
    blocks->Free();
  }
  for (const cudaStream_t stream : {mine, others, long_mine, long_others}) {
    MUST(cudaStreamDestroy(stream));
  }
}

void InterleaveAt(const std::vector<Place>& places, int rounds) {
  Helper helper;
  size_t bytes = 512;
  for (int round = 0; round < rounds; ++round) {
    for (const Place& place : places) {
      for (unsigned actions = 1; actions < kAllActions; ++actions) {
        const uint64_t before = simHazardCount();
        Interleave(place, actions, bytes, helper);
        bytes = bytes >= (256 << 10) ? 512 : bytes / 4 * 5 / 256 * 256 + 256;
        if (simHazardCount() != before) {
          printf("# at %s %d, actions %u\n", place.name, place.when, actions);
        }
      }
    }
  }
  Expect(simHazardCount() == 0, "memory was handed out too early");
}

void CountRun(void* data) { ++*static_cast<int*>(data); }

// A capture that begins while another thread's free is at a place inside the driver: it lives.
void CaptureMeetsFree(const Place& place, int rounds) {
  Helper helper;
  const cudaStream_t first = NonBlockingStream();
  const cudaStream_t second = NonBlockingStream();
  const cudaStream_t captured = NonBlockingStream();
  char* x = NotedAllocate(4096);
  AtPlace state{std::this_thread::get_id(), helper, nullptr, false};
  int runs = 0;
  int died = 0;
  state.task = [&] {
    SimWork work = {};
    work.effect = &CountRun;
    work.data = &runs;
    MUST(cudaStreamBeginCapture(captured, cudaStreamCaptureModeRelaxed));
    if (program::Launch(captured, work) != cudaSuccess) ++died;
  };
  for (int round = 0; round < rounds; ++round) {
    state.done = false;
    char* y = NotedAllocate(1000);
    char* y2 = NotedAllocate(1000);
    WriteWord(first, x, 1, 30000);
    WriteWord(second, x + 64, 1, 30000);
    simOnCall(place.name, place.when, &AtPlace::Called, &state);
    NotedFree(y);
    WriteWord(first, x + 64, 2, 100);
    simOnCall(place.name, place.when, nullptr, nullptr);
    if (!state.done) {  // no such call is made: the capture is simply under way
      state.done = true;
      helper.Do(state.task);
    }
    helper.Wait();
    NotedFree(y2);  // during the capture
    NotedFree(NotedAllocate(1000));
    WriteWord(second, x + 128, 2, 100);
    helper.Do([&] {
      cudaGraph_t graph = nullptr;
      const cudaError_t ended = cudaStreamEndCapture(captured, &graph);
      if (ended != cudaSuccess) ++died;
      cudaGetLastError();
      if (graph != nullptr) MUST(cudaGraphDestroy(graph));
    });
    helper.Wait();
  }
  if (died > 0) printf("# %s %d: %d captures died\n", place.name, place.when, died);
  Expect(died == 0, "a capture was ended by a free of another thread");
  Expect(runs == 0, "a captured kernel ran");
  MUST(cudaDeviceSynchronize());
}

void Capture(int rounds) {
  for (const char* name : {"cuCtxRecordEvent", "cuCtxWaitEvent", "cuEventSynchronize",
                           "cuEventQuery", "cuEventCreate"}) {
    CaptureMeetsFree({name, SIM_BEFORE_CALL}, rounds);
    CaptureMeetsFree({name, SIM_AFTER_CALL}, rounds);
  }
}

// A block is freed, and what looks for it asks about the process's other contexts; one of them is
// destroyed meanwhile, at the nth call of a place: the program may, as nothing of its own is under
// way there.
void DestroyedContext(int rounds) {
  Helper helper;
  int meanwhile = 0;
  const auto must = [](CUresult result, const char* what, int line = __builtin_LINE()) {
    program::Must(static_cast<cudaError_t>(result), what, __FILE__, line);
  };
  for (int round = 0; round < rounds; ++round) {
    for (const char* name : {"cuCtxRecordEvent", "cuEventSynchronize", "cuEventQuery"}) {
      for (const int when : {SIM_BEFORE_CALL, SIM_AFTER_CALL}) {
        for (int nth = 1; nth <= 3; ++nth) {
          CUcontext context = nullptr;
          helper.Do([&] {
            must(CreateContext(&context), "cuCtxCreate");
            CUdeviceptr block = 0;
            must(cuMemAlloc_v2(&block, 5000), "cuMemAlloc");
            must(cuMemsetD8_v2(block, 1, 5000), "cuMemsetD8");
            must(cuMemFree_v2(block), "cuMemFree");
            must(cuMemAlloc_v2(&block, 5000), "cuMemAlloc");
          });
          helper.Wait();
          struct State {
            AtPlace at;
            int left;
          } state{{std::this_thread::get_id(), helper, nullptr, false}, nth};
          state.at.task = [&] { must(cuCtxDestroy(context), "cuCtxDestroy"); };
          const auto called = [](void* data) {
            auto* counted = static_cast<State*>(data);
            if (std::this_thread::get_id() == counted->at.thread && --counted->left == 0) {
              AtPlace::Called(&counted->at);
            }
          };
          char* block = NotedAllocate(5000);
          WriteWord(nullptr, block, 1, 1000);
          simOnCall(name, when, called, &state);
          NotedFree(block);
          NotedFree(NotedAllocate(5000));
          simOnCall(name, when, nullptr, nullptr);
          meanwhile += state.at.done ? 1 : 0;
          if (!state.at.done) helper.Do(state.at.task);
          helper.Wait();
          NotedFree(NotedAllocate(5000));
        }
      }
    }
  }
  printf("# destroyed meanwhile: %d\n", meanwhile);
}

}  // namespace

int main(int count, char** arguments) {
  const char* scenario = count > 1 ? arguments[1] : "";
  const int rounds = count > 2 ? atoi(arguments[2]) : 3;
  setvbuf(stdout, nullptr, _IOLBF, 1 << 12);
  MUST(cudaFree(nullptr));
  if (strcmp(scenario, "reuse") == 0) {
    Reuse(rounds);
  } else if (strcmp(scenario, "second-stream") == 0) {
    SecondStream(rounds);
  } else if (strcmp(scenario, "synchronous-copy") == 0) {
    SynchronousCopy(rounds);
  } else if (strcmp(scenario, "host") == 0) {
    Host(rounds);
  } else if (strcmp(scenario, "stamp") == 0) {
    InterleaveAt({{"cuCtxRecordEvent", SIM_BEFORE_CALL}, {"cuCtxRecordEvent", SIM_AFTER_CALL}},
                 rounds);
  } else if (strcmp(scenario, "event-reuse") == 0) {
    InterleaveAt({{"cuEventQuery", SIM_BEFORE_CALL},
                  {"cuEventQuery", SIM_AFTER_CALL},
                  {"cuCtxRecordEvent", SIM_BEFORE_CALL},
                  {"cuEventCreate", SIM_AFTER_CALL}},
                 rounds);
  } else if (strcmp(scenario, "destroyed-context") == 0) {
    DestroyedContext(rounds);
  } else if (strcmp(scenario, "capture") == 0) {
    Capture(rounds);
  } else {
    return 2;
  }
  Expect(simMisuseCount() == 0, "misuse");
  printf("wrong %d\n", g_wrong);
  program::SayHazards();
  return g_wrong == 0 && simHazardCount() == 0 ? 0 : 1;
}
