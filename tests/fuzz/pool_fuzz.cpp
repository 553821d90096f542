// Sequences of calls of a program's, against a model of what it holds: no block is handed out twice
// or too early, what the program has is not freed, the statistics add up, and in the end all memory
// is back with the device.
//
// An input is settings, one a line as in the environment (and CMP_DRIVER: see UseDriver), and then
// calls: a letter each, with the bytes that Do takes for it. Any other byte is some letter.
#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/driver/driver_api.h"
#include "core/library/pool_face.h"
#include "core/pool/pool.h"
#include "fuzz.h"
#include "gpu.h"
#include "system.h"

namespace cmp::fuzz {
namespace {

constexpr char kLetters[] = "aaaassssbbfffffBBdiwuerRCgtnnnppPqckkKoozZmMx";
constexpr size_t kThreads = 4;
constexpr size_t kMostCalls = 2000;
constexpr size_t kDeviceBytes = kGiB;
constexpr unsigned kMostPatience = 8;  // with which work is done before the pool stops to ask

// ---- What the pool is told about its process.

size_t g_managed_bytes = 0;
bool g_frees_are_unseen = true;

const PoolHost kHost = {
    [] { return static_cast<const Driver*>(&Gpu::Only().table()); },
    [] { return !Gpu::Only().capturing; },
    [] {},
    [] { return !Gpu::Only().capturing; },
    [] {},
    [](ContextPool& context, uint64_t, FencePurpose) { context.fences().SetWorkSince(false); },
    [](ContextPool& context) { context.fences().SetWorkSince(true); },
    [] { return g_frees_are_unseen; },
    [] { return g_managed_bytes; },
    kBlindHost.devices_with_kept,
    kBlindHost.release_kept,
    kBlindHost.age_kept,
    true,
    true,
    [](ContextPool&) {},
    [](ContextPool&) {},
};

// ---- The input

class Input {
 public:
  Input(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}

  bool empty() const { return at_ == end_; }
  uint8_t Byte() { return empty() ? 0 : *at_++; }
  char Letter() {
    const uint8_t byte = Byte();
    const bool known = byte != 0 && std::strchr(kLetters, byte) != nullptr;
    return known ? static_cast<char>(byte) : kLetters[byte % (sizeof(kLetters) - 1)];
  }
  // Lines that begin with CMP_.
  std::map<std::string, std::string> Settings() {
    std::map<std::string, std::string> settings;
    while (end_ - at_ > 4 && std::memcmp(at_, "CMP_", 4) == 0) {
      const uint8_t* end = std::find(at_, end_, '\n');
      const std::string line(at_, end);
      const size_t equals = std::min(line.find('='), line.size());
      settings[line.substr(0, equals)] = line.substr(std::min(equals + 1, line.size()));
      at_ = end == end_ ? end : end + 1;
    }
    return settings;
  }
  // 1 byte to 64 MiB, more often small; or more than there is.
  size_t Bytes() {
    const uint8_t size = Byte();
    const size_t most = size_t{256} << size % 19;
    return size >= 250 ? kGiB << size % 8 : most - most / 2 * Byte() / 256;
  }

 private:
  const uint8_t* at_;
  const uint8_t* end_;
};

std::map<std::string, std::string> g_settings;

Options ReadSettings(Input& input) {
  g_settings = input.Settings();
  Options options = ReadOptions(
      [](const char* name) -> const char* {
        const auto found = g_settings.find(name);
        return found == g_settings.end() ? nullptr : found->second.c_str();
      },
      [](const char*) {});
  // No thread of its own: 'g' is its tick.
  if (options.decay_by == DecayBy::kThread) options.decay_by = DecayBy::kNobody;
  return options;
}

// ---- The program

class Program {
 public:
  explicit Program(Input& input)
      : options_(ReadSettings(input)), gpu_(kDeviceBytes), api_(gpu_), input_(input) {
    g_managed_bytes = 0;
    gpu_.SetPatience(patience_);
    UseDriver(g_settings["CMP_DRIVER"]);
    gpu_.on_release = [this](DeviceAddress address, bool waits) { Released(address, waits); };
    void* page = MapPages(Pool::StatisticsBytes(options_));
    pool_ = Pool::Create(options_, page, 1, "fuzz", kHost);
    CMP_EXPECT(pool_ != nullptr);
  }

