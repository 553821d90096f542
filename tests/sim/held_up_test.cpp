// A free that waits for the device holds up other threads' calls to its context (as measured).
#include <atomic>
#include <chrono>
#include <functional>

#include "test_device.h"

namespace cmp::sim {
namespace {

enum class Expect { kHeldUp, kNot };

// A kernel's effect during which another thread makes a call. Where that is not to be held up, the
// effect ends when the call has returned, which is for ever if it is; otherwise once the call has
// been in the driver for a while.
class Meanwhile {
 public:
  Meanwhile(CUcontext context, const char* name, Expect expect, std::function<CUresult()> call)
      : name_(name), expect_(expect), before_(simCallCount(name)), thread_([=, this] {
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
    for (int i = 0; !returned_ && (i < 50 || expect_ == Expect::kNot); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    returned_then_ = returned_;
  }

  const char* name_;
  const Expect expect_;
  const uint64_t before_;
  std::atomic<bool> wanted_{false};
  std::atomic<bool> returned_{false};
  bool returned_then_ = false;
  CUresult result_ = CUDA_ERROR_UNKNOWN;
  std::thread thread_;
};

class HeldUp : public SimTest {
 protected:
  // What another thread does while `wait` waits for the device.
  void See(Expect expect, const char* name, const std::function<CUresult()>& call,
           const std::function<CUresult()>& wait, CUcontext context) {
    Meanwhile meanwhile(context, name, expect, call);
    meanwhile.Launch(NewStream());
    EXPECT_EQ(wait(), CUDA_SUCCESS);
    EXPECT_EQ(meanwhile.returned_then(), expect == Expect::kNot) << name;
  }
};

TEST_F(HeldUp, SubmissionsAndAllocationsAre) {
  const CUdeviceptr block = NewBlock(4096);
  const CUstream stream = NewStream();
  const CUevent event = NewEvent();
  CUdeviceptr made = 0;
  void* locked = nullptr;
  CUstream made_stream = nullptr;
  const auto free = [this] { return cuMemFree(NewBlock(512)); };
  const auto launch = [=] {
    SimWork work{};
    return simLaunch(stream, &work);
  };
  const std::pair<const char*, std::function<CUresult()>> calls[] = {
      {"cuLaunchKernel", launch},
      {"cuMemsetD8Async", [=] { return cuMemsetD8Async(block, 1, 8, stream); }},
      {"cuEventRecord", [=] { return cuEventRecord(event, stream); }},
      {"cuCtxRecordEvent", [=, this] { return cuCtxRecordEvent(context_, event); }},
      {"cuMemAlloc_v2", [&] { return cuMemAlloc(&made, 512); }},
      {"cuMemHostAlloc", [&] { return cuMemHostAlloc(&locked, 512, 0); }},
      {"cuStreamCreate", [&] { return cuStreamCreate(&made_stream, 0); }},
  };
  for (const auto& [name, call] : calls) See(Expect::kHeldUp, name, call, free, context_);
}

TEST_F(HeldUp, OtherCallsAreNot) {
  const CUstream stream = NewStream();
  const CUevent event = NewEvent();
  ASSERT_EQ(cuEventRecord(event, stream), CUDA_SUCCESS);
  ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  size_t bytes = 0;
  CUdeviceptr made = 0;
  const auto free = [this] { return cuMemFree(NewBlock(512)); };
  const std::pair<const char*, std::function<CUresult()>> calls[] = {
      {"cuMemGetInfo_v2", [&] { return cuMemGetInfo(&bytes, &bytes); }},
      {"cuMemFree_v2", [] { return cuMemFree(0); }},
      {"cuMemAllocAsync", [&] { return cuMemAllocAsync(&made, 512, stream); }},
      {"cuStreamQuery", [=] { return cuStreamQuery(stream); }},
      {"cuStreamSynchronize", [=] { return cuStreamSynchronize(stream); }},
      {"cuEventQuery", [=] { return cuEventQuery(event); }},
      {"cuStreamWaitEvent", [=] { return cuStreamWaitEvent(stream, event, 0); }},
      {"cuCtxWaitEvent", [=, this] { return cuCtxWaitEvent(context_, event); }},
  };
  for (const auto& [name, call] : calls) See(Expect::kNot, name, call, free, context_);
}

TEST_F(HeldUp, ByTheEndOfPageLockedMemoryToo) {
  static char memory[64];
  const CUstream stream = NewStream();
  const auto record = [this, stream] { return cuEventRecord(NewEvent(), stream); };
  See(
      Expect::kHeldUp, "cuEventRecord", record,
      [] {
        void* locked = nullptr;
        cuMemHostAlloc(&locked, 512, 0);
        return cuMemFreeHost(locked);
      },
      context_);
  See(
      Expect::kHeldUp, "cuEventRecord", record,
      [] {
        cuMemHostRegister(memory, sizeof memory, 0);
        return cuMemHostUnregister(memory);
      },
      context_);
}

TEST_F(HeldUp, NobodyIsByASynchronisation) {
  const CUstream stream = NewStream();
  See(
      Expect::kNot, "cuLaunchKernel",
      [=] {
        SimWork work{};
        return simLaunch(stream, &work);
      },
      [] { return cuCtxSynchronize(); }, context_);
}

TEST_F(HeldUp, OtherContextsAreNot) {
  const CUcontext other = NewContext();
  const CUstream stream = NewStream();
  cuCtxSetCurrent(context_);
  See(
      Expect::kNot, "cuLaunchKernel",
      [=] {
        SimWork work{};
        return simLaunch(stream, &work);
      },
      [this] { return cuMemFree(NewBlock(512)); }, other);
  EXPECT_EQ(cuCtxDestroy(other), CUDA_SUCCESS);
}

// A kernel waits for one that another thread launches while a free waits for the first.
TEST_F(HeldUp, ForEverWhereTheFreeWaitsForThem) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  setenv("CMPSIM_PATIENCE_MS", "300", 1);
  const auto free_beside_launch = [this] {
    const CUstream stream = NewStream();
    const CUstream other = NewStream();
    Meanwhile meanwhile(context_, "cuLaunchKernel", Expect::kHeldUp, [=] {
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
