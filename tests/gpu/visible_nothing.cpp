// Frees that need not wait although a stream is busy: the host can see nothing of what is pending,
// and what it can see is finished.
#include "visible.h"

namespace cmp::gpu {

namespace {

bool WordIsWritten(const Stage& stage) {
  CHECK(cudaDeviceSynchronize());
  return ReadBack(stage.word) == stage.value;
}

bool KernelAlone(Stage& stage) {
  stage.WriteLate(stage.word);
  stage.Free();
  return WordIsWritten(stage);
}

bool CopyOnDevice(Stage& stage) {
  uint32_t* const copy = AllocateZeros<uint32_t>(1);
  stage.WriteLate(stage.word);
  CHECK(cudaMemcpyAsync(copy, stage.word, sizeof(uint32_t), cudaMemcpyDeviceToDevice, stage.busy));
  stage.Free();
  CHECK(cudaDeviceSynchronize());
  return ReadBack(copy) == stage.value;
}

bool SetOnDevice(Stage& stage) {
  stage.KeepBusy();
  CHECK(cudaMemsetAsync(stage.word, 0xAB, sizeof(uint32_t), stage.busy));
  stage.Free();
  CHECK(cudaDeviceSynchronize());
  return ReadBack(stage.word) == 0xABABABAB;
}

bool PageableSource(Stage& stage) {
  uint32_t source = stage.value;
  stage.KeepBusy();
  CHECK(cudaMemcpyAsync(stage.word, &source, sizeof(source), cudaMemcpyHostToDevice, stage.busy));
  stage.Free();
  source = 1;
  return WordIsWritten(stage);
}

// It returns when it is done.
bool PageableTarget(Stage& stage) {
  const std::vector<uint32_t> zeros(kWords, 0);
  std::vector<uint32_t> target(kWords, 1);
  uint32_t* const device = AllocateZeros<uint32_t>(kWords);
  stage.WriteLate(stage.word);
  CHECK(cudaMemcpyAsync(target.data(), device, kBytes, cudaMemcpyDeviceToHost, stage.other));
  stage.Free();
  return target == zeros && WordIsWritten(stage);
}

bool PageLockedUnused(Stage& stage) {
  PageLocked(kWords);
  stage.WriteLate(stage.word);
  stage.Free();
  return WordIsWritten(stage);
}

// The host reads what was copied on the other stream, and has waited for.
template <typename WaitFunction>
bool AfterCopy(Stage& stage, const WaitFunction& wait) {
  uint32_t* const device = AllocateZeros<uint32_t>(1);
  uint32_t* const host = PageLocked(1);
  stage.WriteLate(stage.word);
  stage.kernels.WriteLate(stage.other, device, stage.value + 1, 0);
  CHECK(cudaMemcpyAsync(host, device, sizeof(uint32_t), cudaMemcpyDeviceToHost, stage.other));
  wait(stage.other);
  stage.Free();
  return Seen(host) == stage.value + 1 && WordIsWritten(stage);
}

cudaEvent_t EventBehind(cudaStream_t stream) {
  cudaEvent_t event = nullptr;
  CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  CHECK(cudaEventRecord(event, stream));
  return event;
}

// Asks until the answer is yes.
template <typename Question>
void Poll(const Question& question) {
  cudaError_t answer = question();
  while (answer == cudaErrorNotReady) answer = question();
  Check(answer, "a query");
}

bool StreamSynchronised(Stage& stage) {
  return AfterCopy(stage, [](cudaStream_t s) { CHECK(cudaStreamSynchronize(s)); });
}

bool StreamPolled(Stage& stage) {
  return AfterCopy(stage, [](cudaStream_t s) { Poll([s] { return cudaStreamQuery(s); }); });
}

bool EventSynchronised(Stage& stage) {
  return AfterCopy(stage, [](cudaStream_t s) { CHECK(cudaEventSynchronize(EventBehind(s))); });
}

bool EventPolled(Stage& stage) {
  return AfterCopy(stage, [](cudaStream_t s) {
    const cudaEvent_t event = EventBehind(s);
    Poll([event] { return cudaEventQuery(event); });
  });
}

// Work that was submitted after everything visible was done.
bool DeviceSynchronised(Stage& stage) {
  uint32_t* const host = PageLocked(1);
  CHECK(cudaMemcpyAsync(host, stage.word, sizeof(uint32_t), cudaMemcpyDeviceToHost, stage.busy));
  CHECK(cudaDeviceSynchronize());
  stage.WriteLate(stage.word);
  stage.Free();
  return WordIsWritten(stage);
}

bool SynchronousCopy(Stage& stage) {
  uint32_t* const device = AllocateZeros<uint32_t>(1);
  uint32_t* const host = PageLocked(1);
  *host = 1;
  stage.WriteLate(stage.word);
  CHECK(cudaMemcpy(host, device, sizeof(uint32_t), cudaMemcpyDeviceToHost));
  stage.Free();
  return Seen(host) == 0 && WordIsWritten(stage);
}

}  // namespace

std::vector<Scenario> NothingVisible() {
  constexpr auto kRight = WithoutWait::kRight;
  return {
      {"kernel alone", kRight, "", &KernelAlone},
      {"copy on the device", kRight, "", &CopyOnDevice},
      {"set on the device", kRight, "", &SetOnDevice},
      {"copy from pageable memory", kRight, "", &PageableSource},
      {"copy to pageable memory", kRight, "", &PageableTarget},
      {"page-locked memory, unused", kRight, "", &PageLockedUnused},
      {"copy, cudaStreamSynchronize", kRight, "", &StreamSynchronised},
      {"copy, cudaStreamQuery", kRight, "", &StreamPolled},
      {"copy, cudaEventSynchronize", kRight, "", &EventSynchronised},
      {"copy, cudaEventQuery", kRight, "", &EventPolled},
      {"copy, cudaDeviceSynchronize", kRight, "", &DeviceSynchronised},
      {"synchronous copy", kRight, "", &SynchronousCopy},
  };
}

}  // namespace cmp::gpu
