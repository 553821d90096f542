#include "core/base/options.h"

#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <initializer_list>

#include "core/base/warnings.h"

namespace cmp {

namespace {

// A decimal number with an optional fraction, without strtod: that follows the program's locale,
// and newer headers would bind strto* to a symbol that older C libraries lack.
// Returns the first character behind it, or nullptr when there is no digit or it is too large.
const char* ParseNumber(const char* text, double* value) {
  const char* at = text;
  double result = 0;
  int digits = 0;
  for (; *at >= '0' && *at <= '9'; ++at, ++digits) result = result * 10 + (*at - '0');
  if (digits == 0 || digits > 15) return nullptr;
  if (*at == '.') {
    double scale = 0.1;
    if (at[1] < '0' || at[1] > '9') return nullptr;
    for (++at; *at >= '0' && *at <= '9'; ++at, scale /= 10) result += (*at - '0') * scale;
  }
  *value = result;
  return at;
}

char Upper(char c) { return static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c); }

// Words may be written in any case. Letters of the program's locale are none of theirs.
bool IsWord(const char* text, const char* word) {
  for (; *word != '\0'; ++text, ++word) {
    if (Upper(*text) != Upper(*word)) return false;
  }
  return *text == '\0';
}

// How `text` goes on behind `beginning`; nullptr if it does not begin with that.
const char* Behind(const char* text, const char* beginning) {
  for (; *beginning != '\0'; ++text, ++beginning) {
    if (Upper(*text) != Upper(*beginning)) return nullptr;
  }
  return text;
}

// Bytes with a unit; stops at the first character that does not belong to it.
const char* ParseBytesPrefix(const char* text, size_t* bytes) {
  double value = 0;
  const char* at = ParseNumber(text, &value);
  if (at == nullptr) return nullptr;
  static constexpr char kUnits[] = "KMGT";
  const char* unit = *at == '\0' ? nullptr : strchr(kUnits, Upper(*at));
  if (unit != nullptr) {
    for (const char* power = kUnits; power <= unit; ++power) value *= 1024;
    ++at;
    if (Upper(*at) == 'I') ++at;
  }
  if (Upper(*at) == 'B') ++at;
  if (value >= 0x1p47) return nullptr;  // more than any device has addresses for
  if (unit == nullptr && value != static_cast<double>(static_cast<size_t>(value))) return nullptr;
  *bytes = static_cast<size_t>(value);
  return at;
}

bool IsOff(const char* text) {
  for (const char* off : {"0", "off", "no", "false"}) {
    if (IsWord(text, off)) return true;
  }
  return false;
}

bool IsOn(const char* text) {
  for (const char* on : {"1", "on", "yes", "true"}) {
    if (IsWord(text, on)) return true;
  }
  return false;
}

bool ParseMode(const char* text, Options* options) {
  if (IsWord(text, "pool")) return options->mode = Mode::kPool, true;
  if (IsWord(text, "observe")) return options->mode = Mode::kObserve, true;
  if (IsWord(text, "off")) return options->mode = Mode::kOff, true;
  return false;
}

bool ParsePrograms(const char* text, Options* options) {
  options->programs = text;
  return true;
}

bool ParseMaxBlock(const char* text, Options* options) {
  if (IsWord(text, "auto")) return options->max_block = kOfTheDevice, true;
  size_t bytes = 0;
  if (!ParseBytes(text, &bytes) || bytes < kMinBlock) return false;
  options->max_block = bytes;
  return true;
}

bool ParseTierSteps(const char* text, Options* options) {
  double steps = 0;
  const char* end = ParseNumber(text, &steps);
  if (end == nullptr || *end != '\0') return false;
  if (steps != 1 && steps != 2 && steps != 4 && steps != 8 && steps != 16) return false;
  options->tier_steps = static_cast<unsigned>(steps);
  return true;
}

bool ParseThreadCacheMaxBlock(const char* text, Options* options) {
  size_t bytes = 0;
  if (!ParseBytes(text, &bytes) || bytes >= kLargeGranule) return false;
  options->thread_cache_max_block = bytes;
  return true;
}

bool ParseThreadCacheBytes(const char* text, Options* options) {
  return ParseBytes(text, &options->thread_cache_bytes);
}

bool ParseBatchBytes(const char* text, Options* options) {
  size_t bytes = 0;
  if (!ParseBytes(text, &bytes) || bytes == 0) return false;
  options->batch_bytes = bytes;
  return true;
}

bool ParseSlack(const char* text, Options* options) {
  double percent = 0;
  const char* end = ParseNumber(text, &percent);
  if (end == nullptr || strcmp(end, "%") != 0 || percent > 100) return false;
  options->slack = percent / 100;
  return true;
}

// auto, RATIOx, BYTES or RATIOx+BYTES.
bool ParseReserve(const char* text, Options* options) {
  if (IsWord(text, "auto")) return options->reserve = Options{}.reserve, true;
  ReserveRule reserve = {1.0, 0};
  const char* at = text;
  double ratio = 0;
  const char* behind = ParseNumber(text, &ratio);
  if (behind != nullptr && Upper(*behind) == 'X') {
    if (ratio < 1 || ratio > 1000) return false;
    reserve.ratio = ratio;
    at = behind + 1;
    if (*at == '+') ++at;
    if (*at == '\0' && at[-1] == '+') return false;
  }
  if (*at != '\0' && !ParseBytes(at, &reserve.bytes)) return false;
  if (*text == '\0') return false;
  options->reserve = reserve;
  return true;
}

// 10s, 500ms, 10, oncall, oncall:500ms, off.
bool ParseDecay(const char* text, Options* options) {
  if (IsWord(text, "off")) return options->decay_by = DecayBy::kNobody, true;
  DecayBy by = DecayBy::kThread;
  if (const char* time = Behind(text, "oncall")) {
    by = DecayBy::kCalls;
    text = time;
    if (*text == '\0') return options->decay_by = by, true;
    if (*text++ != ':') return false;
  }
  double seconds = 0;
  const char* unit = ParseNumber(text, &seconds);
  if (unit == nullptr) return false;
  if (IsWord(unit, "ms")) {
    seconds /= 1000;
  } else if (*unit != '\0' && !IsWord(unit, "s")) {
    return false;
  }
  if (seconds < 0.01 || seconds > 1e6) return false;
  options->decay_by = by;
  options->decay_ns = static_cast<uint64_t>(seconds * 1e9);
  return true;
}

bool ParseAsyncKeep(const char* text, Options* options) {
  if (IsWord(text, "auto")) return options->async_keep = kByReserve, true;
  if (IsWord(text, "off")) return options->async_keep = 0, true;
  return ParseBytes(text, &options->async_keep);
}

// IsOff and IsOn take 0 and 1 for words, and so does this.
bool ParseHost(const char* text, Options* options) {
  if (IsOff(text)) return options->page_locked = 0, true;
  if (IsOn(text)) return options->page_locked = kPageLockedAuto, true;
  size_t bytes = 0;
  if (!ParseBytes(text, &bytes)) return false;
  options->page_locked = bytes;
  return true;
}

bool ParseFreeSync(const char* text, Options* options) {
  if (IsWord(text, "wait")) return options->free_sync = FreeSync::kWait, true;
  if (IsWord(text, "auto")) return options->free_sync = FreeSync::kAuto, true;
  if (IsWord(text, "order")) return options->free_sync = FreeSync::kOrder, true;
  if (IsWord(text, "none")) return options->free_sync = FreeSync::kNone, true;
  return false;
}

bool ParseFill(const char* text, Options* options) {
  if (IsWord(text, "off")) return options->fill = -1, true;
  if (IsWord(text, "zero")) return options->fill = 0, true;
  int value = 0;
  const bool hexadecimal = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
  const char* at = hexadecimal ? text + 2 : text;
  if (*at == '\0') return false;
  for (; *at != '\0'; ++at) {
    int digit = -1;
    if (*at >= '0' && *at <= '9') digit = *at - '0';
    if (hexadecimal && *at >= 'a' && *at <= 'f') digit = *at - 'a' + 10;
    if (hexadecimal && *at >= 'A' && *at <= 'F') digit = *at - 'A' + 10;
    if (digit < 0) return false;
    value = value * (hexadecimal ? 16 : 10) + digit;
    if (value > 255) return false;
  }
  options->fill = value;
  return true;
}

// A number is no file name that anybody means.
bool IsFileName(const char* text) {
  return !IsOn(text) && text[strspn(text, "0123456789")] != '\0';
}

bool ParseTrace(const char* text, Options* options) {
  if (IsOff(text)) return options->trace = nullptr, true;
  if (!IsFileName(text)) return false;
  options->trace = text;
  return true;
}

bool ParseStats(const char* text, Options* options) {
  if (IsOff(text)) return options->stats = nullptr, true;
  if (IsOn(text)) return options->stats = "1", true;
  if (!IsFileName(text)) return false;
  options->stats = text;
  return true;
}

bool ParseVerbose(const char* text, Options* options) {
  options->verbose = IsOn(text);
  return options->verbose || IsOff(text);
}

bool ParseShake(const char* text, Options* options) {
  if (IsOff(text)) return options->shake = kShakeOff, true;
  if (IsWord(text, "record")) return options->shake = kShakeRecord, true;
  double seed = 0;
  const char* end = ParseNumber(text, &seed);
  if (end == nullptr || *end != '\0' || seed < 1 || strchr(text, '.') != nullptr) return false;
  options->shake = static_cast<uint64_t>(seed);
  return true;
}

bool ParseShakeSites(const char* text, Options* options) {
  if (IsOff(text)) return options->shake_sites = nullptr, true;
  if (!IsFileName(text)) return false;
  options->shake_sites = text;
  return true;
}

bool ParseShakeReport(const char* text, Options* options) {
  if (IsOff(text)) return options->shake_report = nullptr, true;
  if (!IsFileName(text)) return false;
  options->shake_report = text;
  return true;
}

struct Option {
  const char* name;
  const char* default_value;
  const char* values;  // what parses, for the warning and the documentation
  const char* meaning;
  bool (*parse)(const char* text, Options* options);
};

constexpr Option kOptions[] = {
    {"CMP_MODE", "pool", "pool, observe, off",
     "`observe`: real calls, counted and timed; `off`: real calls, nothing else", ParseMode},
    {"CMP_PROGRAMS", "all", "globs, comma-separated",
     "programs to serve, by their name or their script's; `!glob` excludes", ParsePrograms},
    {"CMP_MAX_BLOCK", "auto", "auto, bytes (at least 256)",
     "a larger request goes straight to the real call; `auto`: an eighth of the device, at least "
     "1G",
     ParseMaxBlock},
    {"CMP_TIER_STEPS", "4", "1, 2, 4, 8, 16", "size classes per doubling below 2M", ParseTierSteps},
    {"CMP_THREAD_CACHE_MAX_BLOCK", "1M", "bytes, below 2M",
     "up to this size a thread keeps blocks by tier; of larger ones the last few",
     ParseThreadCacheMaxBlock},
    {"CMP_THREAD_CACHE_BYTES", "16M", "bytes",
     "what one thread may keep idle by tier, and four times as much of larger blocks",
     ParseThreadCacheBytes},
    {"CMP_BATCH_BYTES", "2M", "bytes, at least 1",
     "what moves at once between a thread cache and the global pool, at most 128 blocks",
     ParseBatchBytes},
    {"CMP_SLACK", "25%", "a percentage, as 12.5%",
     "how much larger a reused block of 2M or more may be; 0%: and no smaller one is made that "
     "takes more of the device than asked for",
     ParseSlack},
    {"CMP_RESERVE", "auto", "auto, RATIOx+BYTES, RATIOx (1 or more) or BYTES",
     "bound on what the pool holds, against the peak of what the program held; `auto`: 1.15x+256M, "
     "and more where what was released for it is allocated again",
     ParseReserve},
    {"CMP_DECAY", "10s", "a time (10s, 500ms), oncall, oncall:TIME, off",
     "idle memory that is unused for so long goes back to the driver; `oncall`: in `cudaFree` "
     "alone; `off`: it stays",
     ParseDecay},
    {"CMP_ASYNC_KEEP", "auto", "auto, off, bytes",
     "what stream-ordered pools (`cudaMallocAsync`) keep at a synchronisation, where the program "
     "leaves their release threshold at 0; `auto`: as much as `CMP_RESERVE` allows; bytes: that "
     "threshold",
     ParseAsyncKeep},
    {"CMP_FREE_SYNC", "auto", "wait, auto, order, none",
     "what `cudaFree` keeps; `wait`: it waits for all work; `auto`: it waits where the host could "
     "notice, the device keeps the order; `order`: the order alone; `none`: only that memory is "
     "not "
     "reused too early",
     ParseFreeSync},
    {"CMP_HOST", "off", "off, on, bytes",
     "page-locked memory of the host is kept, too (`cudaMallocHost`, `cudaHostAlloc`); bytes: of "
     "what is idle; `on`: 256M, less where the process may have little",
     ParseHost},
    {"CMP_FILL", "off", "off, zero, a byte (171, 0xAB)", "written into every block handed out",
     ParseFill},
    {"CMP_STATS", "off", "off, on, a file name",
     "`on`: summary on stderr at exit; a file name: JSON (%p process, %h host, %r rank)",
     ParseStats},
    {"CMP_TRACE", "off", "off, a file name",
     "every allocation and free is recorded in the file (%p process, %h host, %r rank)",
     ParseTrace},
    {"CMP_SHAKE", "off", "off, record, a seed (1 or more)",
     "tries what happens without the order of `cudaFree`; `record`: notes where it counts; a seed: "
     "with `CMP_FREE_SYNC=none` or `order`, holds earlier work back there now and then",
     ParseShake},
    {"CMP_SHAKE_SITES", "off", "off, a file name", "where `CMP_SHAKE` may hold work back",
     ParseShakeSites},
    {"CMP_SHAKE_REPORT", "off", "off, a file name",
     "what `CMP_SHAKE` saw, written while it runs (%p process, %h host, %r rank)",
     ParseShakeReport},
    {"CMP_VERBOSE", "off", "off, on", "one line about what was found at the first allocation",
     ParseVerbose},
};

// Names that people try, and what they are after.
struct Wish {
  const char* name;  // behind CMP_
  const char* answer;
};
constexpr Wish kWishes[] = {
    {"ENABLE", "CMP_MODE=pool or CMP_MODE=off"},
    {"ENABLED", "CMP_MODE=pool or CMP_MODE=off"},
    {"DISABLE", "CMP_MODE=off"},
    {"DISABLED", "CMP_MODE=off"},
    {"OFF", "CMP_MODE=off"},
    {"DEBUG", "CMP_VERBOSE=1 or CMP_STATS=1"},
    {"LOG", "CMP_VERBOSE=1 or CMP_STATS=1"},
    {"LOG_LEVEL", "CMP_VERBOSE=1 or CMP_STATS=1"},
    {"STATISTICS", "CMP_STATS"},
    {"REPORT", "CMP_STATS"},
    {"REPORTS", "CMP_STATS"},
    {"LIMIT", "CMP_RESERVE"},
    {"MAX_BYTES", "CMP_RESERVE"},
    {"MAX_MEMORY", "CMP_RESERVE"},
    {"POOL_SIZE", "CMP_RESERVE"},
    {"TIMEOUT", "CMP_DECAY"},
    {"ZERO", "CMP_FILL=zero"},
};

constexpr size_t kLongestName = 48;  // longer than any option's

// Edits that turn `left` into `right` (insert, delete, replace, swap neighbours).
// In any case of `left`. REQUIRES: both are shorter than kLongestName
unsigned Distance(const char* left, size_t left_length, const char* right) {
  const size_t right_length = strlen(right);
  unsigned edits[kLongestName + 1][kLongestName + 1];
  for (size_t i = 0; i <= left_length; ++i) edits[i][0] = static_cast<unsigned>(i);
  for (size_t j = 0; j <= right_length; ++j) edits[0][j] = static_cast<unsigned>(j);
  for (size_t i = 1; i <= left_length; ++i) {
    for (size_t j = 1; j <= right_length; ++j) {
      const unsigned replaced = edits[i - 1][j - 1] + (Upper(left[i - 1]) == right[j - 1] ? 0 : 1);
      unsigned fewest = std::min({replaced, edits[i - 1][j] + 1, edits[i][j - 1] + 1});
      if (i > 1 && j > 1 && Upper(left[i - 1]) == right[j - 2] &&
          Upper(left[i - 2]) == right[j - 1]) {
        fewest = std::min(fewest, edits[i - 2][j - 2] + 1);
      }
      edits[i][j] = fewest;
    }
  }
  return edits[left_length][right_length];
}

bool IsOption(const char* name) {
  for (const Option& option : kOptions) {
    if (strcmp(option.name, name) == 0) return true;
  }
  return false;
}

// Does one of the two begin or end with whole words of the other: CMP_MAX_BLOCK_SIZE,
// CMP_THREAD_CACHE, CMP_SYNC?
bool HasWordsOf(const char* name, const char* option) {
  const char* rest = Behind(name, option);
  if (rest != nullptr && *rest == '_') return true;
  rest = Behind(option, name);
  if (rest != nullptr && *rest == '_') return true;
  const char* words = name + 3;  // _SYNC
  const size_t length = strlen(words);
  const size_t option_length = strlen(option);
  return length > 1 && option_length > length && IsWord(option + option_length - length, words);
}

// What to say of a name that is not an option: nothing, where it resembles none.
void AnswerName(const char* name, WarningSink warn) {
  char line[320];
  int length = snprintf(line, sizeof(line), "unknown option %s; ", name);
  const auto add = [&](const char* text) {
    length += snprintf(line + length, sizeof(line) - static_cast<size_t>(length), "%s", text);
  };
  bool any = false;
  for (const Wish& wish : kWishes) {
    if (!IsWord(name + 4, wish.name)) continue;
    add("use ");
    add(wish.answer);
    MakeOneLine(line);
    return warn(line);
  }
  const auto propose = [&](const Option& option) {
    add(any ? " or " : "did you mean ");
    add(option.name);
    any = true;
  };
  // One edit for every four characters behind CMP_, and at least one: CMP_MAXBLOCK, CMP_STAT.
  const size_t name_length = strlen(name);
  const Option* nearest = nullptr;
  unsigned distance = 1 + (name_length >= 12 ? static_cast<unsigned>((name_length - 4) / 4) : 1);
  for (const Option& option : kOptions) {
    const unsigned edits = Distance(name, name_length, option.name);
    if (edits >= distance) continue;
    nearest = &option;
    distance = edits;
  }
  if (nearest != nullptr) {
    propose(*nearest);
  } else {
    for (const Option& option : kOptions) {
      if (HasWordsOf(name, option.name)) propose(option);
    }
  }
  if (!any) return;
  add("?");
  MakeOneLine(line);
  warn(line);
}

}  // namespace

