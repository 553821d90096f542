#include "hazards.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "allocations.h"

namespace cmp::sim {
namespace {

constexpr uint64_t kSentencesKept = 50;

std::string Describe(const Range& range) {
  char text[80];
  std::snprintf(text, sizeof text, "[%#lx, +%zu)", static_cast<unsigned long>(range.start),
                range.bytes);
  return text;
}

std::string Describe(const Item& item) {
  return std::string(item.work.what) + " #" + std::to_string(item.number) +
         (item.work.id != 0 ? " (id " + std::to_string(item.work.id) + ")" : "");
}

}  // namespace

void Report::Add(const std::string& sentence) {
  if (++count_ <= kSentencesKept) text_ += sentence + "\n";
}

void Report::Clear() {
  count_ = 0;
  text_.clear();
}

void Hazards::ReportReuse(Item& item, const Note& note, const char* when) {
  if (!item.hazards.insert(note.number).second) return;
  report_.Add(Describe(item) + ", submitted before " + Describe(note.block) + " was handed out, " +
              when);
}

void Hazards::NoteAlloc(const Range& block) {
  const Note note{block, ++last_note_};
  const uintptr_t begin = block.start > longest_pending_ ? block.start - longest_pending_ : 0;
  for (auto at = pending_.lower_bound(begin); at != pending_.end() && at->first < block.end();
       ++at) {
    if (at->second.range.Overlaps(block)) {
      ReportReuse(*at->second.item, note, at->second.write ? "still writes it" : "still reads it");
    }
  }
  Enter(note);
}

void Hazards::NoteReleased(const Range& memory, const char* how, bool writes_alone, int of_device) {
  const uintptr_t begin = memory.start > longest_pending_ ? memory.start - longest_pending_ : 0;
  for (auto at = pending_.lower_bound(begin); at != pending_.end() && at->first < memory.end();
       ++at) {
    const PendingRange& pending = at->second;
    Item& item = *pending.item;
    const bool ran = item.cancelled || item.state == ItemState::kRunning;
    if (ran || item.lost || !pending.range.Overlaps(memory)) continue;
    if (writes_alone && !pending.write) continue;
    if (of_device >= 0 && item.context->device != of_device) continue;
    item.lost = true;
    report_.Add(Describe(item) + " still uses " + Describe(memory) + ", which was " + how);
  }
}

void Hazards::NoteKept(const Range& block) { Enter({block, ++last_note_}); }

void Hazards::Enter(const Note& note) {
  const Range& block = note.block;
  const uintptr_t first = block.start > longest_note_ ? block.start - longest_note_ : 0;
  for (auto at = live_.lower_bound(first); at != live_.end() && at->first < block.end(); ++at) {
    if (at->second.block.Overlaps(block)) {
      report_.Add("live blocks overlap: " + Describe(at->second.block) + " and " + Describe(block));
    }
  }
  longest_note_ = std::max(longest_note_, block.bytes);
  live_[block.start] = note;
}

void Hazards::NoteFree(uintptr_t base) {
  if (live_.erase(base) == 0) report_.Add("noted free of a block that was not noted");
}

void Hazards::Submit(const ItemPtr& item) {
  const auto add = [&](const Range& range, bool write) {
    if (range.bytes == 0) return;
    longest_pending_ = std::max(longest_pending_, range.bytes);
    pending_.emplace(range.start, PendingRange{range, item.get(), write});
  };
  for (const Range& range : item->work.reads) add(range, false);
  for (const Range& range : item->work.writes) add(range, true);
}

bool Hazards::Execute(Item& item, const Allocations& allocations) {
  if (item.lost) return false;
  bool usable = true;
  for (const UsedObject& used : item.work.objects) {
    if (!used.object.expired()) continue;
    char handle[24];
    std::snprintf(handle, sizeof handle, "%#llx", static_cast<unsigned long long>(used.handle));
    report_.Add(Describe(item) + " uses object " + handle + ", which was destroyed");
    usable = false;
  }
  const auto check = [&](const Range& range, const char* verb) {
    if (range.bytes == 0) return;
    if (!allocations.IsUsable(range)) {
      report_.Add(Describe(item) + " " + verb + " really freed memory " + Describe(range));
      usable = false;
    }
  };
  for (const Range& range : item.work.reads) check(range, "reads");
  for (const Range& range : item.work.writes) check(range, "writes");
  return usable;
}

void Hazards::Finish(const Item& item) {
  const auto remove = [&](const Range& range) {
    auto [at, last] = pending_.equal_range(range.start);
    while (at != last) at = at->second.item == &item ? pending_.erase(at) : std::next(at);
  };
  for (const Range& range : item.work.reads) remove(range);
  for (const Range& range : item.work.writes) remove(range);
}

uint64_t Hazards::Fingerprint() const {
  uint64_t sum = 0;  // commutative: independent of addresses and of the order of the notes
  for (const auto& [base, note] : live_) {
    sum += Mix(HashBytes(reinterpret_cast<const void*>(base), note.block.bytes, note.block.bytes));
  }
  return sum;
}

void Hazards::Clear() {
  live_.clear();
  report_.Clear();
}

uint64_t Mix(uint64_t value) {
  value ^= value >> 30;
  value *= 0xbf58476d1ce4e5b9;
  value ^= value >> 27;
  value *= 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

uint64_t HashBytes(const void* bytes, size_t count, uint64_t start) {
  const auto* at = static_cast<const unsigned char*>(bytes);
  uint64_t hash = Mix(start + 0x9e3779b97f4a7c15);
  while (count >= sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, at, sizeof word);
    hash = (hash ^ word) * 0x9fb21c651e98df25;
    hash ^= hash >> 32;
    at += sizeof word;
    count -= sizeof word;
  }
  for (; count > 0; --count) hash = (hash ^ *at++) * 0x100000001b3;
  return Mix(hash);
}

}  // namespace cmp::sim
