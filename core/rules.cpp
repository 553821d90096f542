// Only in the test build libcmp_preload_rules.so.
#include "core/rules.h"

#ifdef CMP_TEST_RULES

#include <stdlib.h>
#include <string.h>

namespace cmp {

bool RuleIsOn(Rule rule) {
  static constexpr const char* kNames[] = {"fence_before_reuse",
                                           "order_on_second_stream",
                                           "order_before_synchronous_copy",
                                           "stamp_protocol",
                                           "event_reuse",
                                           "capture"};
  const char* off = getenv("CMP_TEST_RULES_OFF");
  return off == nullptr || strstr(off, kNames[static_cast<int>(rule)]) == nullptr;
}

}  // namespace cmp

#endif  // CMP_TEST_RULES
