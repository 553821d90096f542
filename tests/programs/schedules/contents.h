// What the blocks of a schedule hold: the real bytes and what they ought to be.
//
// Of every block two words count, the first and the last one. The expected ones are computed when
// work is submitted, in program order; that is right because work which conflicts is only submitted
// where it is known to run in that order (ordering.h).
#ifndef CMP_TESTS_PROGRAMS_SCHEDULES_CONTENTS_H_
#define CMP_TESTS_PROGRAMS_SCHEDULES_CONTENTS_H_

#include <array>
#include <atomic>
#include <vector>

#include "../program.h"
#include "ordering.h"

namespace schedules {

struct Words {
  uint64_t first = 0;
  uint64_t last = 0;
};

struct Block {
  char* pointer = nullptr;
  size_t bytes = 0;
  size_t context = 0;
  bool page_locked = false;
  bool known = false;  // written since it was allocated
  int graphs = 0;      // that use it
  Words words;
  Submission write;               // the last one
  std::vector<Submission> reads;  // since then

  char* last() const { return pointer + (bytes & ~size_t{7}) - sizeof(uint64_t); }
  bool MayRead(const Clock& before) const { return before.Covers(write); }
  bool MayWrite(const Clock& before) const {
    for (const Submission& read : reads) {
      if (!before.Covers(read)) return false;
    }
    return MayRead(before);
  }
  void NoteRead(Submission submission) {
    for (Submission& read : reads) {
      if (read.stream == submission.stream) {
        read = submission;
        return;
      }
    }
    reads.push_back(submission);
  }
  void NoteWrite(Submission submission) {
    write = submission;
    reads.clear();
    known = true;
  }
  void Settled() {
    write = {};
    reads.clear();
  }
};

// Contents that are not what they ought to be, over all threads; the first are printed.
inline std::atomic<uint64_t> g_wrong{0};

inline void ReportWrong(const char* what, uint64_t id, uint64_t found, uint64_t expected) {
  if (g_wrong.fetch_add(1) >= 20) return;
  printf("wrong contents: %s %llu.%llu read %016llx in place of %016llx\n", what,
         static_cast<unsigned long long>(id >> 40),
         static_cast<unsigned long long>(id & ((uint64_t{1} << 40) - 1)),
         static_cast<unsigned long long>(found), static_cast<unsigned long long>(expected));
}

// A kernel or host function: what it writes is a function of its id and of what it reads.
struct Kernel {
  static constexpr size_t kMost = 3;
  struct Place {
    char* first;
    char* last;
    Words expected;
  };

  uint64_t id = 0;
  bool once = true;     // deleted when it has run
  bool expects = true;  // the expected words are known
  size_t read_count = 0;
  size_t write_count = 0;
  std::array<Place, kMost> reads{};
  std::array<Place, kMost> writes{};

  void Read(const Block& block) {
    reads[read_count++] = {block.pointer, block.last(), block.words};
  }
  void Write(const Block& block) { writes[write_count++] = {block.pointer, block.last(), {}}; }
};

inline uint64_t Word(const char* at) {
  uint64_t word = 0;
  memcpy(&word, at, sizeof word);
  return word;
}

// The words of the `nth` written block, after reading what `hash` stands for.
inline uint64_t HashRead(uint64_t hash, const Words& words) {
  return program::Mix(program::Mix(hash ^ words.first) + words.last);
}
inline Words WordsWritten(uint64_t hash, size_t nth) {
  return {program::Mix(hash + 2 * nth + 1), program::Mix(hash + 2 * nth + 2)};
}

// Runs when the device does: the `effect` of a SimWork.
inline void RunKernel(void* data) {
  auto* kernel = static_cast<Kernel*>(data);
  uint64_t hash = program::Mix(kernel->id);
  for (size_t i = 0; i < kernel->read_count; ++i) {
    const Kernel::Place& place = kernel->reads[i];
    const Words words{Word(place.first), Word(place.last)};
    if (kernel->expects && words.first != place.expected.first) {
      ReportWrong("kernel", kernel->id, words.first, place.expected.first);
    }
    if (kernel->expects && words.last != place.expected.last) {
      ReportWrong("kernel", kernel->id, words.last, place.expected.last);
    }
    hash = HashRead(hash, words);
  }
  for (size_t i = 0; i < kernel->write_count; ++i) {
    const Words words = WordsWritten(hash, i);
    memcpy(kernel->writes[i].first, &words.first, sizeof words.first);
    memcpy(kernel->writes[i].last, &words.last, sizeof words.last);
  }
  if (kernel->once) delete kernel;
}

// One thing that the device is asked to do, and its meaning for the expected words.
struct Step {
  enum What { kKernel, kHostFunction, kCopy, kSet, kWriteValue };

  What what = kKernel;
  uint64_t id = 0;
  std::vector<Block*> reads;
  std::vector<Block*> writes;
  bool from_last = false;  // copies and sets: which word
  bool to_last = false;
  unsigned char value = 0;
  uint64_t word = 0;  // of kWriteValue

  void Apply() const {
    if (what == kCopy || what == kSet || what == kWriteValue) {
      const uint64_t written = what == kWriteValue ? word
                               : what == kSet      ? uint64_t{0x0101010101010101} * value
                               : from_last         ? reads[0]->words.last
                                                   : reads[0]->words.first;
      (to_last ? writes[0]->words.last : writes[0]->words.first) = written;
      return;
    }
    uint64_t hash = program::Mix(id);
    for (const Block* block : reads) hash = HashRead(hash, block->words);
    for (size_t i = 0; i < writes.size(); ++i) writes[i]->words = WordsWritten(hash, i);
  }
  bool MayRun(const Clock& before) const {
    for (const Block* block : reads) {
      if (!block->MayRead(before)) return false;
    }
    for (const Block* block : writes) {
      if (!block->MayWrite(before)) return false;
    }
    return true;
  }
  // Can the host see when it is done?
  bool IsVisible() const {
    const auto page_locked = [](const Block* block) { return block->page_locked; };
    return what == kHostFunction || what == kWriteValue ||
           std::any_of(reads.begin(), reads.end(), page_locked) ||
           std::any_of(writes.begin(), writes.end(), page_locked);
  }
  void Note(Submission submission) const {
    for (Block* block : reads) block->NoteRead(submission);
    for (Block* block : writes) block->NoteWrite(submission);
  }
};

}  // namespace schedules

#endif  // CMP_TESTS_PROGRAMS_SCHEDULES_CONTENTS_H_