bool ParseBytes(const char* text, size_t* bytes) {
  size_t value = 0;
  const char* end = ParseBytesPrefix(text, &value);
  if (end == nullptr || *end != '\0') return false;
  *bytes = value;
  return true;
}

Options ReadOptions(Environment environment, WarningSink warn) {
  Options options;
  for (const Option& option : kOptions) {
    const char* value = environment(option.name);
    if (value == nullptr || value[0] == '\0') continue;
    if (option.parse(value, &options)) continue;
    char line[320];
    snprintf(line, sizeof(line), "%s=%.80s is not understood (expected: %s); using %s", option.name,
             value, option.values, option.default_value);
    MakeOneLine(line);
    warn(line);
  }
  return options;
}

void WarnOfMisspelledOptions(const char* const* environment, WarningSink warn) {
  if (environment == nullptr) return;
  for (; *environment != nullptr; ++environment) {
    const char* variable = *environment;
    if (strncmp(variable, "CMP_", 4) != 0) continue;
    const char* equals = strchr(variable, '=');
    const size_t length = equals == nullptr ? strlen(variable) : size_t(equals - variable);
    if (length >= kLongestName) continue;  // resembles none of ours
    char name[kLongestName];
    snprintf(name, sizeof(name), "%.*s", static_cast<int>(length), variable);
    if (!IsOption(name)) AnswerName(name, warn);
  }
}

void PrintOptionTable(void (*print)(const char* row)) {
  for (const Option& option : kOptions) {
    char row[400];
    snprintf(row, sizeof(row), "| `%s` | `%s` | %s | %s |", option.name, option.default_value,
             option.values, option.meaning);
    print(row);
  }
}

void VisitOptions(void (*visit)(const char* name, const char* default_value, const char* values,
                                const char* meaning)) {
  for (const Option& option : kOptions) {
    visit(option.name, option.default_value, option.values, option.meaning);
  }
}

bool IsRightValue(const char* name, const char* value) {
  for (const Option& option : kOptions) {
    Options options;
    if (strcmp(option.name, name) == 0) return option.parse(value, &options);
  }
  return false;
}

}  // namespace cmp
