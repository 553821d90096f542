// The loop of an actor, and its memory: blocks allocated, freed, handed over, checked.
#include "actor.h"

#include "stalls.h"

namespace schedules {
namespace {

constexpr size_t kMostBlocks = 40;
constexpr size_t kPageLocked = 8;
constexpr size_t kPageLockedBytes = 64;

// Errors that calls may return because of another thread's or an own capture.
bool IsCaptureError(int status) { return status >= 900 && status <= 908; }

}  // namespace

Actor::Actor(const Settings& settings, Handover& handover, int number)
    : settings_(settings),
      handover_(handover),
      number_(number),
      random_(settings.seed * 1000003 + static_cast<uint64_t>(number)),
      ordering_(settings.free_gives),
      events_(6) {
  MUST(cudaSetDevice(0));
  void* memory = nullptr;
  MUST(cudaMallocHost(&memory, kPageLocked * kPageLockedBytes));
  memset(memory, 0, kPageLocked * kPageLockedBytes);
  page_locked_memory_ = static_cast<char*>(memory);
  registered_memory_.resize(kPageLocked * kPageLockedBytes);
  MUST(cudaHostRegister(registered_memory_.data(), registered_memory_.size(),
                        cudaHostRegisterDefault));
  for (size_t i = 0; i < kPageLocked; ++i) {
    page_locked_.push_back(std::make_unique<Block>());
    Block& block = *page_locked_.back();
    block.pointer =
        (i % 2 == 0 ? page_locked_memory_ : registered_memory_.data()) + i * kPageLockedBytes;
    block.bytes = kPageLockedBytes;
    block.page_locked = true;
    block.known = true;
  }
  MakeContext();
}

Actor::~Actor() = default;

void Actor::Run(uint64_t count) {
  const uint64_t end = operations_ + count;
  while (operations_ < end) {
    if (ordering_.Full()) SettleEverything();
    g_stalls.Note();
    if (Operation()) ++operations_;
  }
}

bool Actor::Operation() {
  // From a device that is idle most of the time to one that never is.
  static constexpr uint64_t kPaces[] = {100, 1000, 10000, 40000};
  if (Chance(200)) pace_ns_ = kPaces[random_.Below(std::size(kPaces))];
  if (settings_.captures && Chance(24)) return Capture();
  if (!graphs_.empty() && Chance(12)) return LaunchGraph();
  if (settings_.contexts > 1 && Chance(24)) return SwitchContext();
  if (settings_.threads > 1 && Chance(16)) return Chance(2) ? GiveAway() : TakeOver();
  if (Chance(40)) return FreeBusy();
  switch (random_.Below(36)) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4:
    case 5:
    case 6:
      return blocks_.size() < kMostBlocks && Allocate(RandomSize());
    case 7:
    case 8:
    case 9:
    case 10:
    case 11:
      return !blocks_.empty() && CheckAndFree(random_.Below(blocks_.size()));
    case 12:
    case 13:
      return AsyncCopyOrSet();
    case 14:
    case 15:
      return SyncCopyOrSet();
    case 16:
      return HostFunction();
    case 17:
      return RecordEvent();
    case 18:
      return WaitEvent();
    case 19:
      return Synchronize();
    case 20:
      return Ask();
    case 21:
      return CreateOrDestroyStream();
    case 22:
    case 23:
    case 24:
      return HostAccess();
    case 25:
    case 26:
      return VisibleCopyOrSet();
    default:
      return Launch(RandomStream());
  }
}

bool Actor::FreeBusy() {
  Block* block = RandomBlock(false, false);
  if (block == nullptr || block->graphs > 0) return false;
  Step step;
  step.id = (static_cast<uint64_t>(number_) << 40) + operations_;
  step.writes.push_back(block);
  const uint64_t pace = pace_ns_;
  pace_ns_ = 300000;
  const bool launched = Do(step, RandomStream());
  pace_ns_ = pace;
  if (!launched || !MayFree(*block)) return launched;
  const size_t bytes = block->bytes;
  const auto found = std::find_if(blocks_.begin(), blocks_.end(),
                                  [&](const auto& owned) { return owned.get() == block; });
  Free(static_cast<size_t>(found - blocks_.begin()));
  if (Chance(2) && blocks_.size() < kMostBlocks) Allocate(bytes);
  return true;
}