  void Run() {
    for (size_t calls = 0; !input_.empty() && calls < kMostCalls; ++calls) {
      Do(input_.Letter());
      if (calls % 8 == 0) CheckStatistics();
    }
    End();
  }

 private:
  struct Held {
    size_t requested;
    size_t bytes;
    size_t context;
    bool unpooled;
  };

  // What the driver cannot do, and its host.
  void UseDriver(const std::string& lacks) {
    if (lacks == "events") gpu_.table().record_context = nullptr;  // before 12.5
    if (lacks == "quiet") gpu_.table().mem_free_async = nullptr;
    g_frees_are_unseen = lacks != "unseen";
  }

  void Do(char letter) {
    switch (letter) {
      case 'a':
        return Allocate(input_.Bytes());
      case 's':
        return Allocate(size_t{256} * (1 + input_.Byte() % 8));
      case 'b': {  // many of a size
        const size_t count = 1 + input_.Byte() % 64;
        const size_t bytes = input_.Bytes();
        for (size_t i = 0; i < count; ++i) Allocate(bytes);
        return;
      }
      case 'f':
        return FreeAny(input_.Byte());
      case 'B': {  // many
        const size_t count = 1 + input_.Byte() % 64;
        const uint8_t which = input_.Byte();
        for (size_t i = 0; i < count; ++i) FreeAny(which);
        return;
      }
      case 'd':
        return FreeAgain(input_.Byte());
      case 'i':
        return FreeInside(input_.Byte(), input_.Byte());
      case 'w':
        return FreeWild(input_.Byte());
      case 'u':
        return Unpool(input_.Byte());
      case 'e':
        return FreeElsewhere(input_.Byte());
      case 'R':
        return ReleaseAll(false);
      case 'C':
        return ReleaseAll(true);
      case 'r':
        return ReleaseForRetry(input_.Byte());
      case 'g':
        pool_->Age(api_);
        return;
      case 't':
        return System::Pass(uint64_t{1'000'000} * input_.Byte() * input_.Byte());
      case 'n':
        return Submit(input_.Byte() % kContexts);
      case 'p':
        return gpu_.Finish(input_.Byte() % kContexts, 1);
      case 'P':
        return gpu_.Finish(input_.Byte() % kContexts);
      case 'q':
        patience_ = 1U << input_.Byte() % 16;
        return gpu_.SetPatience(patience_);
      case 'c':
        capturing_thread_ = capturing_thread_ == kThreads ? thread_ : kThreads;
        gpu_.capturing = capturing_thread_ != kThreads;
        return;
      case 'k':
        return UseThread(input_.Byte() % kThreads);
      case 'K':
        return Pool::ThreadExit();
      case 'o':
        return gpu_.SetCurrent(input_.Byte() % kContexts);
      case 'z':
        return EndContext(input_.Byte());
      case 'Z':
        return KeepContext(input_.Byte());
      case 'm':
        return UseManaged(input_.Byte());
      case 'M':
        return gpu_.DeviceOf(gpu_.current()).UseByOthers(kDeviceBytes / 256 * input_.Byte());
      case 'x':
        return Fail(input_.Byte());
    }
  }

  // ---- Allocations

  HeldContext Current() {
    const size_t context = gpu_.current();
    const ContextHandle handle = Gpu::HandleOf(context);
    if (HeldContext found = pool_->FindContext(handle, gpu_.id(context))) return found;
    return pool_->OpenContext({handle, gpu_.id(context), gpu_.device(context), true});
  }

