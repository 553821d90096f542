#include "core/contexts/reserve.h"

#include <utility>

namespace cmp {

void Reserve::Open() {
  peak_.store(0, std::memory_order_relaxed);
  bytes_.store(rule_.bytes, std::memory_order_relaxed);
  room_.store(kNoLimit, std::memory_order_relaxed);
  never_fits_.store(false, std::memory_order_relaxed);
  crowded_.store(0, std::memory_order_relaxed);
  used_.store(0, std::memory_order_relaxed);
  share_ = 0;
  extra_.store(0, std::memory_order_relaxed);
  noted_.store(0, std::memory_order_relaxed);
  for (size_t i = 0; notes_ != nullptr && i < kNotes; ++i) notes_[i] = Note{};
  Update();
}

void Reserve::Update() {
  Held held(lock_);
  UpdateLocked();
}

void Reserve::UpdateLocked() {
  const size_t peak = peak_.load(std::memory_order_relaxed);
  const size_t wanted = static_cast<size_t>(static_cast<double>(peak) * rule_.ratio) +
                        bytes_.load(std::memory_order_relaxed) + extra();
  const size_t used = used_.load(std::memory_order_relaxed);
  const size_t most = MovesAnyway(used) ? used + spare_.load(std::memory_order_relaxed)
                                        : room_.load(std::memory_order_relaxed);
  const size_t bound = wanted < most ? wanted : most;
  wanted_.store(wanted, std::memory_order_relaxed);
  bound_.store(bound, std::memory_order_relaxed);
  near_bound_.store(bound > peak ? bound - (bound - peak) / 4 : bound, std::memory_order_relaxed);
}

size_t Reserve::NoteManaged(size_t managed, size_t held, size_t free, size_t total) {
  Held hold(lock_);
  const size_t seen = held + free;
  if (share_ < seen) share_ = seen;
  if (share_ > seen + managed) share_ = seen + managed;
  spare_.store(total / 16, std::memory_order_relaxed);
  const size_t room = SetRoom(managed);
  const size_t left = room > held ? room - held : 0;
  return left < free ? left : free;
}

size_t Reserve::SetRoom(size_t managed) {
  const bool fits = managed <= share_;
  const size_t room = fits ? share_ - managed : 0;
  never_fits_.store(!fits, std::memory_order_relaxed);
  room_.store(managed == 0 ? kNoLimit : room, std::memory_order_relaxed);
  UpdateLocked();
  return room;
}

size_t Reserve::TooMuchIdle(size_t held, size_t idle) const {
  const size_t room = room_.load(std::memory_order_relaxed);
  if (held <= room) return 0;
  const size_t used = held > idle ? held - idle : 0;
  if (MovesAnyway(used)) {
    const size_t spare = spare_.load(std::memory_order_relaxed);
    return idle > spare ? idle - spare : 0;
  }
  return used <= room ? held - room : idle;
}

void Reserve::NoteUsed(size_t used, size_t more) {
  if (!IsOverRoom(used)) crowded_.store(0, std::memory_order_relaxed);
  if (more != 0 && IsOverRoom(used + more)) crowded_.fetch_add(1, std::memory_order_relaxed);
  used_.store(used + more, std::memory_order_relaxed);
  Update();
}

void Reserve::NoteReleased(size_t bytes, uint64_t now_ns, Arena& arena) {
  if (!rule_.grows) return;
  Held held(lock_);
  if (notes_ == nullptr) notes_ = static_cast<Note*>(arena.Allocate(kNotes * sizeof(Note)));
  if (notes_ == nullptr) return;
  Note& note = notes_[next_];
  next_ = (next_ + 1) % kNotes;
  if (note.bytes == 0) noted_.fetch_add(1, std::memory_order_relaxed);
  note = Note{bytes, now_ns};
}

size_t Reserve::FindRegretted(size_t bytes, size_t most, uint64_t since_ns) {
  Held held(lock_);
  Note* best = nullptr;
  for (size_t i = 0; i < kNotes; ++i) {
    Note& note = notes_[i];
    if (note.bytes < bytes || note.bytes > most || note.when_ns < since_ns) continue;
    if (best == nullptr || note.bytes < best->bytes) best = &note;
  }
  if (best == nullptr) return 0;
  const size_t regretted = best->bytes;
  best->bytes = 0;
  noted_.fetch_sub(1, std::memory_order_relaxed);
  return regretted;
}

void Reserve::Grow(size_t bytes, size_t held, size_t most) {
  if (held >= near_bound()) bytes += (wanted() > peak() ? wanted() - peak() : 0) / kGrowthPart;
  size_t extra = extra_.load(std::memory_order_relaxed);
  for (;;) {
    const size_t sum = extra + bytes;
    const size_t grown = sum < most ? sum : most;
    if (extra_.compare_exchange_weak(extra, grown, std::memory_order_relaxed)) break;
  }
  Update();
}

void Reserve::NoteGivenBack(size_t bytes) {
  size_t extra = extra_.load(std::memory_order_relaxed);
  while (!extra_.compare_exchange_weak(extra, extra > bytes ? extra - bytes : 0,
                                       std::memory_order_relaxed)) {
  }
  Update();
}

int64_t Reserve::TakeExtraChange() {
  Held held(lock_);
  const size_t told = std::exchange(told_extra_, extra());
  return static_cast<int64_t>(told_extra_) - static_cast<int64_t>(told);
}

}  // namespace cmp
