// What the host sees right after cudaFree: one scenario of visible.h at a time, in a process of its
// own, since memory that is visible stays so.
//
//   visible --list       `wrong|unknown|right <tab> NAME <tab> RULE` for each: what comes without a
//                        wait, and the rule of CMP_FREE_SYNC=auto on which it rests
//   visible NAME         prints `NAME: right`, `NAME: wrong` or `NAME: skipped: WHY`; on stderr
//                        whether cudaFree waited. The exit code tells of failed calls alone.
#include "visible.h"

namespace cmp::gpu {

Stage::Stage(const char* scenario)
    : busy(MakeStream(cudaStreamNonBlocking)),
      other(MakeStream(cudaStreamNonBlocking)),
      word(AllocateZeros<uint32_t>(1)),
      scenario_(scenario),
      driver_(dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD)),
      simulated_now_(reinterpret_cast<uint64_t (*)()>(dlsym(driver_, "simNow"))),
      block_(Allocate<char>(4096)) {
  // What is launched for the first time may be loaded first, and that waits for the device.
  kernels.Delay(busy, 0);
  kernels.WriteLate(busy, word, 0, 0);
  kernels.CopyWord(busy, word, word);
  CHECK(cudaMemsetAsync(word, 0, sizeof(uint32_t), busy));
  CHECK(cudaDeviceSynchronize());
}

void Stage::Skip(const char* why) const {
  std::printf("%s: skipped: %s\n", scenario_, why);
  std::fflush(stdout);
  _exit(0);
}

void Stage::Free() {
  Free([this] { CHECK(cudaFree(block_)); });
}

void Stage::ReportFree() const {
  std::fprintf(stderr, "%s: cudaFree %s, ms %.3f\n", scenario_,
               Waited() ? "waited" : "did not wait", free_seconds_ * 1e3);
}

double Stage::Now() const {
  if (simulated_now_ != nullptr) return 1e-9 * static_cast<double>(simulated_now_());
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

}  // namespace cmp::gpu

namespace {

using namespace cmp::gpu;

std::vector<Scenario> Scenarios() {
  std::vector<Scenario> all;
  for (const auto& some : {PendingWork(), VisibleMemory(), Afterwards(), NothingVisible()}) {
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

void List() {
  const char* const words[] = {"wrong", "unknown", "right"};
  for (const Scenario& one : Scenarios()) {
    std::printf("%s\t%s\t%s\n", words[static_cast<int>(one.without_wait)], one.name, one.rule);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (HasFlag(argc, argv, "--list")) return List(), 0;
  if (const char* kind = Argument(argc, argv, "--look", nullptr)) return BeOtherProcess(kind);
  for (const Scenario& one : Scenarios()) {
    if (argc != 2 || std::strcmp(argv[1], one.name) != 0) continue;
    StartCudaOrSkip();
    const Watchdog watchdog(20);
    Stage stage(one.name);
    const bool right = one.is_right(stage);
    stage.ReportFree();
    std::printf("%s: %s\n", one.name, right ? "right" : "wrong");
    return 0;
  }
  std::fprintf(stderr, "visible: name one scenario of visible --list\n");
  return 2;
}