  // Waits for nothing where memory is not short.
  void Allocate(size_t bytes) {
    const unsigned waits = gpu_.waits();
    const unsigned failures = gpu_.failures();
    AllocateAnyhow(bytes);
    CMP_EXPECT(gpu_.waits() == waits || gpu_.failures() != failures);
  }
  void AllocateAnyhow(size_t bytes) {
    const bool real = capturing_thread_ == thread_;
    DeviceAddress address = real ? 0 : pool_->AllocHit(Gpu::HandleOf(gpu_.current()), bytes);
    if (address == 0) {
      const HeldContext context = Current();
      CMP_EXPECT(context);
      const Allocation made =
          real ? pool_->AllocReal(context.get(), bytes, api_) : pool_->Alloc(*context, bytes, api_);
      if (made.status != kSuccess) return ExpectNoRoom(bytes, made.status);
      CMP_EXPECT(made.pooled());
      address = made.address;
    }
    ExpectBlock(address, bytes);
    ExpectDone(address);
    Block* block = pool_->Find(address);
    CMP_EXPECT(block != nullptr);
    const bool unpooled = block->state.load() == BlockState::kUnpooled;
    CMP_EXPECT(unpooled || block->state.load() == BlockState::kLive);
    held_[address] = {bytes, gpu_.BytesAt(address), gpu_.current(), unpooled};
  }

  // An allocation of the current context's, large enough, of which nobody else has a byte.
  void ExpectBlock(DeviceAddress address, size_t bytes) {
    CMP_EXPECT(gpu_.IsBlock(address) && gpu_.ContextOf(address) == gpu_.current());
    CMP_EXPECT(gpu_.BytesAt(address) >= bytes && address % kMinBlock == 0);
    const auto above = held_.lower_bound(address);
    CMP_EXPECT(above == held_.end() || address + gpu_.BytesAt(address) <= above->first);
    if (above == held_.begin()) return;
    const auto below = std::prev(above);
    CMP_EXPECT(below->first + below->second.bytes <= address);
  }

  // All work is done that was submitted before the memory was freed, and could use it.
  void ExpectDone(DeviceAddress address) {
    const auto freed = freed_.find(address);
    if (freed == freed_.end()) return;
    for (size_t i = 0; i < kContexts; ++i) CMP_EXPECT(gpu_.IsDone(i, freed->second[i]));
    freed_.erase(freed);
  }

  // The real call would have failed as well: it does not fit beside what the program has.
  void ExpectNoRoom(size_t bytes, int status) {
    CMP_EXPECT(status == kOutOfMemory);
    if (failing_ || gpu_.capturing || MustWaitForOthers()) return;
    size_t used = bytes;
    for (const auto& [address, held] : held_) {
      if (gpu_.device(held.context) == gpu_.device(gpu_.current())) used += held.bytes;
    }
    size_t free = 0;
    size_t total = 0;
    gpu_.MemoryInfo(&free, &total);
    CMP_EXPECT(used > free + gpu_.DeviceOf(gpu_.current()).used());
  }
  // Another context of the device has memory that waits for work: it is asked for, not waited for
  // (core/README.md, "Release"). What it is, an older driver cannot be asked.
  bool MustWaitForOthers() {
    bool must = false;
    const bool can_ask = gpu_.table().record_context != nullptr && patience_ <= kMostPatience;
    pool_->ForEachContext([&](ContextPool& context) {
      const bool other = context.handle() != Gpu::HandleOf(gpu_.current());
      must |= other && !can_ask && context.CountIdle().retired != 0;
    });
    return must;
  }

  // ---- Frees

  DeviceAddress AnyHeld(uint8_t which) const {
    if (held_.empty()) return 0;
    return std::next(held_.begin(), static_cast<ptrdiff_t>(which % held_.size()))->first;
  }

  // As shim/work/free_sync.cpp does it.
  Settlement Settle(ContextPool& context) {
    Readiness& readiness = pool_->readiness();
    if (!context.open() || gpu_.capturing) return kRealFree;
    const Stamp stamp = readiness.StampNow(context);
    if (stamp == kReady || options_.free_sync == FreeSync::kNone) return Settlement::Pooled(stamp);
    if (options_.free_sync != FreeSync::kWait && Readiness::HasContextEvents(gpu_.table())) {
      const Fences::Recorded fence = readiness.Record(context, FencePurpose::kOrder);
      if (fence.status == kSuccess) {
        return Settlement::Pooled(readiness.StampFor(context, fence.number));
      }
    }
    const int status = readiness.Finish(context);
    return status == kSuccess ? Settlement::Waited(readiness.StampOfOthers(context)) : kRealFree;
  }

