#include "shim/visible_memory.h"

#include <string.h>

#include <new>

#include "core/memory.h"
#include "shim/nvidia_libraries.h"
#include "shim/service.h"

namespace cmp {

// release on the way in, so that no store of the change comes before the odd number; and on the way
// out, so that none comes after the even one.
class VisibleMemory::Change {
 public:
  explicit Change(VisibleMemory& memory) : memory_(memory), held_(memory.lock_) {
    memory_.changes_.fetch_add(1, std::memory_order_acq_rel);
  }
  ~Change() {
    memory_.Recount();
    memory_.changes_.fetch_add(1, std::memory_order_release);
  }
  Change(const Change&) = delete;
  Change& operator=(const Change&) = delete;

 private:
  VisibleMemory& memory_;
  const Held<Mutex> held_;
};

// acquire and release, so that a reader's look at changes_ stays behind its loads.
VisibleMemory::Range VisibleMemory::Load(const Entry& entry) {
  return {entry.begin.load(std::memory_order_acquire), entry.end.load(std::memory_order_acquire),
          entry.context.load(std::memory_order_acquire),
          entry.what.load(std::memory_order_acquire)};
}

void VisibleMemory::Store(Entry& entry, const Range& range) {
  entry.begin.store(range.begin, std::memory_order_release);
  entry.end.store(range.end, std::memory_order_release);
  entry.context.store(range.context, std::memory_order_release);
  entry.what.store(range.what, std::memory_order_release);
}

size_t VisibleMemory::Above(uintptr_t address, const Entry* entries, size_t count) const {
  size_t low = 0;
  while (count != 0) {
    const size_t half = count / 2;
    if (entries[low + half].begin.load(std::memory_order_acquire) <= address) {
      low += half + 1;
      count -= half + 1;
    } else {
      count = half;
    }
  }
  return low;
}

bool VisibleMemory::IsPageLocked(uintptr_t address) const {
  if (!HasPageLocked()) return incomplete_.load(std::memory_order_relaxed);
  for (Pause pause;; pause.Wait()) {
    const uint32_t changes = changes_.load(std::memory_order_acquire);
    if (changes % 2 != 0) continue;
    // In this order: there is room for the count in these entries, or in later ones.
    const size_t count = count_.load(std::memory_order_acquire);
    const Entry* entries = entries_.load(std::memory_order_acquire);
    const size_t above = Above(address, entries, count);
    const Range range = above == 0 ? Range{} : Load(entries[above - 1]);
    if (changes_.load(std::memory_order_acquire) != changes) continue;
    if (address < range.end) return range.what != Visible::kManaged;
    return incomplete_.load(std::memory_order_relaxed);
  }
}

bool VisibleMemory::MakeRoom() {
  const size_t count = count_.load(std::memory_order_relaxed);
  if (count < room_) return true;
  const size_t room = room_ == 0 ? 128 : 2 * room_;
  auto* larger = static_cast<Entry*>(MapPages(room * sizeof(Entry)));
  if (larger == nullptr) return false;
  const Entry* entries = entries_.load(std::memory_order_relaxed);
  for (size_t i = 0; i < room; ++i) {
    Store(*new (&larger[i]) Entry{}, i < count ? Load(entries[i]) : Range{});
  }
  entries_.store(larger, std::memory_order_release);
  room_ = room;
  return true;
}

void VisibleMemory::Erase(size_t at) {
  Entry* entries = entries_.load(std::memory_order_relaxed);
  const size_t count = count_.load(std::memory_order_relaxed) - 1;
  for (size_t i = at; i < count; ++i) Store(entries[i], Load(entries[i + 1]));
  count_.store(count, std::memory_order_release);
}

void VisibleMemory::Recount() {
  size_t page_locked = 0;
  uint32_t exist = 0;
  const Entry* entries = entries_.load(std::memory_order_relaxed);
  for (size_t i = 0; i < count_.load(std::memory_order_relaxed); ++i) {
    const Visible what = entries[i].what.load(std::memory_order_relaxed);
    if (what != Visible::kManaged) ++page_locked;
    if (what != Visible::kCopies) exist |= BitOf(what);
  }
  page_locked_.store(page_locked, std::memory_order_release);
  ranges_.store(exist, std::memory_order_release);
}

void VisibleMemory::Add(const Range& range) {
  const Change change(*this);
  // What is there already has gone in a way that nobody saw.
  const Entry* entries = entries_.load(std::memory_order_relaxed);
  size_t at = Above(range.end - 1, entries, count_.load(std::memory_order_relaxed));
  while (at != 0 && entries[at - 1].end.load(std::memory_order_relaxed) > range.begin) Erase(--at);
  if (!MakeRoom()) {
    incomplete_.store(true, std::memory_order_relaxed);
    if (range.what != Visible::kCopies) NoteForGood(range.what);
    return;
  }
  Entry* place = entries_.load(std::memory_order_relaxed);
  const size_t count = count_.load(std::memory_order_relaxed);
  for (size_t i = count; i > at; --i) Store(place[i], Load(place[i - 1]));
  Store(place[at], range);
  count_.store(count + 1, std::memory_order_release);
}

VisibleMemory::Range VisibleMemory::Remove(uintptr_t begin) {
  const Change change(*this);
  const Entry* entries = entries_.load(std::memory_order_relaxed);
  const size_t above = Above(begin, entries, count_.load(std::memory_order_relaxed));
  if (above == 0) return Range{};
  const Range range = Load(entries[above - 1]);
  if (range.begin != begin) return Range{};
  Erase(above - 1);
  return range;
}

void VisibleMemory::SetMapped(uintptr_t address) {
  const Change change(*this);
  Entry* entries = entries_.load(std::memory_order_relaxed);
  const size_t above = Above(address, entries, count_.load(std::memory_order_relaxed));
  if (above == 0) return;
  const Range range = Load(entries[above - 1]);
  if (address >= range.end || range.what != Visible::kCopies) return;
  entries[above - 1].what.store(Visible::kMapped, std::memory_order_release);
}

void VisibleMemory::ContextEnds(uint64_t context) {
  if (count_.load(std::memory_order_acquire) == 0) return;
  const Change change(*this);
  const Entry* entries = entries_.load(std::memory_order_relaxed);
  for (size_t i = count_.load(std::memory_order_relaxed); i-- > 0;) {
    if (entries[i].context.load(std::memory_order_relaxed) == context) Erase(i);
  }
}

Visible VisibleMemory::First(uint32_t exists) {
  const auto is = [exists](Visible what, Rule rule) {
    return (exists & BitOf(what)) != 0 && RuleIsOn(rule);
  };
  if (is(Visible::kManaged, Rule::kVisibleManaged)) return Visible::kManaged;
  if (is(Visible::kMapped, Rule::kVisibleMapped)) return Visible::kMapped;
  if (is(Visible::kPageableAccess, Rule::kVisiblePageableAccess)) return Visible::kPageableAccess;
  if (is(Visible::kExports, Rule::kVisibleExports)) return Visible::kExports;
  if (is(Visible::kImports, Rule::kVisibleImports)) return Visible::kImports;
  if (is(Visible::kAttributes, Rule::kVisibleAttributes)) return Visible::kAttributes;
  return Visible::kNothing;
}

void VisibleMemory::Forget() { new (this) VisibleMemory; }

void NoteShared(Visible what, const void* caller) {
  if (!IsNvidiaLibrary(caller)) g_visible_memory.NoteForGood(what);
}

void AddRange(Visible what, uintptr_t begin, size_t bytes, const void* caller) {
  const Driver* driver = LoadedDriver();
  if (driver == nullptr || bytes == 0 || IsNvidiaLibrary(caller)) return;
  const uint64_t context = ContextId(*driver, CurrentContext(*driver));
  g_visible_memory.Add({begin, begin + bytes, context, what});
}

void NotePlace(int type, const CUmemLocation& place, const void* caller) {
  constexpr int kManagedType = 2;  // CU_MEM_ALLOCATION_TYPE_MANAGED, CUDA 13.0
  // CU_MEM_LOCATION_TYPE_HOST, _HOST_NUMA, _HOST_NUMA_CURRENT, which older headers lack
  const int where = static_cast<int>(place.type);
  if (type == kManagedType) NoteShared(Visible::kManaged, caller);
  if (where >= 2 && where <= 4) NoteShared(Visible::kMapped, caller);
}

}  // namespace cmp
