// A launch of one thread while another one's cudaFree waits for the device.
//
//   held_up beside   the launch begins while the free waits, 20 ms before it ends
//   held_up before   it has returned before the free begins
#include "helper.h"

namespace {

using program::Allocate;
using program::Helper;
using program::NonBlockingStream;

struct Meanwhile {
  Helper helper;
  cudaStream_t stream = NonBlockingStream();

  void Launch() {
    helper.Do([this] {
      SimWork work{};
      MUST(static_cast<cudaError_t>(simLaunch(reinterpret_cast<CUstream>(stream), &work)));
    });
  }
};

// A kernel whose end the free waits for.
void LaunchBefore(cudaStream_t stream, void (*effect)(void*), void* data) {
  SimWork work{};
  work.duration_ns = 1'000'000;
  work.effect = effect;
  work.data = data;
  MUST(static_cast<cudaError_t>(simLaunch(reinterpret_cast<CUstream>(stream), &work)));
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) return 2;
  Meanwhile meanwhile;
  char* block = Allocate(4096);
  char* other = Allocate(4096);
  if (strcmp(arguments[1], "beside") == 0) {
    const auto effect = [](void* data) {
      static_cast<Meanwhile*>(data)->Launch();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    };
    LaunchBefore(NonBlockingStream(), effect, &meanwhile);
  } else {
    LaunchBefore(NonBlockingStream(), nullptr, nullptr);
    meanwhile.Launch();
    meanwhile.helper.Wait();
  }
  MUST(cudaFree(block));
  meanwhile.helper.Wait();
  MUST(cudaDeviceSynchronize());
  MUST(cudaFree(other));
  printf("done\n");
  return 0;
}