  // What the pool knows of may use the memory, if it is of the same device.
  Moment Now(size_t context) {
    Moment now{};
    pool_->ForEachContext([&](ContextPool& other) {
      const size_t index = (reinterpret_cast<uintptr_t>(other.handle()) >> 12) - 1;
      if (gpu_.device(index) == gpu_.device(context)) now[index] = gpu_.submitted(index);
    });
    return now;
  }

  void FreeAny(uint8_t which) {
    if (const DeviceAddress address = AnyHeld(which)) Free(address);
  }
  void Free(DeviceAddress address) {
    const Held held = held_.at(address);
    Block* block = pool_->Find(address);
    CMP_EXPECT(block != nullptr && block->requested == held.requested);
    const Moment now = Now(held.context);
    ContextPool& context = *block->owner();
    const size_t excess = context.accounts().Excess();
    freeing_ = address;
    if (pool_->TakeLive(block, address)) {
      CMP_EXPECT(!held.unpooled);
      const Settlement settled = Settle(context);
      if (!settled.pooled()) {
        CMP_EXPECT(pool_->FreeReal(block, api_) == kSuccess);
      } else {
        freeing_ = 0;
        Idle(address, now);
        const bool hit = settled.stamp == kReady && pool_->RetireHitElsewhere(block);
        if (!hit) pool_->Retire(block, settled.stamp, api_);
        ExpectPaid(context, excess, held.bytes);
      }
    } else {
      CMP_EXPECT(Pool::Take(block, address) == BlockState::kUnpooled && held.unpooled);
      CMP_EXPECT(pool_->FreeReal(block, api_) == kSuccess);
    }
    freeing_ = 0;
    Gone(address);
  }
  // An explicit bound holds after a free, or it is nearer by twice what was freed and 64 MiB; what
  // is beyond it may be in use.
  void ExpectPaid(ContextPool& context, size_t before, size_t freed) {
    const size_t excess = context.accounts().Excess();
    if (options_.reserve.grows || excess == 0) return;
    CMP_EXPECT(excess <= before);
    const size_t share = std::max(2 * freed, 64 * kMiB);
    const ContextPool::Idle idle = context.CountIdle();
    CMP_EXPECT(excess + share <= before || idle.ready + idle.retired == 0 || ending_);
  }
  // The pool has it from now on.
  void Idle(DeviceAddress address, const Moment& now) {
    held_.erase(address);
    freed_[address] = now;
  }
  void Gone(DeviceAddress address) {
    held_.erase(address);
    past_.push_back(address);
  }

  // Memory goes back to the device.
  void Released(DeviceAddress address, bool waits) {
    const auto held = held_.find(address);
    CMP_EXPECT(held == held_.end() || address == freeing_);
    const auto freed = freed_.find(address);
    if (freed == freed_.end()) return;
    const size_t context = gpu_.ContextOf(address);
    CMP_EXPECT(waits || gpu_.IsDone(context, freed->second[context]));
    freed_.erase(freed);
  }

  // What is no block in use is not freed: neither what was freed before, ...
  void FreeAgain(uint8_t which) {
    if (past_.empty()) return;
    const DeviceAddress address =
        past_[past_.size() - 1 - which % std::min<size_t>(past_.size(), 64)];
    if (held_.count(address) == 0) ExpectNotInUse(address);
  }
  // ... nor an address in a block, ...
  void FreeInside(uint8_t which, uint8_t where) {
    const DeviceAddress base = AnyHeld(which);
    if (base == 0) return;
    const size_t bytes = held_.at(base).bytes;
    const DeviceAddress address = base + 1 + (bytes - 2) * where / 255;
    ExpectNotInUse(address);
    const Block* around = pool_->FindAround(address);
    CMP_EXPECT(around != nullptr && around->address == base);
    const Block* near = pool_->FindNear(address);
    CMP_EXPECT(near != nullptr && near->address == base);
  }
  // ... nor any other one.
  void FreeWild(uint8_t which) {
    const DeviceAddress address = DeviceAddress{0x7f} << 40 | DeviceAddress{which} << (which % 40);
    if (held_.count(address) == 0) ExpectNotInUse(address);
    for (const DeviceAddress wild : {DeviceAddress{1}, ~DeviceAddress{0}, DeviceAddress{1} << 47}) {
      ExpectNotInUse(wild);
    }
  }
  void ExpectNotInUse(DeviceAddress address) {
    Block* block = pool_->Find(address);
    if (block == nullptr) return;
    CMP_EXPECT(!pool_->TakeLive(block, address));
    const BlockState state = Pool::Take(block, address);
    CMP_EXPECT(state == BlockState::kIdle || state == BlockState::kUnused);
    CMP_EXPECT(!pool_->Unpool(address));
    CMP_EXPECT(pool_->StillHas(block, address));
  }

