#include "settings.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace cmp::sim {
namespace {

uint64_t ReadNumber(const char* name, uint64_t fallback) {
  const char* text = std::getenv(name);
  if (text == nullptr || *text == '\0') return fallback;
  char* end = nullptr;
  uint64_t value = std::strtoull(text, &end, 0);
  switch (*end) {
    case 'G':
      value <<= 10;
      [[fallthrough]];
    case 'M':
      value <<= 10;
      [[fallthrough]];
    case 'K':
      value <<= 10;
      ++end;
      break;
    default:
      break;
  }
  if (end == text || *end != '\0') {
    std::fprintf(stderr, "cmp sim: %s=%s is not a number; ignored\n", name, text);
    return fallback;
  }
  return value;
}

std::string ReadText(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? "" : text;
}

Settings ReadSettings() {
  Settings settings;
  settings.memory = ReadNumber("CMPSIM_MEMORY", settings.memory);
  settings.devices = static_cast<int>(ReadNumber("CMPSIM_DEVICES", 1));
  settings.driver_version = static_cast<int>(ReadNumber("CMPSIM_DRIVER_VERSION", 13000));
  settings.context_events =
      ReadNumber("CMPSIM_CONTEXT_EVENTS", settings.driver_version >= 12050 ? 1 : 0) != 0;
  settings.pageable_access = ReadNumber("CMPSIM_PAGEABLE_ACCESS", 0) != 0;
  settings.seed = ReadNumber("CMPSIM_SEED", settings.seed);
  settings.call_ns = ReadNumber("CMPSIM_CALL_NS", settings.call_ns);
  settings.lateness_ns = ReadNumber("CMPSIM_LATENESS_NS", settings.lateness_ns);
  settings.patience_ms = ReadNumber("CMPSIM_PATIENCE_MS", settings.patience_ms);
  settings.hold_ns = ReadNumber("CMPSIM_HOLD_NS", settings.hold_ns);
  const std::string costs = ReadText("CMPSIM_COSTS");
  settings.costs = costs == "h200";
  if (!costs.empty() && !settings.costs) {
    std::fprintf(stderr, "cmp sim: CMPSIM_COSTS=%s is unknown; ignored\n", costs.c_str());
  }
  settings.failures = ReadText("CMPSIM_FAIL");
  settings.report = ReadText("CMPSIM_REPORT");
  return settings;
}

}  // namespace

const Settings& TheSettings() {
  static const Settings* settings = new Settings(ReadSettings());  // lives past static destructors
  return *settings;
}

}  // namespace cmp::sim