bool Actor::Ok(int status, const char* what) {
  if (settings_.predictable()) {
    fingerprint_ = program::Mix(fingerprint_ + static_cast<uint64_t>(status) + 1);
  }
  if (status == 0) return true;
  cudaGetLastError();
  const bool allowed = settings_.failures > 0 || errors_allowed_ ||
                       (settings_.captures && settings_.threads > 1 && IsCaptureError(status));
  if (!allowed && unexpected_++ < 10) {
    printf("unexpected: %s answered %d, thread %d, operation %llu\n", what, status, number_,
           static_cast<unsigned long long>(operations_));
  }
  return false;
}

size_t Actor::RandomSize() {
  // Few sizes, so that freed blocks are soon asked for again.
  static constexpr size_t kUsual[] = {64, 256, 1000, 4096, 5000, 20000};
  const uint64_t choice = random_.Below(64);
  if (choice == 0 && settings_.large) return 16 + random_.Below(3 << 20);
  if (choice < 3) return 16 + random_.Below(100 << 10);
  if (choice < 6) return 16 + random_.Below(2000);
  return kUsual[random_.Below(std::size(kUsual))];
}

bool Actor::Allocate(size_t bytes) {
  auto block = std::make_unique<Block>();
  if (Chance(2)) {
    void* pointer = nullptr;
    if (!Ok(cudaMalloc(&pointer, bytes), "cudaMalloc")) return true;
    block->pointer = static_cast<char*>(pointer);
  } else {
    CUdeviceptr pointer = 0;
    if (!Ok(cuMemAlloc_v2(&pointer, bytes), "cuMemAlloc")) return true;
    block->pointer = reinterpret_cast<char*>(pointer);
  }
  simNoteAlloc(block->pointer, bytes);
  block->bytes = bytes;
  block->context = current_;
  blocks_.push_back(std::move(block));
  return true;
}

// The real free waits for the block's own context: work of another one must be known to be done.
bool Actor::MayFree(const Block& block) const {
  if (block.graphs > 0) return false;
  const auto waited_for = [&](Submission submission) {
    return ordering_.ContextOf(submission.stream) == block.context ||
           ordering_.host().Covers(submission);
  };
  if (!waited_for(block.write)) return false;
  return std::all_of(block.reads.begin(), block.reads.end(), waited_for);
}

bool Actor::CheckAndFree(size_t index) {
  Block& block = *blocks_[index];
  if (!MayFree(block)) return false;
  if (block.known && Chance(3)) {
    ++block.graphs;  // not to be freed for an order
    Check(block);
    --block.graphs;
  }
  const auto found = std::find_if(blocks_.begin(), blocks_.end(),
                                  [&](const auto& owned) { return owned.get() == &block; });
  return Free(static_cast<size_t>(found - blocks_.begin()));
}

bool Actor::Free(size_t index) {
  const Block& block = *blocks_[index];
  const size_t context = block.context;
  simNoteFree(block.pointer);
  const bool runtime = Chance(2);
  const int status =
      runtime ? static_cast<int>(cudaFree(block.pointer))
              : static_cast<int>(cuMemFree_v2(reinterpret_cast<CUdeviceptr>(block.pointer)));
  if (!Ok(status, runtime ? "cudaFree" : "cuMemFree")) {
    if (IsCaptureError(status)) {
      simNoteKept(block.pointer, block.bytes);  // it was not freed
      return true;
    }
  } else {
    ordering_.Free(context);
  }
  std::swap(blocks_[index], blocks_.back());
  blocks_.pop_back();
  return true;
}

// Any block of the context, for what its free gives.
bool Actor::FreeAny(size_t context) {
  const size_t start = blocks_.empty() ? 0 : random_.Below(blocks_.size());
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const size_t index = (start + i) % blocks_.size();
    if (blocks_[index]->context == context && MayFree(*blocks_[index])) return Free(index);
  }
  if (context != current_) return false;
  const size_t before = blocks_.size();
  return Allocate(64) && blocks_.size() > before && Free(blocks_.size() - 1);
}

