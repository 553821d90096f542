// A cuMemFree that waits for the device holds up what other threads submit to its context.
#include <atomic>
#include <chrono>
#include <functional>

#include "test_device.h"

namespace cmp::sim {
namespace {

// A kernel's effect during which another thread makes a call; it ends when the call has returned,
// or has been in the driver for a while.
class Meanwhile {
 public:
  Meanwhile(CUcontext context, const char* name, std::function<CUresult()> call)
      : name_(name), before_(simCallCount(name)), thread_([=, this] {
          cuCtxSetCurrent(context);
          while (!wanted_) std::this_thread::yield();
          result_ = call();
          returned_ = true;
        }) {}
  ~Meanwhile() {
    wanted_ = true;
    thread_.join();
    EXPECT_EQ(result_, CUDA_SUCCESS);
  }
  Meanwhile(const Meanwhile&) = delete;
  Meanwhile& operator=(const Meanwhile&) = delete;

  void Launch(CUstream stream) {
    SimWork work{};
    work.duration_ns = kMillisecond;
    work.effect = [](void* data) { static_cast<Meanwhile*>(data)->Happen(); };
    work.data = this;
    ASSERT_EQ(simLaunch(stream, &work), CUDA_SUCCESS);
  }
  // While the kernel ran.
  bool returned_then() const { return returned_then_; }

 private:
  void Happen() {
    wanted_ = true;
    while (simCallCount(name_) == before_) std::this_thread::yield();
    for (int i = 0; i < 50 && !returned_; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    returned_then_ = returned_;
  }

  const char* name_;
  const uint64_t before_;
  std::atomic<bool> wanted_{false};
  std::atomic<bool> returned_{false};
  bool returned_then_ = false;
  CUresult result_ = CUDA_ERROR_UNKNOWN;
  std::thread thread_;
};

class HeldUp : public SimTest {
 protected:
  // Is what another thread does while `wait` waits for the device held up by it?
  bool Is(const char* name, const std::function<CUresult()>& call,
          const std::function<CUresult()>& wait, CUcontext context) {
    Meanwhile meanwhile(context, name, call);
    meanwhile.Launch(NewStream());
    EXPECT_EQ(wait(), CUDA_SUCCESS);
    return !meanwhile.returned_then();
  }
};

TEST_F(HeldUp, SubmissionsAre) {
  const CUdeviceptr block = NewBlock(4096);
  const CUstream stream = NewStream();
  const CUevent event = NewEvent();
  const auto free = [this] { return cuMemFree(NewBlock(512)); };
  EXPECT_TRUE(Is(
      "cuLaunchKernel",
      [=] {
        SimWork work{};
        return simLaunch(stream, &work);
      },
      free, context_));
  EXPECT_TRUE(Is(
      "cuMemsetD8Async", [=] { return cuMemsetD8Async(block, 1, 8, stream); }, free, context_));
  EXPECT_TRUE(Is(
      "cuEventRecord", [=] { return cuEventRecord(event, stream); }, free, context_));
}

TEST_F(HeldUp, OtherCallsAreNot) {
  size_t bytes = 0;
  const auto free = [this] { return cuMemFree(NewBlock(512)); };
  EXPECT_FALSE(Is(
      "cuMemGetInfo_v2", [&] { return cuMemGetInfo(&bytes, &bytes); }, free, context_));
}

TEST_F(HeldUp, NobodyIsByASynchronisation) {
  const CUstream stream = NewStream();
  EXPECT_FALSE(Is(
      "cuLaunchKernel",
      [=] {
        SimWork work{};
        return simLaunch(stream, &work);
      },
      [] { return cuCtxSynchronize(); }, context_));
}

TEST_F(HeldUp, OtherContextsAreNot) {
  CUcontext other = nullptr;
#if CUDA_VERSION >= 13000
  ASSERT_EQ(cuCtxCreate(&other, nullptr, 0, 0), CUDA_SUCCESS);
#else
  ASSERT_EQ(cuCtxCreate(&other, 0, 0), CUDA_SUCCESS);
#endif
  const CUstream stream = NewStream();
  cuCtxSetCurrent(context_);
  EXPECT_FALSE(Is(
      "cuLaunchKernel",
      [=] {
        SimWork work{};
        return simLaunch(stream, &work);
      },
      [this] { return cuMemFree(NewBlock(512)); }, other));
  EXPECT_EQ(cuCtxDestroy(other), CUDA_SUCCESS);
}

// A kernel waits for one that another thread launches while a free waits for the first.
TEST_F(HeldUp, ForEverWhereTheFreeWaitsForThem) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  setenv("CMPSIM_PATIENCE_MS", "300", 1);
  const auto free_beside_launch = [this] {
    const CUstream stream = NewStream();
    const CUstream other = NewStream();
    Meanwhile meanwhile(context_, "cuLaunchKernel", [=] {
      SimWork released{};
      released.id = 99;
      return simLaunch(other, &released);
    });
    meanwhile.Launch(stream);
    SimWork spinner{};
    spinner.spin_until_id = 99;
    simLaunch(stream, &spinner);
    cuMemFree(NewBlock(512));
  };
  EXPECT_DEATH(free_beside_launch(), "deadlock");
  unsetenv("CMPSIM_PATIENCE_MS");
}

}  // namespace
}  // namespace cmp::sim
