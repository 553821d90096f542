#include "workloads.h"

#include <fstream>
#include <iterator>
#include <sstream>

#include "measuring.h"
#include "scripts/replay_trace.h"

namespace cmp::against {

namespace {

Figures Pairs(const Memory& memory, const Request& request) {
  const size_t bytes = request.number("bytes", 4 * kKiB);
  return InThreads(request.number("threads", 1), [&](size_t) {
    const Stream stream;
    return Measure(request.milliseconds(), [&] { memory.Pair(bytes, stream); });
  });
}

Figures Live(const Memory& memory, const Request& request) {
  static const cudaStream_t stream_of_kept = MakeStream(cudaStreamNonBlocking);
  static std::vector<void*> kept;  // until the process ends
  std::mt19937 random(1);
  while (kept.size() < request.number("count", 100000)) {
    kept.push_back(memory.Allocate(DrawBytes(random, 4 * kKiB), stream_of_kept));
  }
  const std::vector<size_t> sizes = DrawSizes(1000, 2);
  return InThreads(request.number("threads", 1), [&](size_t thread) {
    const Stream stream;
    size_t next = thread * 37;
    for (const size_t bytes : sizes) memory.Pair(bytes, stream);
    return Measure(request.milliseconds(),
                   [&] { memory.Pair(sizes[next++ % sizes.size()], stream); });
  });
}

// RMM's random_allocations: 2 * count steps; a step allocates with probability 73% while fewer than
// `count` were made and live bytes stay under 16,000 MiB, else it frees a random live block; sizes
// are uniform from 1 byte to `most`; at the end everything is freed. Every round has the same seed,
// with new=1 a new one.
class RandomRounds {
 public:
  RandomRounds(const Memory& memory, size_t count, size_t most)
      : memory_(memory), count_(count), most_(most) {}

  // Nanoseconds a call.
  double Round(unsigned seed) {
    constexpr size_t kMostLive = 16000 * kMiB;
    std::mt19937 random(seed);
    std::uniform_int_distribution<size_t> sizes(1, most_);
    std::vector<Block> live;
    size_t bytes_live = 0;
    size_t made = 0;
    const auto begin = Clock::now();
    for (size_t step = 0; step < 2 * count_; ++step) {
      const size_t bytes = sizes(random);
      const bool fits = made < count_ && bytes_live + bytes < kMostLive;
      if ((random() % 100 < 73 && fits) || (live.empty() && made < count_)) {
        live.push_back({memory_.Allocate(bytes, stream_), bytes});
        bytes_live += bytes;
        ++made;
      } else if (!live.empty()) {
        std::swap(live[random() % live.size()], live.back());
        bytes_live -= live.back().bytes;
        memory_.Free(live.back().pointer, live.back().bytes, stream_);
        live.pop_back();
      }
    }
    for (const Block& block : live) memory_.Free(block.pointer, block.bytes, stream_);
    CHECK(cudaStreamSynchronize(stream_));
    return NanosecondsSince(begin) / static_cast<double>(2 * made);
  }

 private:
  const Memory& memory_;
  const size_t count_;
  const size_t most_;
  const Stream stream_;
};

Figures Random(const Memory& memory, const Request& request) {
  RandomRounds rounds(memory, request.number("count", 1000), request.number("most", kMiB));
  const bool is_new = request.number("new", 0) != 0;
  const size_t least = request.number("rounds", 4);
  std::vector<double> took;
  auto begin = Clock::now();
  for (unsigned round = 0; round < least || SecondsSince(begin) * 1e3 < request.milliseconds();
       ++round) {
    if (round == least / 2) begin = Clock::now();  // until then a pool learns how much it needs
    const double ns = rounds.Round(is_new ? round : 1);
    if (round >= least / 2) took.push_back(ns);
  }
  Figures figures;
  figures.ns = Median(std::move(took));
  return figures;
}

class Loop {
 public:
  Loop(const Memory& memory, const demo::Kernels& kernels, const Request& request)
      : memory_(memory),
        kernels_(kernels),
        streams_(request.number("streams", 1)),
        other_(request.number("other", 0) != 0),
        kernel_ns_(request.number("kernel_ns", 20000)) {
    for (Stage& stage : streams_) {
      CHECK(cudaEventCreateWithFlags(&stage.end, cudaEventDisableTiming));
    }
  }
  ~Loop() {
    for (const Stage& stage : streams_) CHECK(cudaEventDestroy(stage.end));
  }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // Nanoseconds an iteration, until all kernels are done.
  double Run(size_t iterations, bool allocates) {
    CHECK(cudaDeviceSynchronize());
    const auto begin = Clock::now();
    for (size_t i = 0; i < iterations; ++i) Iterate(streams_[i % streams_.size()], allocates);
    CHECK(cudaDeviceSynchronize());
    return NanosecondsSince(begin) / static_cast<double>(iterations);
  }

