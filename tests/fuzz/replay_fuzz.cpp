// What cmp-replay reads of a trace. An input is the file.
#include <cstring>
#include <vector>

#include "fuzz.h"
#include "scripts/replay_trace.h"
#include "shim/record/trace_format.h"

namespace {

using cmp::replay::Call;
using cmp::replay::Trace;

// Every object is allocated once and freed at most once, after that.
void ExpectPairs(const Trace& trace) {
  enum class State : char { kNew, kLive, kFreed };
  std::vector<State> states(trace.object_count, State::kNew);
  for (const Call& call : trace.calls) {
    CMP_EXPECT(call.object < trace.object_count);
    State& state = states[call.object];
    CMP_EXPECT(state == (call.allocates ? State::kNew : State::kLive));
    state = call.allocates ? State::kLive : State::kFreed;
  }
  for (uint32_t i = 0; i < trace.object_count; ++i) {
    CMP_EXPECT(states[i] != State::kNew);
    CMP_EXPECT(trace.objects[i].device < trace.devices && trace.devices <= 256);
    CMP_EXPECT(trace.objects[i].address.load() == cmp::replay::kNotYet);
  }
}

// Every call is one thread's, in order.
void ExpectThreads(const Trace& trace) {
  size_t calls = 0;
  for (unsigned thread = 0; thread < trace.of_thread.size(); ++thread) {
    const std::vector<uint32_t>& own = trace.of_thread[thread];
    for (size_t i = 0; i < own.size(); ++i) {
      CMP_EXPECT(own[i] < trace.calls.size() && trace.calls[own[i]].thread == thread);
      CMP_EXPECT(i == 0 || own[i - 1] < own[i]);
    }
    calls += own.size();
  }
  CMP_EXPECT(calls == trace.calls.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Aligned as a mapped file is.
  std::vector<cmp::TraceChunk> pages(size / sizeof(cmp::TraceChunk) + 1);
  if (size != 0) std::memcpy(static_cast<void*>(pages.data()), data, size);
  Trace trace;
  const cmp::replay::Wrong wrong = cmp::replay::ReadTrace(pages.data(), size, &trace);
  if (!wrong.empty()) {
    CMP_EXPECT(std::strchr(wrong.text, '\n') == nullptr && trace.calls.empty());
    return 0;
  }
  uint64_t records = 0;
  for (size_t i = 1; i < size / sizeof(cmp::TraceChunk); ++i) {
    records += std::min(pages[i].count, cmp::TraceChunk::kRecords);
  }
  CMP_EXPECT(trace.object_count + trace.skipped <= records);
  CMP_EXPECT(trace.calls.size() >= trace.object_count);
  for (size_t i = 1; i < trace.calls.size(); ++i) {
    CMP_EXPECT(trace.calls[i - 1].moment <= trace.calls[i].moment);
  }
  ExpectPairs(trace);
  ExpectThreads(trace);
  return 0;
}
