// Answers about work: after a free they are those of a device that has done all of it.
#include <chrono>

#include "scene.h"

namespace observations {
namespace {

cudaEvent_t NewEvent(unsigned flags = cudaEventDefault) {
  cudaEvent_t event = nullptr;
  MUST(cudaEventCreateWithFlags(&event, flags));
  return event;
}

uint64_t Answer(cudaError_t answer) {
  cudaGetLastError();
  return static_cast<uint64_t>(answer);
}

// Long work on `stream`, a free, and the question.
void Ask(const char* what, cudaStream_t stream, const std::function<cudaError_t()>& ask) {
  char* device = DeviceWord();
  for (int round = 0; round < 3; ++round) {
    WriteWord(stream, device, 1, kLong);
    FreeUnrelated();
    See(what, Answer(ask()), 0);
    See(what, Answer(ask()), 0);
    MUST(cudaDeviceSynchronize());
  }
}

void Streams() {
  cudaStream_t blocking = nullptr;
  MUST(cudaStreamCreate(&blocking));
  for (const cudaStream_t stream :
       {NonBlockingStream(), blocking, cudaStream_t{nullptr}, cudaStream_t{cudaStreamPerThread}}) {
    Ask("stream", stream, [=] { return cudaStreamQuery(stream); });
  }
  Ask("legacy stream of a busy blocking one", blocking, [] { return cudaStreamQuery(nullptr); });
}

void StreamOfDriver() {
  const cudaStream_t stream = NonBlockingStream();
  Ask("stream", stream, [=] { return static_cast<cudaError_t>(cuStreamQuery(stream)); });
}

// For another thread's free a query waits for a while only, 100 ms of real time from the free on.
// Here it has to ask once; and where a busy machine took longer between the two, nothing is seen:
// it is done again. (Then the free waits itself: the other thread has asked.)
void StreamAskedByAnotherThread() {
  const cudaStream_t stream = NonBlockingStream();
  char* device = DeviceWord();
  Helper helper;
  const auto time_passes = [](void*) { simAdvance(10 * kLong); };
  for (bool seen = false; !seen;) {
    using Clock = std::chrono::steady_clock;
    const auto begin = Clock::now();
    cudaError_t answer = cudaErrorUnknown;
    WriteWord(stream, device, 1, kLong);
    FreeUnrelated();
    simOnCall("cuEventQuery", SIM_BEFORE_CALL, time_passes, nullptr);
    helper.Do([&] { answer = cudaStreamQuery(stream); });
    helper.Wait();
    simOnCall("cuEventQuery", SIM_BEFORE_CALL, nullptr, nullptr);
    if (Clock::now() - begin < std::chrono::milliseconds(50)) {
      See("stream", Answer(answer), 0);
      seen = true;
    }
    MUST(cudaDeviceSynchronize());
  }
}

// Two frees, and work between them.
void StreamAfterTwoFrees() {
  const cudaStream_t stream = NonBlockingStream();
  const cudaStream_t other = NonBlockingStream();
  char* device = DeviceWord();
  WriteWord(stream, device, 1, kLong);
  FreeUnrelated();
  WriteWord(other, device + 64, 1, kLong);
  FreeUnrelated();
  See("first stream", Answer(cudaStreamQuery(stream)), 0);
  See("second stream", Answer(cudaStreamQuery(other)), 0);
  MUST(cudaDeviceSynchronize());
}

// `record` puts the event behind the long work.
void Event(const char* what, unsigned flags,
           const std::function<cudaError_t(cudaEvent_t, cudaStream_t)>& record) {
  const cudaEvent_t event = NewEvent(flags);
  char* device = DeviceWord();
  for (const cudaStream_t stream :
       {NonBlockingStream(), cudaStream_t{nullptr}, cudaStream_t{cudaStreamPerThread}}) {
    WriteWord(stream, device, 1, kLong);
    MUST(record(event, stream));
    FreeUnrelated();
    See(what, Answer(cudaEventQuery(event)), 0);
    MUST(cudaDeviceSynchronize());
  }
}

void Events() {
  Event("event", cudaEventDefault, cudaEventRecord);
  Event("event without times", cudaEventDisableTiming, cudaEventRecord);
  Event("event with flags", cudaEventDefault, [](cudaEvent_t event, cudaStream_t stream) {
    return cudaEventRecordWithFlags(event, stream, cudaEventRecordDefault);
  });
}

void EventOfDriver() {
  const cudaEvent_t event = NewEvent();
  const cudaStream_t stream = NonBlockingStream();
  WriteWord(stream, DeviceWord(), 1, kLong);
  MUST_DRIVER(cuEventRecord(event, stream));
  FreeUnrelated();
  See("event", static_cast<uint64_t>(cuEventQuery(event)), 0);
  MUST(cudaDeviceSynchronize());
}

void ElapsedTime() {
  const cudaEvent_t begin = NewEvent();
  const cudaEvent_t end = NewEvent();
  char* device = DeviceWord();
  for (const cudaStream_t stream : {NonBlockingStream(), cudaStream_t{nullptr}}) {
    float milliseconds = -1;
    MUST(cudaEventRecord(begin, stream));
    WriteWord(stream, device, 1, kLong);
    MUST(cudaEventRecord(end, stream));
    FreeUnrelated();
    See("answer", Answer(cudaEventElapsedTime(&milliseconds, begin, end)), 0);
    See("time was told", milliseconds > 1 ? 1 : 0, 1);
    MUST(cudaDeviceSynchronize());
  }
}

void ElapsedTimeOfDriver() {
  const cudaEvent_t begin = NewEvent();
  const cudaEvent_t end = NewEvent();
  const cudaStream_t stream = NonBlockingStream();
  float milliseconds = -1;
  MUST(cudaEventRecord(begin, stream));
  WriteWord(stream, DeviceWord(), 1, kLong);
  MUST(cudaEventRecord(end, stream));
  FreeUnrelated();
  See("answer", static_cast<uint64_t>(cuEventElapsedTime(&milliseconds, begin, end)), 0);
  MUST(cudaDeviceSynchronize());
}

// Work from after the free is not ready, whatever is paid.
void LaterWork() {
  const cudaStream_t stream = NonBlockingStream();
  const cudaEvent_t before = NewEvent();
  const cudaEvent_t after = NewEvent();
  char* device = DeviceWord();
  WriteWord(stream, device, 1, kLong);
  MUST(cudaEventRecord(before, stream));
  FreeUnrelated();
  WriteWord(stream, device, 2, 10 * kLong);
  MUST(cudaEventRecord(after, stream));
  Check("stream", Answer(cudaStreamQuery(stream)), cudaErrorNotReady);
  Check("event of later work", Answer(cudaEventQuery(after)), cudaErrorNotReady);
  float milliseconds = 0;
  Check("time", Answer(cudaEventElapsedTime(&milliseconds, before, after)), cudaErrorNotReady);
  See("event of earlier work", Answer(cudaEventQuery(before)), 0);
  MUST(cudaDeviceSynchronize());
}

// A query is allowed while the thread captures, and means another stream.
void WhileCapturing() {
  const cudaStream_t stream = NonBlockingStream();
  const cudaStream_t captured = NonBlockingStream();
  const cudaEvent_t event = NewEvent();
  char* device = DeviceWord();
  WriteWord(stream, device, 1, kLong);
  MUST(cudaEventRecord(event, stream));
  FreeUnrelated();
  MUST(cudaStreamBeginCapture(captured, cudaStreamCaptureModeRelaxed));
  MUST(cudaMemsetAsync(device + 64, 1, 8, captured));
  See("stream", Answer(cudaStreamQuery(stream)), 0);
  See("event", Answer(cudaEventQuery(event)), 0);
  cudaGraph_t graph = nullptr;
  Check("the capture", Answer(cudaStreamEndCapture(captured, &graph)), 0);
  MUST(cudaDeviceSynchronize());
}

// Without a free in between nobody promises anything.
void WithoutFree() {
  const cudaStream_t stream = NonBlockingStream();
  const cudaEvent_t event = NewEvent();
  WriteWord(stream, DeviceWord(), 1, kLong);
  MUST(cudaEventRecord(event, stream));
  Check("stream", Answer(cudaStreamQuery(stream)), cudaErrorNotReady);
  Check("event", Answer(cudaEventQuery(event)), cudaErrorNotReady);
  NoteRunning();
  MUST(cudaDeviceSynchronize());
}

// ---- Threads that ask while another one frees

uint64_t AskedBy(Helper& helper, const std::function<cudaError_t()>& ask) {
  uint64_t answer = 0;
  helper.Do([&] { answer = Answer(ask()); });
  helper.Wait();
  return answer;
}

// Who has asked, and is told of a free that came after that.
void FreeBesideQueries(
    const std::function<cudaError_t(cudaStream_t, cudaEvent_t, cudaEvent_t)>& ask) {
  const cudaStream_t stream = NonBlockingStream();
  const cudaEvent_t begin = NewEvent();
  const cudaEvent_t end = NewEvent();
  char* device = DeviceWord();
  Helper helper;
  for (int round = 0; round < 3; ++round) {
    MUST(cudaEventRecord(begin, stream));
    WriteWord(stream, device, 1, kLong);
    MUST(cudaEventRecord(end, stream));
    const auto asked = [&] { return ask(stream, begin, end); };
    Check("before the free", AskedBy(helper, asked), cudaErrorNotReady);
    FreeUnrelated();
    See("after it", AskedBy(helper, asked), 0);
    MUST(cudaDeviceSynchronize());
  }
}

void StreamBesideFree() {
  FreeBesideQueries(
      [](cudaStream_t stream, cudaEvent_t, cudaEvent_t) { return cudaStreamQuery(stream); });
}
void EventBesideFree() {
  FreeBesideQueries([](cudaStream_t, cudaEvent_t, cudaEvent_t end) { return cudaEventQuery(end); });
}
void ElapsedTimeBesideFree() {
  FreeBesideQueries([](cudaStream_t, cudaEvent_t begin, cudaEvent_t end) {
    float milliseconds = 0;
    return cudaEventElapsedTime(&milliseconds, begin, end);
  });
}

// More threads than the context has places for; some of them free, too.
void SeveralThreadsBesideFree() {
  const cudaStream_t stream = NonBlockingStream();
  char* device = DeviceWord();
  Helper helpers[3];
  const auto ask = [=] { return cudaStreamQuery(stream); };
  for (int round = 0; round < 4; ++round) {
    WriteWord(stream, device, 1, kLong);
    for (Helper& helper : helpers) {
      Check("before the free", AskedBy(helper, ask), cudaErrorNotReady);
    }
    if (round == 3) {
      FreeUnrelated();
    } else {
      helpers[round].Do(FreeUnrelated);
      helpers[round].Wait();
    }
    for (Helper& helper : helpers) See("after it", AskedBy(helper, ask), 0);
    See("who asks only now", Answer(ask()), 0);
    MUST(cudaDeviceSynchronize());
  }
}

// It asks for the first time while the other thread is in its free already, and has seen that
// nobody asks.
void FirstQueryDuringFree() {
  const cudaStream_t stream = NonBlockingStream();
  char* device = DeviceWord();
  Helper helper;
  const auto ask = [=] { return cudaStreamQuery(stream); };
  WriteWord(stream, device, 1, kLong);
  program::AtPlace at = {std::this_thread::get_id(), helper, [&] { Answer(ask()); }, false};
  simOnCall("cuCtxRecordEvent", SIM_AFTER_CALL, program::AtPlace::Called, &at);
  FreeUnrelated();
  simOnCall("cuCtxRecordEvent", SIM_AFTER_CALL, nullptr, nullptr);
  See("stream", AskedBy(helper, ask), 0);
  MUST(cudaDeviceSynchronize());
}

// The thread that asks is the one that frees.
void QueryBeforeAndAfterOwnFree() {
  const cudaStream_t stream = NonBlockingStream();
  char* device = DeviceWord();
  for (int round = 0; round < 3; ++round) {
    WriteWord(stream, device, 1, kLong);
    Check("before the free", Answer(cudaStreamQuery(stream)), cudaErrorNotReady);
    FreeUnrelated();
    See("after it", Answer(cudaStreamQuery(stream)), 0);
    MUST(cudaDeviceSynchronize());
  }
}

// The work ends, and others find out, between the driver's answer and the look at what was skipped:
// then nothing is to be waited for, but the answer is too old.
void WorkThatEndsDuringQuery() {
  const cudaStream_t stream = NonBlockingStream();
  char* device = DeviceWord();
  Helper helper;
  WriteWord(stream, device, 1, kLong);
  FreeUnrelated();
  helper.Do([&] {
    Helper other;
    program::AtPlace at = {std::this_thread::get_id(), other,
                           [&] {
                             simAdvance(10 * kLong);
                             Answer(cudaStreamQuery(stream));
                           },
                           false};
    simOnCall("cuStreamQuery", SIM_AFTER_CALL, program::AtPlace::Called, &at);
    See("stream", Answer(cudaStreamQuery(stream)), 0);
    simOnCall("cuStreamQuery", SIM_AFTER_CALL, nullptr, nullptr);
  });
  helper.Wait();
  MUST(cudaDeviceSynchronize());
}

}  // namespace

std::vector<Scenario> QueryScenarios() {
  std::vector<Scenario> scenarios;
  const auto add = [&](const char* name, void (*run)()) {
    scenarios.push_back({Expect::kVisible, "pay_before_queries", name, run});
  };
  add("query-streams", Streams);
  add("query-stream-driver", StreamOfDriver);
  add("query-stream-of-another-thread", StreamAskedByAnotherThread);
  add("query-streams-after-two-frees", StreamAfterTwoFrees);
  add("query-events", Events);
  add("query-event-driver", EventOfDriver);
  add("elapsed-time", ElapsedTime);
  add("elapsed-time-driver", ElapsedTimeOfDriver);
  add("query-later-work", LaterWork);
  add("query-while-capturing", WhileCapturing);
  const char* const beside = "watched_frees_wait";
  scenarios.push_back({Expect::kVisible, beside, "query-stream-beside-free", StreamBesideFree});
  scenarios.push_back({Expect::kVisible, beside, "query-event-beside-free", EventBesideFree});
  scenarios.push_back(
      {Expect::kVisible, beside, "elapsed-time-beside-free", ElapsedTimeBesideFree});
  scenarios.push_back(
      {Expect::kVisible, beside, "query-by-several-beside-free", SeveralThreadsBesideFree});
  scenarios.push_back(
      {Expect::kVisible, "watch_after_skip", "first-query-during-free", FirstQueryDuringFree});
  scenarios.push_back(
      {Expect::kVisible, "skip_ends_watch", "query-around-own-free", QueryBeforeAndAfterOwnFree});
  scenarios.push_back(
      {Expect::kVisible, "ask_again", "work-that-ends-during-query", WorkThatEndsDuringQuery});
  scenarios.push_back({Expect::kQuiet, "-", "query-without-free", WithoutFree});
  return scenarios;
}

}  // namespace observations