 private:
  struct Stage {
    Stream stream;
    Stream freeing;
    cudaEvent_t end = nullptr;
  };

  void Iterate(const Stage& stage, bool allocates) {
    void* block = allocates ? memory_.Allocate(kMiB, stage.stream) : nullptr;
    if (kernel_ns_ == 0) {
      kernels_.Empty(stage.stream);
    } else {
      kernels_.Delay(stage.stream, kernel_ns_);
    }
    if (other_) {
      CHECK(cudaEventRecord(stage.end, stage.stream));
      CHECK(cudaStreamWaitEvent(stage.freeing, stage.end, 0));
    }
    if (allocates) memory_.Free(block, kMiB, other_ ? stage.freeing : stage.stream);
  }

  const Memory& memory_;
  const demo::Kernels& kernels_;
  std::vector<Stage> streams_;
  const bool other_;
  const uint64_t kernel_ns_;
};

Figures Loops(const Memory& memory, const demo::Kernels& kernels, const Request& request) {
  Loop loop(memory, kernels, request);
  const size_t iterations = request.number("iterations", 500);
  loop.Run(iterations / 4 + 1, true);
  Figures figures;
  figures.alone_ns = loop.Run(iterations, false);
  figures.ns = loop.Run(iterations, true);
  return figures;
}

// One thread allocates, another frees, with a few blocks on their way.
class HandOver {
 public:
  explicit HandOver(const Memory& memory) : memory_(memory) {}

  Figures Run(double milliseconds) {
    const Stream stream;
    std::thread freeing([this, &stream] {
      for (size_t next = 0;; ++next) {
        void* block = nullptr;
        while ((block = ways_[next % kWays].exchange(nullptr, std::memory_order_acquire)) ==
               nullptr) {
          if (done_.load(std::memory_order_acquire)) return;
          std::this_thread::yield();  // there may be fewer cores than threads
        }
        memory_.Free(block, kBytes, stream);
      }
    });
    size_t next = 0;
    const Figures figures = Measure(milliseconds, [&] {
      void* block = memory_.Allocate(kBytes, stream);
      std::atomic<void*>& way = ways_[next++ % kWays];
      while (way.load(std::memory_order_relaxed) != nullptr) std::this_thread::yield();
      way.store(block, std::memory_order_release);
    });
    for (std::atomic<void*>& way : ways_) {
      while (way.load(std::memory_order_relaxed) != nullptr) std::this_thread::yield();
    }
    done_.store(true, std::memory_order_release);
    freeing.join();
    return figures;
  }

