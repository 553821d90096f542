// The CMP_ variables of an environment: what is read from them, and what is said about them.
//
// An input is an environment as text: a variable begins at its beginning and wherever a line begins
// with CMP_.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "core/base/options.h"
#include "fuzz.h"

namespace {

using cmp::Options;

std::vector<std::string> g_variables;
std::vector<std::string> g_lines;  // the warnings

const char* ValueOf(const char* name) {
  const size_t length = std::strlen(name);
  for (const std::string& variable : g_variables) {
    if (variable.compare(0, length, name) == 0 && variable.c_str()[length] == '=') {
      return variable.c_str() + length + 1;
    }
  }
  return nullptr;
}

// One line, of bytes that a terminal shows or a locale's letters have.
void Warn(const char* line) {
  CMP_EXPECT(*line != '\0' && std::strlen(line) < 400);
  for (const char* at = line; *at != '\0'; ++at) {
    CMP_EXPECT(static_cast<unsigned char>(*at) >= ' ' && *at != '\x7f');
  }
  g_lines.emplace_back(line);
}

void Split(const std::string& text) {
  g_variables.clear();
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find("\nCMP_", begin), text.size());
    const std::string variable = text.substr(begin, end - begin);
    g_variables.emplace_back(variable.c_str());  // to the first zero
    begin = end + 1;
  }
}

// What options.h and the documentation say of every value.
void ExpectInRange(const Options& options) {
  const unsigned steps = options.tier_steps;
  CMP_EXPECT(steps == 1 || steps == 2 || steps == 4 || steps == 8 || steps == 16);
  CMP_EXPECT(options.max_block == cmp::kOfTheDevice || options.max_block >= cmp::kMinBlock);
  CMP_EXPECT(options.max_block < size_t{1} << 47);
  CMP_EXPECT(options.thread_cache_max_block < cmp::kLargeGranule);
  CMP_EXPECT(options.thread_cache_bytes < size_t{1} << 47);
  CMP_EXPECT(options.batch_bytes >= 1 && options.batch_bytes < size_t{1} << 47);
  CMP_EXPECT(options.slack >= 0 && options.slack <= 1);
  CMP_EXPECT(options.reserve.ratio >= 1 && options.reserve.ratio <= 1000);
  CMP_EXPECT(options.reserve.bytes < size_t{1} << 47);
  CMP_EXPECT(options.decay_ns >= 9'999'999 && options.decay_ns <= uint64_t{1'000'000'000'000'000});
  CMP_EXPECT(options.fill >= -1 && options.fill <= 255);
  CMP_EXPECT(options.programs == nullptr || options.programs == ValueOf("CMP_PROGRAMS"));
  const char* stats = ValueOf("CMP_STATS");
  CMP_EXPECT(options.stats == nullptr || options.stats == stats ||
             std::strcmp(options.stats, "1") == 0);
  CMP_EXPECT(options.trace == nullptr || options.trace == ValueOf("CMP_TRACE"));
}

// A refused value is one line and the default, a right one no line.
void ExpectWarnings() {
  size_t refused = 0;
  static size_t* g_refused;
  g_refused = &refused;
  cmp::VisitOptions([](const char* name, const char* fallback, const char*, const char*) {
    const char* value = ValueOf(name);
    if (value == nullptr || *value == '\0') return;
    if (!cmp::IsRightValue(name, value)) ++*g_refused;
    const bool all = std::strcmp(name, "CMP_PROGRAMS") == 0;
    CMP_EXPECT(all || cmp::IsRightValue(name, fallback));
  });
  CMP_EXPECT(g_lines.size() == refused);
}

// A number of bytes in decimal digits is that number, with a unit so many times as much.
void ExpectBytes(const char* text) {
  size_t bytes = 0;
  const bool right = cmp::ParseBytes(text, &bytes);
  const size_t digits = std::strspn(text, "0123456789");
  if (digits == 0) CMP_EXPECT(!right);
  if (digits == 0 || digits > 14) return;
  const uint64_t number = std::strtoull(text, nullptr, 10);
  const std::string unit = text + digits;
  unsigned shift = 0;
  for (const char* known : {"", "K", "M", "G", "T"}) {
    const uint64_t expected = number << shift;
    const bool fits = number < uint64_t{1} << (47 - shift);
    for (const char* end : {"", "i", "iB", "B"}) {
      if (*known == '\0' && *end == 'i') continue;
      if (unit == std::string(known) + end)
        CMP_EXPECT(right == fits && (!fits || bytes == expected));
    }
    shift += 10;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Split(std::string(reinterpret_cast<const char*>(data), size));
  g_lines.clear();
  const Options options = cmp::ReadOptions(&ValueOf, &Warn);
  ExpectInRange(options);
  ExpectWarnings();
  for (const std::string& variable : g_variables) {
    const size_t equals = variable.find('=');
    if (equals != std::string::npos) ExpectBytes(variable.c_str() + equals + 1);
  }
  g_lines.clear();
  std::vector<char*> environment;
  for (std::string& variable : g_variables) environment.push_back(variable.data());
  environment.push_back(nullptr);
  cmp::WarnOfMisspelledOptions(environment.data(), &Warn);
  CMP_EXPECT(g_lines.size() <= g_variables.size());
  return 0;
}