Block* Actor::RandomBlock(bool known, bool page_locked, bool any_context) {
  auto& from = page_locked ? page_locked_ : blocks_;
  if (from.empty()) return nullptr;
  const size_t start = random_.Below(from.size());
  for (size_t i = 0; i < from.size(); ++i) {
    Block* block = from[(start + i) % from.size()].get();
    const bool reachable = block->page_locked || any_context || block->context == current_;
    if (reachable && (block->known || !known)) return block;
  }
  return nullptr;
}

// What a kernel reads and writes; nothing where there are no blocks.
void Actor::PickBlocks(Step* step, bool page_locked) {
  const size_t writes = 1 + random_.Below(2);
  const size_t reads = random_.Below(3);
  for (size_t i = 0; i < reads; ++i) {
    if (Block* block = RandomBlock(true, page_locked)) step->reads.push_back(block);
  }
  for (size_t i = 0; i < writes; ++i) {
    Block* block = RandomBlock(false, page_locked);
    if (block == nullptr || (i > 0 && block == step->writes[0])) continue;
    step->writes.push_back(block);
  }
}

// By a synchronous copy, which an earlier free orders behind everything.
bool Actor::Check(Block& block) {
  StreamOf& legacy = contexts_[current_].streams[0];
  if (block.context != current_ || !block.known) return false;
  if (!block.MayRead(ordering_.Before(legacy.place)) && !MakeOrdered(legacy.place, block, false)) {
    return false;
  }
  uint64_t words[2] = {};
  const auto copy = [&](uint64_t* to, const char* from) {
    const int status =
        Chance(2) ? static_cast<int>(cudaMemcpy(to, from, 8, cudaMemcpyDeviceToHost))
                  : static_cast<int>(cuMemcpyDtoH_v2(to, reinterpret_cast<CUdeviceptr>(from), 8));
    if (!Ok(status, "synchronous copy to the host")) return false;
    block.NoteRead(ordering_.Submit(legacy.place, ordering_.Before(legacy.place)));
    ordering_.HostWaitsForStream(legacy.place);
    return true;
  };
  if (!copy(&words[0], block.pointer) || !copy(&words[1], block.last())) return true;
  const uint64_t id = (static_cast<uint64_t>(number_) << 40) + operations_;
  if (words[0] != block.words.first) ReportWrong("copy", id, words[0], block.words.first);
  if (words[1] != block.words.last) ReportWrong("copy", id, words[1], block.words.last);
  if (settings_.predictable()) fingerprint_ = program::Mix(fingerprint_ ^ words[0] ^ words[1]);
  return true;
}

// The host reads or writes page-locked memory that the device works on.
bool Actor::HostAccess() {
  Block& block = *page_locked_[random_.Below(page_locked_.size())];
  const bool write = Chance(2);
  const auto may = [&] {
    return write ? block.MayWrite(ordering_.host()) : block.MayRead(ordering_.host());
  };
  if (!may() && !MakeOrderedForHost(block, write)) return false;
  if (!may()) return false;
  if (write) {
    block.words = {random_.Next(), random_.Next()};
    memcpy(block.pointer, &block.words.first, sizeof(uint64_t));
    memcpy(block.last(), &block.words.last, sizeof(uint64_t));
    block.Settled();
    return true;
  }
  const uint64_t id = (static_cast<uint64_t>(number_) << 40) + operations_;
  const uint64_t first = Word(block.pointer);
  const uint64_t last = Word(block.last());
  if (first != block.words.first) ReportWrong("host", id, first, block.words.first);
  if (last != block.words.last) ReportWrong("host", id, last, block.words.last);
  return true;
}

