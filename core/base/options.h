// The settings, read once from the environment. One table (kOptions in options.cpp) holds name,
// default, meaning and parser; scripts/docs/options.md is printed from it.
#ifndef CMP_CORE_BASE_OPTIONS_H_
#define CMP_CORE_BASE_OPTIONS_H_

#include <cstddef>
#include <cstdint>

#include "core/base/types.h"

namespace cmp {

enum class Mode : uint8_t { kPool, kObserve, kOff };
enum class FreeSync : uint8_t { kWait, kAuto, kOrder, kNone };

// Who gives back idle memory that has been unused for CMP_DECAY: a thread of the pool's own, the
// program's own calls, or nobody.
enum class DecayBy : uint8_t { kThread, kCalls, kNobody };

// What the pool may hold: see reserve.h.
struct ReserveRule {
  double ratio;
  size_t bytes;
  bool grows = false;  // auto

  bool operator==(const ReserveRule&) const = default;
};

// CMP_SHAKE: off, or a recording run, or else the seed of a shaken one.
inline constexpr uint64_t kShakeOff = 0;
inline constexpr uint64_t kShakeRecord = ~uint64_t{0};

// CMP_MAX_BLOCK: an eighth of the device, at least 1 GiB.
inline constexpr size_t kOfTheDevice = 0;

// CMP_ASYNC_KEEP=auto: as much as CMP_RESERVE says.
inline constexpr size_t kByReserve = ~size_t{0};

// CMP_HOST=on: what may be idle follows the memory that the process may have.
inline constexpr size_t kPageLockedAuto = ~size_t{0};

struct Options {
  Mode mode = Mode::kPool;
  FreeSync free_sync = FreeSync::kAuto;
  unsigned tier_steps = 4;
  size_t max_block = kOfTheDevice;
  size_t thread_cache_max_block = kMiB;
  size_t thread_cache_bytes = 16 * kMiB;
  size_t batch_bytes = 2 * kMiB;
  double slack = 0.25;
  ReserveRule reserve = {1.15, 256 * kMiB, true};
  uint64_t decay_ns = 10'000'000'000;
  DecayBy decay_by = DecayBy::kThread;
  size_t async_keep = kByReserve;  // 0: off
  size_t page_locked = 0;          // bytes of it that may be idle; 0: off
  int fill = -1;                   // a byte, or -1: leave the contents alone
  bool verbose = false;
  const char* programs = nullptr;  // into the environment, nullptr: all
  const char* stats = nullptr;     // nullptr: off, "1": summary, else a file name pattern
  const char* trace = nullptr;     // nullptr: off, else a file name pattern
  uint64_t shake = kShakeOff;
  const char* shake_sites = nullptr;   // a file's name
  const char* shake_report = nullptr;  // a file name pattern

  bool operator==(const Options&) const = default;  // texts by their address
};

// Where a line of warning goes; `line` has no newline.
using WarningSink = void (*)(const char* line);
// An environment: the value of `name`, or nullptr.
using Environment = const char* (*)(const char* name);

// Reads every option. A value that does not parse is one line to `warn` and the default.
// Allocates nothing; string values point into the environment.
Options ReadOptions(Environment environment, WarningSink warn);

// One line to `warn` for every variable of `environment` (as in environ) that starts with CMP_,
// is not an option, and is close to the name of one.
void WarnOfMisspelledOptions(const char* const* environment, WarningSink warn);

// The table as Markdown rows, one call of `print` for each.
void PrintOptionTable(void (*print)(const char* row));

// The table, one call of `visit` for each option.
void VisitOptions(void (*visit)(const char* name, const char* default_value, const char* values,
                                const char* meaning));

// Is there an option of that name, and does `value` parse?
bool IsRightValue(const char* name, const char* value);

// "16M", "1G", "4096", "0": bytes, with K, M, G, T as powers of 1024 and an optional B or iB.
// False when `text` is not of that form or overflows.
bool ParseBytes(const char* text, size_t* bytes);

// The decimal digits at `text`, behind spaces, as a number; 0 where there are none. Wraps. In place
// of strto* and atoi, here and elsewhere: newer headers bind those to symbols that older C
// libraries lack, and then no program would start with the preload.
inline uint64_t NumberAt(const char* text) {
  while (*text == ' ') ++text;
  uint64_t number = 0;
  for (; *text >= '0' && *text <= '9'; ++text) {
    number = 10 * number + static_cast<uint64_t>(*text - '0');
  }
  return number;
}

}  // namespace cmp

#endif  // CMP_CORE_BASE_OPTIONS_H_
