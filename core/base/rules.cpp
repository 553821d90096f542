// Only in the test build libcmp_preload_rules.so: CMP_TEST_RULES_OFF names the rules that are off.
#include "core/base/rules.h"

#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <cstdint>

namespace cmp {

namespace {
constexpr const char* kNames[] = {"fence_before_reuse",
                                  "fence_in_every_context",
                                  "order_on_second_stream",
                                  "order_before_synchronous_copy",
                                  "order_across_contexts",
                                  "copies_in_every_context",
                                  "stamp_protocol",
                                  "event_reuse",
                                  "capture",
                                  "visible_copies",
                                  "visible_host_functions",
                                  "visible_graphs",
                                  "visible_stream_memory",
                                  "visible_managed",
                                  "visible_mapped",
                                  "visible_pageable_access",
                                  "visible_exports",
                                  "visible_imports",
                                  "visible_attributes",
                                  "pay_before_queries",
                                  "watched_frees_wait",
                                  "watch_after_skip",
                                  "skip_ends_watch",
                                  "ask_again",
                                  "pay_before_destruction",
                                  "pay_at_exit",
                                  "finished_if_begun_after",
                                  "page_locked_in_every_context",
                                  "page_locked_new_range",
                                  "page_locked_quietly",
                                  "page_locked_bound",
                                  "holds_in_vain_become_fewer",
                                  "exit_ends_holds",
                                  "frees_that_may_wait_end_holds",
                                  "no_hold_of_what_waits"};
constexpr uint64_t kRead = uint64_t{1} << 63;
constinit std::atomic<uint64_t> g_off{0};

uint64_t ReadOff() {
  uint64_t off = kRead;
  const char* text = getenv("CMP_TEST_RULES_OFF");
  for (unsigned i = 0; text != nullptr && i < sizeof(kNames) / sizeof(kNames[0]); ++i) {
    if (strstr(text, kNames[i]) != nullptr) off |= uint64_t{1} << i;
  }
  g_off.store(off, std::memory_order_relaxed);
  return off;
}
}  // namespace

bool RuleIsOn(Rule rule) {
  uint64_t off = g_off.load(std::memory_order_relaxed);
  if (off == 0) off = ReadOff();
  return (off >> static_cast<unsigned>(rule) & 1) == 0;
}

}  // namespace cmp