  void Unpool(uint8_t which) {
    const DeviceAddress address = AnyHeld(which);
    if (address == 0) return;
    CMP_EXPECT(pool_->Unpool(address));
    held_.at(address).unpooled = true;
  }

  // By another call of the program's, which may be refused.
  void FreeElsewhere(uint8_t which) {
    const DeviceAddress address = AnyHeld(which / 2);
    if (address == 0) return;
    Block* block = pool_->Find(address);
    const BlockState taken = Pool::BeginFreeElsewhere(block, address);
    CMP_EXPECT(taken == (held_.at(address).unpooled ? BlockState::kUnpooled : BlockState::kLive));
    const bool freed = which % 2 == 0;
    freeing_ = address;
    if (freed) CMP_EXPECT(gpu_.Release(address, true) == kSuccess);
    freeing_ = 0;
    pool_->EndFreeElsewhere(block, taken, freed);
    if (freed) Gone(address);
  }

  // ---- Memory that goes back

  void ReleaseAll(bool caches) {
    const size_t before = gpu_.used();
    const size_t released = caches ? pool_->ReleaseThreadCaches(api_) : pool_->ReleaseAll(api_);
    CMP_EXPECT(before - gpu_.used() == released);
    if (!caches) return;
    size_t held = 0;
    for (const auto& [address, block] : held_) held += block.bytes;
    CMP_EXPECT(gpu_.used() == held);
    CMP_EXPECT(freed_.empty());
  }
  void ReleaseForRetry(uint8_t what) {
    const size_t before = gpu_.used();
    const size_t wanted = kMiB * (what / 2);
    const int device = what % 2 == 0 ? gpu_.device(gpu_.current()) : kAllDevices;
    const size_t released = pool_->ReleaseForRetry(api_, device, wanted);
    CMP_EXPECT(before - gpu_.used() == released);
  }
  void UseManaged(uint8_t how_much) {
    const size_t before = std::exchange(g_managed_bytes, kDeviceBytes / 64 * (how_much % 80));
    if (g_managed_bytes > before) {
      pool_->LeaveRoomForManaged(g_managed_bytes - before, gpu_.table());
    }
  }
  void Fail(uint8_t count) {
    failing_ = count % 8 != 0;
    for (const size_t on_each_device : {size_t{0}, kContexts - 1}) {
      gpu_.DeviceOf(on_each_device).FailNext(count % 8);
    }
  }

  // ---- Work, threads, contexts

  void Submit(size_t context) {
    gpu_.Submit(context);
    pool_->ForEachContext([&](ContextPool& pool) {
      if (pool.handle() == Gpu::HandleOf(context)) pool.fences().SetWorkSince(true);
    });
  }
  void UseThread(size_t thread) {
    if (thread == thread_) return;
    threads_[thread_] = std::exchange(t_memory, threads_[thread]);
    thread_ = thread;
  }
  // As shim/entry/contexts.cpp does it, by a destruction or the last release.
  void EndContext(uint8_t what) {
    const size_t index = what % kContexts;
    const bool destroyed = what / kContexts % 2 == 0;
    const HeldContext context = pool_->FindContext(Gpu::HandleOf(index), gpu_.id(index));
    if (!context) return;
    destroyed ? context->BeginEnding() : context->BeginReferenceEnding();
    for (auto held = held_.begin(); held != held_.end();) {
      if (held->second.context == index) {
        past_.push_back(held->first);
        held = held_.erase(held);
      } else {
        ++held;
      }
    }
    for (auto freed = freed_.begin(); freed != freed_.end();) {
      freed = gpu_.ContextOf(freed->first) == index ? freed_.erase(freed) : std::next(freed);
    }
    gpu_.End(index);
    pool_->DropContext(*context);
    destroyed ? context->CancelEnding() : context->CancelReferenceEnding();
  }
  // A call that would have ended it fails; meanwhile another thread goes on.
  void KeepContext(uint8_t what) {
    const size_t index = what % kContexts;
    const bool destroyed = what / kContexts % 2 == 0;
    const HeldContext context = pool_->FindContext(Gpu::HandleOf(index), gpu_.id(index));
    if (!context) return;
    destroyed ? context->BeginEnding() : context->BeginReferenceEnding();
    ending_ = true;
    if (const DeviceAddress address = AnyHeld(what)) Free(address);
    ending_ = false;
    destroyed ? context->CancelEnding() : context->CancelReferenceEnding();
  }