 private:
  static constexpr size_t kBytes = 4 * kKiB;
  static constexpr size_t kWays = 64;
  const Memory& memory_;
  std::atomic<void*> ways_[kWays] = {};
  std::atomic<bool> done_{false};
};

Figures HandOvers(const Memory& memory, const Request& request) {
  return InThreads(request.number("pairs", 1),
                   [&](size_t) { return HandOver(memory).Run(request.milliseconds()); });
}

Figures ThreadLife(const Memory& memory, const Request& request) {
  const Stream stream;
  const auto live = [&](bool allocates) {
    const auto begin = Clock::now();
    std::thread([&] {
      if (allocates) memory.Pair(4 * kKiB, stream);
    }).join();
    return NanosecondsSince(begin);
  };
  std::vector<double> alone;
  std::vector<double> with;
  live(true);
  const auto begin = Clock::now();
  do {  // in turn, so that what else happens meets both
    alone.push_back(live(false));
    with.push_back(live(true));
  } while (SecondsSince(begin) * 1e3 < request.milliseconds());
  Figures figures;
  figures.ns = Median(std::move(with));
  figures.alone_ns = Median(std::move(alone));
  return figures;
}

Figures FirstTouch(const Memory& memory, const Request& request) {
  const Stream stream;
  const std::vector<size_t> sizes = DrawSizes(request.number("count", 1000), 3);
  std::vector<Block> blocks;
  Figures figures;
  for (const size_t bytes : sizes) {
    const auto begin = Clock::now();
    blocks.push_back({memory.Allocate(bytes, stream), bytes});
    const double ns = NanosecondsSince(begin);
    figures.ns += ns / static_cast<double>(sizes.size());
    figures.worst_ns = std::max(figures.worst_ns, ns);
  }
  for (const Block& block : blocks) memory.Free(block.pointer, block.bytes, stream);
  return figures;
}

std::unique_ptr<replay::Trace> ReadTrace(const std::string& path, size_t calls) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  auto trace = std::make_unique<replay::Trace>();
  const replay::Wrong wrong = replay::ReadTrace(bytes.data(), bytes.size(), trace.get());
  if (!file || !wrong.empty() || trace->calls.empty()) {
    Fail(("the trace " + path + ": " + (wrong.empty() ? "no calls in it" : wrong.text)).c_str(), 0);
  }
  if (trace->calls.size() > calls) trace->calls.resize(calls);
  return trace;
}

// In one thread; what the trace leaves live is freed in between, unmeasured.
Figures Replay(const Memory& memory, const Request& request) {
  const auto trace = ReadTrace(request.text("trace"), request.number("calls", 20000));
  const Stream stream;
  std::vector<void*> blocks(trace->object_count);
  std::vector<double> took;
  const auto begin = Clock::now();
  do {
    const auto pass = Clock::now();
    for (const replay::Call& call : trace->calls) {
      void*& block = blocks[call.object];
      const size_t bytes = trace->objects[call.object].bytes;
      if (call.allocates) {
        block = memory.Allocate(bytes, stream);
      } else {
        memory.Free(block, bytes, stream);
        block = nullptr;
      }
    }
    took.push_back(NanosecondsSince(pass) / static_cast<double>(trace->calls.size()));
    for (size_t i = 0; i < blocks.size(); ++i) {
      if (blocks[i] != nullptr) memory.Free(blocks[i], trace->objects[i].bytes, stream);
      blocks[i] = nullptr;
    }
  } while (took.size() < 2 ||  // the first warms up
           SecondsSince(begin) * 1e3 < request.milliseconds());
  took.erase(took.begin());
  Figures figures;
  figures.ns = Median(std::move(took));
  return figures;
}

Figures Question(const Memory& memory, const Request& request) {
  const std::string of = request.text("of");
  const Stream stream;
  void* block = memory.Allocate(kMiB, stream);
  const Figures figures = Measure(request.milliseconds(), [&] {
    if (of == "attributes") {
      cudaPointerAttributes attributes = {};
      CHECK(cudaPointerGetAttributes(&attributes, block));
    } else if (of == "memory") {
      size_t free = 0;
      size_t total = 0;
      CHECK(cudaMemGetInfo(&free, &total));
    } else {
      CHECK(cudaStreamSynchronize(stream));
    }
  });
  memory.Free(block, kMiB, stream);
  return figures;
}

}  // namespace

Request::Request(const std::string& line) {
  std::istringstream words(line);
  words >> workload_;
  for (std::string word; words >> word;) {
    const size_t sign = word.find('=');
    values_[word.substr(0, sign)] = sign == std::string::npos ? "" : word.substr(sign + 1);
  }
}

std::string Request::text(const std::string& name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? "" : found->second;
}

size_t Request::number(const std::string& name, size_t otherwise) const {
  const std::string value = text(name);
  return value.empty() ? otherwise : std::strtoull(value.c_str(), nullptr, 10);
}

Figures Run(Allocator& allocator, const demo::Kernels& kernels, const Request& request) {
  const Memory memory(allocator);
  const Busy busy(kernels, request.number("busy", 0) != 0);
  const std::string& workload = request.workload();
  if (workload == "pairs") return Pairs(memory, request);
  if (workload == "live") return Live(memory, request);
  if (workload == "random") return Random(memory, request);
  if (workload == "loop") return Loops(memory, kernels, request);
  if (workload == "hand-over") return HandOvers(memory, request);
  if (workload == "thread") return ThreadLife(memory, request);
  if (workload == "first") return FirstTouch(memory, request);
  if (workload == "replay") return Replay(memory, request);
  if (workload == "question") return Question(memory, request);
  Fail(("no such workload: " + workload).c_str(), 0);
}

}  // namespace cmp::against