// A block goes to another thread: what was done with it is done, or comes before whatever is
// submitted from now on, or an event goes along.
bool Actor::GiveAway() {
  if (blocks_.empty() || current_ != 0) return false;
  const size_t index = random_.Below(blocks_.size());
  Block& block = *blocks_[index];
  if (block.context != 0 || block.graphs > 0 || !MayFree(block)) return false;
  Handover::Entry entry;
  if (Chance(3)) {
    const StreamOf& stream = RandomStream();
    if (!block.MayWrite(ordering_.Before(stream.place))) return false;
    if (!Ok(cudaEventCreateWithFlags(&entry.event, cudaEventDisableTiming), "cudaEventCreate")) {
      return true;
    }
    const bool recorded = Ok(cudaEventRecord(entry.event, stream.handle), "cudaEventRecord");
    if (!recorded) {
      Ok(cudaEventDestroy(entry.event), "cudaEventDestroy");
      return true;
    }
    ordering_.Submit(stream.place, ordering_.Before(stream.place));
  } else if (ordering_.FreeOrders() && Chance(2)) {
    const Block* chosen = &block;
    block.graphs = 1;  // not to be freed
    const bool freed = FreeAny(0);
    const auto found = std::find_if(blocks_.begin(), blocks_.end(),
                                    [&](const auto& owned) { return owned.get() == chosen; });
    (*found)->graphs = 0;
    if (!freed || !(chosen->MayWrite(ordering_.floor(0)) || chosen->MayWrite(ordering_.host()))) {
      return false;
    }
    entry.block = std::move(*found);
    *found = std::move(blocks_.back());
    blocks_.pop_back();
  } else {
    if (!MakeOrderedForHost(block, true) && !block.MayWrite(ordering_.host())) return false;
    const auto found = std::find_if(blocks_.begin(), blocks_.end(),
                                    [&](const auto& owned) { return owned.get() == &block; });
    if (found == blocks_.end() || !block.MayWrite(ordering_.host())) return false;
    entry.block = std::move(*found);
    *found = std::move(blocks_.back());
    blocks_.pop_back();
  }
  if (entry.block == nullptr) {
    entry.block = std::move(blocks_[index]);
    blocks_[index] = std::move(blocks_.back());
    blocks_.pop_back();
  }
  entry.block->Settled();
  const std::lock_guard<std::mutex> guard(handover_.lock);
  handover_.entries.push_back(std::move(entry));
  return true;
}

bool Actor::TakeOver() {
  if (current_ != 0 || blocks_.size() >= 2 * kMostBlocks) return false;
  Handover::Entry entry;
  {
    const std::lock_guard<std::mutex> guard(handover_.lock);
    if (handover_.entries.empty()) return false;
    entry = std::move(handover_.entries.front());
    handover_.entries.pop_front();
  }
  blocks_.push_back(std::move(entry.block));
  if (entry.event == nullptr) return true;
  Block& block = *blocks_.back();
  const StreamOf& stream = RandomStream();
  if (Ok(cudaStreamWaitEvent(stream.handle, entry.event, 0), "cudaStreamWaitEvent")) {
    const Submission wait = ordering_.Submit(stream.place, ordering_.Before(stream.place));
    block.NoteRead(wait);
    block.write = wait;
  } else {
    // Only with failures or captures about: the host waits, as long as it takes.
    while (cudaDeviceSynchronize() != cudaSuccess) cudaGetLastError();
  }
  Ok(cudaEventDestroy(entry.event), "cudaEventDestroy");
  return true;
}

void Actor::Finish() {
  SettleEverything();
  while (!graphs_.empty()) DropGraph(0);
  old_kernels_.clear();
  for (size_t context = contexts_.size(); context-- > 0;) {
    Enter(context);
    for (const auto& block : blocks_) {
      if (block->context == context && block->known) Check(*block);
    }
  }
  for (const auto& block : page_locked_) {
    const uint64_t id = (static_cast<uint64_t>(number_) << 40) + operations_;
    if (Word(block->pointer) != block->words.first) {
      ReportWrong("host", id, Word(block->pointer), block->words.first);
    }
    fingerprint_ = program::Mix(fingerprint_ ^ Word(block->pointer));
  }
  for (size_t i = blocks_.size(); i-- > 0;) Free(i);
  for (size_t context = contexts_.size(); context-- > 1;) DestroyContext(context);
  Enter(0);
  while (contexts_[0].streams.size() > 2) DestroyStream(contexts_[0].streams.size() - 1);
  for (const EventOf& event : events_) {
    if (event.handle != nullptr && event.context == 0) {
      Ok(cudaEventDestroy(event.handle), "cudaEventDestroy");
    }
  }
  Ok(cudaFreeHost(page_locked_memory_), "cudaFreeHost");
  Ok(cudaHostUnregister(registered_memory_.data()), "cudaHostUnregister");
}

}  // namespace schedules