  // ---- What must be so between two calls

  void CheckStatistics() {
    size_t requested = 0;
    size_t bytes = 0;
    for (const auto& [address, held] : held_) {
      requested += held.requested;
      bytes += held.bytes;
      CMP_EXPECT(gpu_.IsBlock(address) && gpu_.BytesAt(address) == held.bytes);
    }
    const CudaMemoryPoolStatistics s = StatisticsOf(*pool_);
    CMP_EXPECT(s.live_blocks == held_.size());
    CMP_EXPECT(s.live_requested_bytes == requested);
    CMP_EXPECT(s.live_block_bytes == bytes);
    CMP_EXPECT(s.reserved_bytes == gpu_.used());
    CMP_EXPECT(s.reserved_bytes == bytes + s.ready_bytes + s.retired_bytes);
    CMP_EXPECT(s.requests == s.thread_cache_hits + s.global_pool_hits + s.refills + s.oversized);
    CMP_EXPECT(s.reserved_peak_bytes >= s.reserved_bytes);
    pool_->ForEachContext([](ContextPool& context) {
      CMP_EXPECT(context.accounts().leaving() == 0);
      CMP_EXPECT(context.accounts().slack() <= context.accounts().reserved());
    });
  }

  // The threads end, the program frees what it has, and all is as if there had been nothing.
  void End() {
    capturing_thread_ = kThreads;
    gpu_.capturing = false;
    for (size_t i = 0; i < kThreads; ++i) {
      UseThread(i);
      Pool::ThreadExit();
    }
    while (!held_.empty()) Free(held_.begin()->first);
    CheckStatistics();
    for (size_t i = 0; i < kContexts; ++i) gpu_.Finish(i);
    ReleaseAll(true);
    CMP_EXPECT(gpu_.used() == 0 && gpu_.DeviceOf(0).wrong_releases() == 0);
    Pool::ThreadExit();
    CheckStatistics();
    CMP_EXPECT(!pool_->HasIdle());
    CMP_EXPECT(pool_->ReleasableBytes(0) == 0 && pool_->ReleasableBytes(1) == 0);
    pool_->ForEachContext([](ContextPool& context) {
      const Accounts& accounts = context.accounts();
      CMP_EXPECT(accounts.reserved() == 0 && accounts.leaving() == 0 && accounts.slack() == 0);
      CMP_EXPECT(accounts.settled_live() == 0 && accounts.settled_rounding() == 0);
    });
    Pool::ForgetThread();
  }

  const System system_;  // the pool's memory ends with it
  const Options options_;
  Gpu gpu_;
  const GpuApi api_;
  Input& input_;
  Pool* pool_ = nullptr;
  ThreadMemory threads_[kThreads];
  size_t thread_ = 0;
  size_t capturing_thread_ = kThreads;  // kThreads: none
  std::map<DeviceAddress, Held> held_;
  std::map<DeviceAddress, Moment> freed_;  // idle
  std::vector<DeviceAddress> past_;
  DeviceAddress freeing_ = 0;  // by a real call
  unsigned patience_ = kMostPatience;
  bool failing_ = false;
  bool ending_ = false;  // a context may be
};

}  // namespace
}  // namespace cmp::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  cmp::fuzz::Input input(data, size);
  cmp::fuzz::Program program(input);
  program.Run();
  return 0;
}
