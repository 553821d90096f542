// What kernels print, when it is shown, and what the end of the process leaves undone.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>

#include "test_device.h"

namespace cmp::sim {
namespace {

class Print : public SimTest {
 protected:
  static void Launch(CUstream stream, const char* text, uint64_t duration_ns = kLong) {
    SimWork work{};
    work.duration_ns = duration_ns;
    work.print = text;
    ASSERT_EQ(simLaunch(stream, &work), CUDA_SUCCESS);
  }
  // What the process wrote to stdout during the call.
  static std::string Shown(const std::function<void()>& call) {
    testing::internal::CaptureStdout();
    call();
    return testing::internal::GetCapturedStdout();
  }
};

TEST_F(Print, IsShownByWhatWaitsAndNotByQueries) {
  const CUstream stream = NewStream();
  const CUevent event = NewEvent();
  const CUdeviceptr block = NewBlock(64);
  uint64_t word = 0;
  const std::function<CUresult()> waits[] = {
      [this] { return cuMemFree(NewBlock(256)); },   [=] { return cuStreamSynchronize(stream); },
      [=] { return cuEventSynchronize(event); },     [] { return cuCtxSynchronize(); },
      [&] { return cuMemcpyDtoH(&word, block, 8); }, [&] { return cuMemcpyHtoD(block, &word, 8); },
  };
  for (const auto& wait : waits) {
    Launch(stream, "of the kernel, ");
    ASSERT_EQ(cuCtxRecordEvent(context_, event), CUDA_SUCCESS);
    EXPECT_EQ(Shown([&] {
                simAdvance(kLong + kMillisecond);
                EXPECT_EQ(cuEventQuery(event), CUDA_SUCCESS);
                EXPECT_EQ(cuStreamQuery(stream), CUDA_SUCCESS);
                std::printf("before, ");
                NewBlock(64);
              }),
              "before, ");
    EXPECT_EQ(Shown([&] {
                EXPECT_EQ(wait(), CUDA_SUCCESS);
                std::printf("after");
              }),
              "of the kernel, after");
  }
}

TEST_F(Print, WaitingForTheWorkShowsIt) {
  const CUstream stream = NewStream();
  Launch(stream, "first ");
  Launch(stream, "second ");
  const CUdeviceptr block = NewBlock(64);
  EXPECT_EQ(Shown([&] { EXPECT_EQ(cudaFree(Word(block)), cudaSuccess); }), "first second ");
  EXPECT_EQ(Shown([&] { EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess); }), "");
}

TEST_F(Print, OfWorkThatDidNotHappenNothingIsShown) {
  const CUstream stream = NewStream();
  Launch(stream, "pending");
  EXPECT_EQ(Shown([] { EXPECT_EQ(cuStreamSynchronize(nullptr), CUDA_SUCCESS); }), "");
  SimWork trap{};
  trap.flags = SIM_WORK_TRAP;
  ASSERT_EQ(simLaunch(stream, &trap), CUDA_SUCCESS);
  Launch(stream, "after the trap");
  EXPECT_EQ(Shown([] { EXPECT_EQ(cuCtxSynchronize(), CUDA_ERROR_LAUNCH_FAILED); }), "pending");
}

// The child's stdout is a file, and a page of another file is memory that its kernels write.
TEST_F(Print, TheEndOfTheProcessShowsWhatIsDoneAndLeavesTheRestUndone) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  // A name that nobody else has, and the child, which begins anew, finds again.
  const std::string own = testing::TempDir() + "cmp_sim_print_test_" + std::to_string(getpid());
  setenv("CMP_SIM_PRINT_TEST", own.c_str(), 0);
  const std::string path = getenv("CMP_SIM_PRINT_TEST");
  const std::string page_path = path + "_page";
  EXPECT_EXIT(
      {
        if (std::freopen(path.c_str(), "w", stdout) == nullptr) std::exit(2);
        const int file = open(page_path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (file < 0 || ftruncate(file, 4096) != 0) std::exit(3);
        void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (cuMemHostRegister(page, 4096, 0) != CUDA_SUCCESS) std::exit(4);
        auto* words = static_cast<uint64_t*>(page);
        const CUstream stream = NewStream();
        LaunchStore(stream, Keep({&words[0], 1}), 0);
        Launch(stream, "done ", 0);
        LaunchStore(stream, Keep({&words[1], 1}), kLong);
        Launch(stream, "pending ");
        simAdvance(kMillisecond);
        std::printf("host ");
        std::exit(0);
      },
      testing::ExitedWithCode(0), "");
  std::ifstream shown(path);
  std::stringstream text;
  text << shown.rdbuf();
  EXPECT_EQ(text.str(), "host done ");
  uint64_t words[2] = {};
  std::ifstream page(page_path, std::ios::binary);
  page.read(reinterpret_cast<char*>(words), sizeof words);
  EXPECT_EQ(words[0], 1U);
  EXPECT_EQ(words[1], 0U);
  unlink(path.c_str());
  unlink(page_path.c_str());
}

}  // namespace
}  // namespace cmp::sim
