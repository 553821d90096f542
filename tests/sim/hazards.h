// What went wrong: hazards of memory reuse, and misuse of the interface.
//
// Invariant: each pair of block and work item is reported once. The caller holds the lock.
#ifndef CMP_TESTS_SIM_HAZARDS_H_
#define CMP_TESTS_SIM_HAZARDS_H_

#include <cstdint>
#include <map>
#include <string>

#include "types.h"

namespace cmp::sim {

class Allocations;

// A counter with the first sentences that explain it.
class Report {
 public:
  void Add(const std::string& sentence);
  uint64_t count() const { return count_; }
  const std::string& text() const { return text_; }
  void Clear();

 private:
  uint64_t count_ = 0;
  std::string text_;
};

using Misuse = Report;

class Hazards {
 public:
  // The block was handed out now: whatever is pending on it belongs to an earlier owner, and will
  // run after the hand-over.
  void NoteAlloc(const Range& block);
  void NoteFree(uintptr_t base);
  // The free that was noted did not happen: the pending work is still the block's own.
  void NoteKept(const Range& block);

  // The memory is given up by a call that waits for nothing: what is pending on it is reported, and
  // will not be done. `writes_alone`: it can still be read. `of_device`: others still use it; -1:
  // none.
  void NoteReleased(const Range& memory, const char* how, bool writes_alone = false,
                    int of_device = -1);

  // A submitted item's ranges count from here until Finish.
  void Submit(const ItemPtr& item);
  // REQUIRES: called when the item takes effect, before it does. False: it touches device memory
  // that is not allocated, or uses what was destroyed, and must not be done.
  bool Execute(Item& item, const Allocations& allocations);
  void Finish(const Item& item);

  void Add(const std::string& sentence) { report_.Add(sentence); }
  const Report& report() const { return report_; }
  uint64_t Fingerprint() const;
  void Clear();

 private:
  struct Note {
    Range block;
    uint64_t number = 0;
  };
  struct PendingRange {
    Range range;
    Item* item = nullptr;
    bool write = false;
  };

  void Enter(const Note& note);
  void ReportReuse(Item& item, const Note& note, const char* when);

  std::map<uintptr_t, Note> live_;
  uint64_t last_note_ = 0;
  size_t longest_note_ = 0;
  std::multimap<uintptr_t, PendingRange> pending_;
  size_t longest_pending_ = 0;
  Report report_;
};

// A hash of bytes; 0 for none.
uint64_t HashBytes(const void* bytes, size_t count, uint64_t start);
uint64_t Mix(uint64_t value);

}  // namespace cmp::sim

#endif  // CMP_TESTS_SIM_HAZARDS_H_
