#include "core/base/options.h"

#include <ctype.h>
#include <gtest/gtest.h>
#include <locale.h>

#include <map>
#include <string>
#include <vector>

namespace cmp {
namespace {

// The environment and the warnings of the running test: ReadOptions takes plain functions.
std::map<std::string, std::string> g_environment;
std::vector<std::string> g_warnings;

const char* Environment(const char* name) {
  const auto found = g_environment.find(name);
  return found == g_environment.end() ? nullptr : found->second.c_str();
}
void Warn(const char* line) { g_warnings.emplace_back(line); }

class OptionsTest : public testing::Test {
 protected:
  OptionsTest() {
    g_environment.clear();
    g_warnings.clear();
  }
  static Options With(const std::string& name, const std::string& value) {
    g_environment = {{name, value}};
    g_warnings.clear();
    return ReadOptions(&Environment, &Warn);
  }
  // The value is taken without a word.
  static Options Good(const std::string& name, const std::string& value) {
    const Options options = With(name, value);
    EXPECT_TRUE(g_warnings.empty()) << name << "=" << value << ": " << g_warnings.front();
    return options;
  }
  // The value is refused with one line that names it; the default stays.
  template <typename Get>
  static void Bad(const std::string& name, const std::vector<std::string>& values, Get get) {
    for (const std::string& value : values) {
      const Options options = With(name, value);
      EXPECT_TRUE(get(options) == get(Options())) << name << "=" << value;
      ASSERT_EQ(g_warnings.size(), 1u) << name << "=" << value;
      EXPECT_NE(g_warnings[0].find(name + "=" + value), std::string::npos) << g_warnings[0];
      EXPECT_EQ(g_warnings[0].find('\n'), std::string::npos);
    }
  }
  static std::vector<std::string> Misspelled(std::vector<std::string> variables) {
    g_warnings.clear();
    std::vector<char*> environment;
    for (std::string& variable : variables) environment.push_back(variable.data());
    environment.push_back(nullptr);
    WarnOfMisspelledOptions(environment.data(), &Warn);
    return g_warnings;
  }
};

TEST_F(OptionsTest, DefaultsAreThoseOfTheDesign) {
  const Options options = ReadOptions(&Environment, &Warn);
  EXPECT_EQ(options.mode, Mode::kPool);
  EXPECT_EQ(options.tier_steps, 4u);
  EXPECT_EQ(options.max_block, kOfTheDevice);
  EXPECT_EQ(options.thread_cache_max_block, kMiB);
  EXPECT_EQ(options.thread_cache_bytes, 16 * kMiB);
  EXPECT_EQ(options.batch_bytes, 2 * kMiB);
  EXPECT_DOUBLE_EQ(options.slack, 0.25);
  EXPECT_DOUBLE_EQ(options.reserve.ratio, 1.15);
  EXPECT_EQ(options.reserve.bytes, 256 * kMiB);
  EXPECT_TRUE(options.reserve.grows);
  EXPECT_EQ(options.fill, -1);
  EXPECT_EQ(options.page_locked, 0U);
  EXPECT_FALSE(options.verbose);
  EXPECT_EQ(options.programs, nullptr);
  EXPECT_EQ(options.stats, nullptr);
  EXPECT_TRUE(g_warnings.empty());
}

TEST_F(OptionsTest, AnEmptyValueIsNoValue) {
  EXPECT_EQ(Good("CMP_TIER_STEPS", "").tier_steps, 4u);
  EXPECT_EQ(Good("CMP_STATS", "").stats, nullptr);
}

TEST_F(OptionsTest, Mode) {
  EXPECT_EQ(Good("CMP_MODE", "pool").mode, Mode::kPool);
  EXPECT_EQ(Good("CMP_MODE", "observe").mode, Mode::kObserve);
  EXPECT_EQ(Good("CMP_MODE", "off").mode, Mode::kOff);
  Bad("CMP_MODE", {"on", "pool ", "POOLS", "1"}, [](const Options& o) { return o.mode; });
}

TEST_F(OptionsTest, Programs) {
  EXPECT_STREQ(Good("CMP_PROGRAMS", "python*,!python2").programs, "python*,!python2");
}

TEST_F(OptionsTest, MaxBlock) {
  EXPECT_EQ(Good("CMP_MAX_BLOCK", "256").max_block, 256u);
  EXPECT_EQ(Good("CMP_MAX_BLOCK", "64M").max_block, 64 * kMiB);
  EXPECT_EQ(Good("CMP_MAX_BLOCK", "1.5G").max_block, 3 * kGiB / 2);
  Bad("CMP_MAX_BLOCK", {"255", "0", "-1", "big", "1X", "10%", "200T"},
      [](const Options& o) { return o.max_block; });
}

TEST_F(OptionsTest, TierSteps) {
  for (const unsigned steps : {1u, 2u, 4u, 8u, 16u}) {
    EXPECT_EQ(Good("CMP_TIER_STEPS", std::to_string(steps)).tier_steps, steps);
  }
  Bad("CMP_TIER_STEPS", {"0", "3", "5", "32", "-4", "four", "1K", "4 ", "4.5", "4.", "4B"},
      [](const Options& o) { return o.tier_steps; });
}

TEST_F(OptionsTest, ThreadCacheMaxBlock) {
  EXPECT_EQ(Good("CMP_THREAD_CACHE_MAX_BLOCK", "64K").thread_cache_max_block, 64 * kKiB);
  EXPECT_EQ(Good("CMP_THREAD_CACHE_MAX_BLOCK", "0").thread_cache_max_block, 0u);
  EXPECT_EQ(Good("CMP_THREAD_CACHE_MAX_BLOCK", "2097151").thread_cache_max_block, 2 * kMiB - 1);
  Bad("CMP_THREAD_CACHE_MAX_BLOCK", {"2M", "1G", "x", "-1"},
      [](const Options& o) { return o.thread_cache_max_block; });
}

TEST_F(OptionsTest, ThreadCacheBytes) {
  EXPECT_EQ(Good("CMP_THREAD_CACHE_BYTES", "0").thread_cache_bytes, 0u);
  EXPECT_EQ(Good("CMP_THREAD_CACHE_BYTES", "1G").thread_cache_bytes, kGiB);
  Bad("CMP_THREAD_CACHE_BYTES", {"16 M", "M", "1M1"},
      [](const Options& o) { return o.thread_cache_bytes; });
}

TEST_F(OptionsTest, BatchBytes) {
  EXPECT_EQ(Good("CMP_BATCH_BYTES", "1").batch_bytes, 1u);
  EXPECT_EQ(Good("CMP_BATCH_BYTES", "8M").batch_bytes, 8 * kMiB);
  Bad("CMP_BATCH_BYTES", {"0", "two"}, [](const Options& o) { return o.batch_bytes; });
}

TEST_F(OptionsTest, Slack) {
  EXPECT_DOUBLE_EQ(Good("CMP_SLACK", "0%").slack, 0);
  EXPECT_DOUBLE_EQ(Good("CMP_SLACK", "25%").slack, 0.25);
  EXPECT_DOUBLE_EQ(Good("CMP_SLACK", "12.5%").slack, 0.125);
  EXPECT_DOUBLE_EQ(Good("CMP_SLACK", "100%").slack, 1);
  Bad("CMP_SLACK", {"12.5", "101%", "%", "-5%", "5%%"}, [](const Options& o) { return o.slack; });
}

TEST_F(OptionsTest, Reserve) {
  const ReserveRule both = Good("CMP_RESERVE", "1.5x+1G").reserve;
  EXPECT_DOUBLE_EQ(both.ratio, 1.5);
  EXPECT_EQ(both.bytes, kGiB);
  const ReserveRule ratio = Good("CMP_RESERVE", "2x").reserve;
  EXPECT_DOUBLE_EQ(ratio.ratio, 2);
  EXPECT_EQ(ratio.bytes, 0u);
  const ReserveRule bytes = Good("CMP_RESERVE", "512M").reserve;
  EXPECT_DOUBLE_EQ(bytes.ratio, 1);
  EXPECT_EQ(bytes.bytes, 512 * kMiB);
  const ReserveRule nothing = Good("CMP_RESERVE", "1x+0").reserve;
  EXPECT_DOUBLE_EQ(nothing.ratio, 1);
  EXPECT_EQ(nothing.bytes, 0u);
  EXPECT_TRUE(Good("CMP_RESERVE", "auto").reserve.grows);
  EXPECT_FALSE(both.grows);
  Bad("CMP_RESERVE",
      {"Automatic", "x", "0.5x", "1.15x+", "+256M", "1.15x+256Q", "1001x", "1.15x++1M"},
      [](const Options& o) { return o.reserve.ratio * 1e15 + double(o.reserve.bytes); });
}

TEST_F(OptionsTest, Decay) {
  EXPECT_EQ(Options().decay_by, DecayBy::kThread);
  EXPECT_EQ(Options().decay_ns, 10'000'000'000u);
  EXPECT_EQ(Good("CMP_DECAY", "2.5s").decay_ns, 2'500'000'000u);
  EXPECT_EQ(Good("CMP_DECAY", "20ms").decay_ns, 20'000'000u);
  EXPECT_EQ(Good("CMP_DECAY", "3").decay_ns, 3'000'000'000u);
  EXPECT_EQ(Good("CMP_DECAY", "off").decay_by, DecayBy::kNobody);
  EXPECT_EQ(Good("CMP_DECAY", "oncall").decay_by, DecayBy::kCalls);
  EXPECT_EQ(Good("CMP_DECAY", "oncall:1s").decay_by, DecayBy::kCalls);
  EXPECT_EQ(Good("CMP_DECAY", "oncall:1s").decay_ns, 1'000'000'000u);
  Bad("CMP_DECAY", {"0", "9ms", "-1s", "1h", "s", "on", "oncall:", "oncall1s", "oncall:off", "1e9"},
      [](const Options& o) { return double(o.decay_ns) + double(o.decay_by); });
}

TEST_F(OptionsTest, AsyncKeep) {
  EXPECT_EQ(Options().async_keep, kByReserve);
  EXPECT_EQ(Good("CMP_ASYNC_KEEP", "Auto").async_keep, kByReserve);
  EXPECT_EQ(Good("CMP_ASYNC_KEEP", "off").async_keep, 0u);
  EXPECT_EQ(Good("CMP_ASYNC_KEEP", "0").async_keep, 0u);
  EXPECT_EQ(Good("CMP_ASYNC_KEEP", "1.5G").async_keep, 3 * kGiB / 2);
  Bad("CMP_ASYNC_KEEP", {"on", "-1", "1x", "10%", "200T", "auto "},
      [](const Options& o) { return o.async_keep; });
}

TEST_F(OptionsTest, FreeSync) {
  EXPECT_EQ(Options().free_sync, FreeSync::kAuto);
  EXPECT_EQ(Good("CMP_FREE_SYNC", "wait").free_sync, FreeSync::kWait);
  EXPECT_EQ(Good("CMP_FREE_SYNC", "auto").free_sync, FreeSync::kAuto);
  Bad("CMP_FREE_SYNC", {"Waits", "sync", "1"}, [](const Options& o) { return o.free_sync; });
}

TEST_F(OptionsTest, Host) {
  EXPECT_EQ(Good("CMP_HOST", "off").page_locked, 0U);
  EXPECT_EQ(Good("CMP_HOST", "0").page_locked, 0U);
  EXPECT_EQ(Good("CMP_HOST", "on").page_locked, kPageLockedAuto);
  EXPECT_EQ(Good("CMP_HOST", "1").page_locked, kPageLockedAuto);
  EXPECT_EQ(Good("CMP_HOST", "64M").page_locked, 64 * kMiB);
  Bad("CMP_HOST", {"auto", "-1", "64X", "1%", "some"},
      [](const Options& o) { return o.page_locked; });
}

TEST_F(OptionsTest, Fill) {
  EXPECT_EQ(Good("CMP_FILL", "off").fill, -1);
  EXPECT_EQ(Good("CMP_FILL", "zero").fill, 0);
  EXPECT_EQ(Good("CMP_FILL", "171").fill, 171);
  EXPECT_EQ(Good("CMP_FILL", "0xAB").fill, 0xAB);
  EXPECT_EQ(Good("CMP_FILL", "0Xff").fill, 0xFF);
  EXPECT_EQ(Good("CMP_FILL", "0").fill, 0);
  Bad("CMP_FILL", {"256", "0x100", "-1", "0x", "ab", "0xG", "99999999999999"},
      [](const Options& o) { return o.fill; });
}

TEST_F(OptionsTest, Stats) {
  EXPECT_STREQ(Good("CMP_STATS", "1").stats, "1");
  EXPECT_STREQ(Good("CMP_STATS", "/tmp/%p.json").stats, "/tmp/%p.json");
  EXPECT_EQ(Good("CMP_STATS", "0").stats, nullptr);
  EXPECT_EQ(Good("CMP_STATS", "off").stats, nullptr);
  EXPECT_STREQ(Good("CMP_STATS", "yes").stats, "1");
  Bad("CMP_STATS", {"2", "10"}, [](const Options& o) { return o.stats; });
}

TEST_F(OptionsTest, Trace) {
  EXPECT_STREQ(Good("CMP_TRACE", "trace.%p").trace, "trace.%p");
  EXPECT_EQ(Good("CMP_TRACE", "off").trace, nullptr);
  Bad("CMP_TRACE", {"1", "on", "true", "12"}, [](const Options& o) { return o.trace; });
}

TEST_F(OptionsTest, Shake) {
  EXPECT_EQ(Good("CMP_SHAKE", "off").shake, kShakeOff);
  EXPECT_EQ(Good("CMP_SHAKE", "0").shake, kShakeOff);
  EXPECT_EQ(Good("CMP_SHAKE", "record").shake, kShakeRecord);
  EXPECT_EQ(Good("CMP_SHAKE", "1").shake, 1u);
  EXPECT_EQ(Good("CMP_SHAKE", "123456789").shake, 123456789u);
  Bad("CMP_SHAKE", {"0.5", "1.0", "-1", "1s", "on", "1e3"},
      [](const Options& o) { return o.shake; });
  EXPECT_STREQ(Good("CMP_SHAKE_SITES", "a/file").shake_sites, "a/file");
  EXPECT_STREQ(Good("CMP_SHAKE_REPORT", "a/%p").shake_report, "a/%p");
  Bad("CMP_SHAKE_SITES", {"1", "on"}, [](const Options& o) { return o.shake_sites; });
  Bad("CMP_SHAKE_REPORT", {"1", "on"}, [](const Options& o) { return o.shake_report; });
}

TEST_F(OptionsTest, Verbose) {
  EXPECT_TRUE(Good("CMP_VERBOSE", "1").verbose);
  EXPECT_FALSE(Good("CMP_VERBOSE", "0").verbose);
  EXPECT_TRUE(Good("CMP_VERBOSE", "On").verbose);
  EXPECT_FALSE(Good("CMP_VERBOSE", "no").verbose);
  Bad("CMP_VERBOSE", {"y", "2", "10", "very"}, [](const Options& o) { return o.verbose; });
}

TEST_F(OptionsTest, ABadValueLeavesTheOtherOptionsAlone) {
  g_environment = {{"CMP_TIER_STEPS", "3"}, {"CMP_SLACK", "50%"}, {"CMP_MAX_BLOCK", "2G"}};
  const Options options = ReadOptions(&Environment, &Warn);
  EXPECT_EQ(options.tier_steps, 4u);
  EXPECT_DOUBLE_EQ(options.slack, 0.5);
  EXPECT_EQ(options.max_block, 2 * kGiB);
  EXPECT_EQ(g_warnings.size(), 1u);
}

TEST_F(OptionsTest, AVeryLongBadValueIsOneShortLine) {
  With("CMP_MODE", std::string(5000, 'x'));
  ASSERT_EQ(g_warnings.size(), 1u);
  EXPECT_LT(g_warnings[0].size(), 320u);
}

TEST_F(OptionsTest, WhateverIsInAValueTheWarningIsOneLine) {
  With("CMP_MODE", "po\nol\x1b[2J");
  EXPECT_EQ(g_warnings[0].rfind("CMP_MODE=po?ol?[2J is not understood", 0), 0u) << g_warnings[0];
  EXPECT_EQ(Misspelled({"CMP_STA\nS=1"}),
            std::vector<std::string>{"unknown option CMP_STA?S; did you mean CMP_STATS?"});
}

TEST_F(OptionsTest, MisspelledNamesAreTold) {
  const struct {
    const char* variable;
    const char* meant;
  } cases[] = {
      {"CMP_STAT=1", "CMP_STATS"},
      {"CMP_SATTS=1", "CMP_STATS"},
      {"CMP_MOED=off", "CMP_MODE"},
      {"CMP_MAXBLOCK=1G", "CMP_MAX_BLOCK"},
      {"CMP_THREAD_CACHE_BYTE=1", "CMP_THREAD_CACHE_BYTES"},
      {"CMP_THREADCACHE_MAXBLOCK=1", "CMP_THREAD_CACHE_MAX_BLOCK"},
      {"CMP_RESERVED=1G", "CMP_RESERVE"},
      {"CMP_FREESYNC=auto", "CMP_FREE_SYNC"},
      {"CMP_TEIR_STEPS=4", "CMP_TIER_STEPS"},
      {"CMP_MODES", "CMP_MODE"},
      {"CMP_Mode=off", "CMP_MODE"},
      {"CMP_free_sync=none", "CMP_FREE_SYNC"},
      {"CMP_MAX_BLOCK_SIZE=1G", "CMP_MAX_BLOCK"},
      {"CMP_DECAY_TIME=1s", "CMP_DECAY"},
      {"CMP_SYNC=none", "CMP_FREE_SYNC"},
      {"CMP_THREAD_CACHE=1M", "CMP_THREAD_CACHE_MAX_BLOCK or CMP_THREAD_CACHE_BYTES"},
      {"CMP_BLOCK=1M", "CMP_MAX_BLOCK or CMP_THREAD_CACHE_MAX_BLOCK"},
  };
  for (const auto& [variable, meant] : cases) {
    const std::vector<std::string> lines = Misspelled({variable});
    ASSERT_EQ(lines.size(), 1u) << variable;
    const std::string name = std::string(variable).substr(0, std::string(variable).find('='));
    EXPECT_EQ(lines[0], "unknown option " + name + "; did you mean " + meant + "?");
  }
}

TEST_F(OptionsTest, NamesThatPeopleTryAreAnswered) {
  const std::vector<std::string> lines =
      Misspelled({"CMP_ENABLED=1", "CMP_disable=1", "CMP_LOG_LEVEL=3", "CMP_POOL_SIZE=4G"});
  EXPECT_EQ(lines, (std::vector<std::string>{
                       "unknown option CMP_ENABLED; use CMP_MODE=pool or CMP_MODE=off",
                       "unknown option CMP_disable; use CMP_MODE=off",
                       "unknown option CMP_LOG_LEVEL; use CMP_VERBOSE=1 or CMP_STATS=1",
                       "unknown option CMP_POOL_SIZE; use CMP_RESERVE"}));
}

// Every value that is a word or has a unit, in capitals and not.
TEST_F(OptionsTest, WordsAndUnitsInAnyCase) {
  const struct {
    const char* name;
    std::vector<const char*> values;
  } cases[] = {
      {"CMP_MODE", {"pool", "observe", "off"}},
      {"CMP_MAX_BLOCK", {"auto", "64k", "64kb", "64kib", "1.5g"}},
      {"CMP_RESERVE", {"auto", "2x", "1.5x+64m", "512mb"}},
      {"CMP_DECAY", {"off", "oncall", "oncall:2s", "500ms", "3s"}},
      {"CMP_FREE_SYNC", {"wait", "auto", "order", "none"}},
      {"CMP_HOST", {"off", "on", "64M"}},
      {"CMP_FILL", {"off", "zero", "0xab"}},
      {"CMP_STATS", {"on", "off", "true", "no"}},
      {"CMP_TRACE", {"off", "false"}},
      {"CMP_SHAKE", {"off", "record"}},
      {"CMP_VERBOSE", {"yes", "on", "off"}},
  };
  for (const auto& [name, values] : cases) {
    for (const std::string value : values) {
      std::string capitals;
      std::string mixed;
      for (const char c : value) {
        capitals += static_cast<char>(toupper(c));
        mixed += static_cast<char>(mixed.size() % 2 == 0 ? toupper(c) : c);
      }
      const Options options = Good(name, value);
      EXPECT_TRUE(Good(name, capitals) == options) << capitals;
      EXPECT_TRUE(Good(name, mixed) == options) << mixed;
    }
  }
}

TEST_F(OptionsTest, RightAndUnrelatedNamesAreNot) {
  EXPECT_TRUE(Misspelled({"CMP_STATS=1", "CMP_MODE=off", "CMP_MAX_BLOCK=1G"}).empty());
  EXPECT_TRUE(Misspelled({"CMP_COMPRESSION_LEVEL=9", "CMP_INSTALL=/opt", "CMP_=1"}).empty());
  EXPECT_TRUE(Misspelled({"XCMP_STAT=1", "PATH=/bin", "cmp_stat=1", ""}).empty());
  g_warnings.clear();
  WarnOfMisspelledOptions(nullptr, &Warn);
  EXPECT_TRUE(g_warnings.empty());
}

TEST_F(OptionsTest, AVeryLongNameResemblesNone) {
  for (const size_t length : {40, 43, 44, 100, 191, 192, 193, 300, 5000}) {
    EXPECT_TRUE(Misspelled({"CMP_" + std::string(length, 'A') + "=1"}).empty()) << length;
  }
}

TEST_F(OptionsTest, OneLineForEveryMisspelledName) {
  EXPECT_EQ(Misspelled({"CMP_STAT=1", "HOME=/", "CMP_MAXBLOCK=1"}).size(), 2u);
}

TEST_F(OptionsTest, TheTableIsVisitedAndTellsRightFromWrong) {
  static std::vector<std::string> names;
  names.clear();
  VisitOptions([](const char* name, const char* default_value, const char* values, const char*) {
    names.emplace_back(name);
    EXPECT_TRUE(IsRightValue(name, default_value)) << name << "=" << default_value;
    EXPECT_NE(values[0], '\0') << name;
  });
  EXPECT_GE(names.size(), 13u);
  EXPECT_EQ(names.front(), "CMP_MODE");
  EXPECT_FALSE(IsRightValue("CMP_MODE", "on"));
  EXPECT_FALSE(IsRightValue("CMP_MODE", ""));
  EXPECT_FALSE(IsRightValue("CMP_MOD", "pool"));
}

TEST_F(OptionsTest, TheTablePrintsEveryDefaultInAFormThatParses) {
  static std::vector<std::string> rows;
  rows.clear();
  PrintOptionTable([](const char* row) { rows.emplace_back(row); });
  EXPECT_GE(rows.size(), 13u);
  for (const std::string& row : rows) {
    // | `NAME` | `default` | values | meaning |
    const size_t name = row.find('`') + 1;
    const size_t name_end = row.find('`', name);
    const size_t value = row.find('`', name_end + 1) + 1;
    const size_t value_end = row.find('`', value);
    ASSERT_NE(value_end, std::string::npos) << row;
    const std::string option = row.substr(name, name_end - name);
    Options options = Good(option, row.substr(value, value_end - value));
    if (option == "CMP_PROGRAMS") options.programs = nullptr;  // "all"
    EXPECT_TRUE(options == Options{}) << row;
  }
}

TEST(ParseBytesTest, Good) {
  const struct {
    const char* text;
    size_t bytes;
  } cases[] = {
      {"0", 0},
      {"4096", 4096},
      {"1K", kKiB},
      {"16M", 16 * kMiB},
      {"16m", 16 * kMiB},
      {"2G", 2 * kGiB},
      {"1T", 1024 * kGiB},
      {"1KB", kKiB},
      {"1KiB", kKiB},
      {"1kib", kKiB},
      {"300.0", 300},
      {"100B", 100},
      {"1.5K", 1536},
      {"0.5M", kMiB / 2},
      {"127T", 127 * 1024 * kGiB},
      {"007", 7},
  };
  for (const auto& [text, expected] : cases) {
    size_t bytes = 12345;
    EXPECT_TRUE(ParseBytes(text, &bytes)) << text;
    EXPECT_EQ(bytes, expected) << text;
  }
}

TEST(ParseBytesTest, Bad) {
  for (const char* text :
       {"",      " ",   "K",    "-1",  "+1",     "1 K", " 1",   "1 ",
        "1X",    "1KK", "0x10", "1e3", "1,5K",   ".5K", "128T", "99999999999999999999",
        "1KiBB", "1%",  "nan",  "4.5", "300.25B"}) {
    size_t bytes = 12345;
    EXPECT_FALSE(ParseBytes(text, &bytes)) << text;
    EXPECT_EQ(bytes, 12345u) << "changed by " << text;
  }
}

TEST(ParseBytesTest, DoesNotFollowTheLocale) {
  const char* before = setlocale(LC_NUMERIC, nullptr);
  const std::string saved = before == nullptr ? "C" : before;
  if (setlocale(LC_NUMERIC, "de_DE.UTF-8") == nullptr) setlocale(LC_NUMERIC, "");
  size_t bytes = 0;
  EXPECT_TRUE(ParseBytes("1.5K", &bytes));
  EXPECT_EQ(bytes, 1536u);
  setlocale(LC_NUMERIC, saved.c_str());
}

}  // namespace
}  // namespace cmp
