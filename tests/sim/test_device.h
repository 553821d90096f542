// What every test of the simulator needs: a current primary context, clean counters, and work
// items in a line.
#ifndef CMP_TESTS_SIM_TEST_DEVICE_H_
#define CMP_TESTS_SIM_TEST_DEVICE_H_

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "create_context.h"
#include "sim.h"

namespace cmp::sim {

class SimTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(cudaSetDevice(0), cudaSuccess);
    ASSERT_EQ(cuCtxGetCurrent(&context_), CUDA_SUCCESS);
    ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
    simSeed(0);
    simReset();
  }
  void TearDown() override {
    cudaDeviceReset();
    cudaGetLastError();
    EXPECT_EQ(simHazardCount(), expected_hazards_) << simHazardReport();
    EXPECT_EQ(simMisuseCount(), expected_misuse_) << simMisuseReport();
    simReset();
  }

  CUstream NewStream(unsigned flags = CU_STREAM_NON_BLOCKING) {
    CUstream stream = nullptr;
    EXPECT_EQ(cuStreamCreate(&stream, flags), CUDA_SUCCESS);
    return stream;
  }
  // Current from then on.
  CUcontext NewContext() {
    CUcontext context = nullptr;
    EXPECT_EQ(CreateContext(&context), CUDA_SUCCESS);
    return context;
  }
  CUevent NewEvent() {
    CUevent event = nullptr;
    EXPECT_EQ(cuEventCreate(&event, 0), CUDA_SUCCESS);
    return event;
  }
  CUdeviceptr NewBlock(size_t bytes) {
    CUdeviceptr block = 0;
    EXPECT_EQ(cuMemAlloc(&block, bytes), CUDA_SUCCESS);
    return block;
  }

  CUcontext context_ = nullptr;
  uint64_t expected_hazards_ = 0;
  uint64_t expected_misuse_ = 0;
};

inline constexpr uint64_t kMillisecond = 1000000;
inline constexpr uint64_t kLong = 17 * kMillisecond;  // a kernel that is still there when asked
inline constexpr size_t kMiB = size_t{1} << 20;

// A kernel that writes `value` into one 64-bit word.
struct Store {
  uint64_t* target;
  uint64_t value;
  static void Run(void* data) {
    const Store* store = static_cast<Store*>(data);
    *store->target = store->value;
  }
};

inline uint64_t* Word(CUdeviceptr block) { return reinterpret_cast<uint64_t*>(block); }

// Kernels may run as late as in TearDown: what they need lives as long as the program.
inline Store* Keep(const Store& store) {
  static std::mutex lock;
  static auto* kept = new std::deque<Store>;
  const std::lock_guard<std::mutex> guard(lock);
  return &kept->emplace_back(store);
}

// Launches a kernel that stores.
inline void LaunchStore(CUstream stream, const Store* store, uint64_t duration_ns) {
  const SimRange write{store->target, sizeof(uint64_t)};
  SimWork work{};
  work.duration_ns = duration_ns;
  work.writes = &write;
  work.write_count = 1;
  work.effect = Store::Run;
  work.data = Keep(*store);
  ASSERT_EQ(simLaunch(stream, &work), CUDA_SUCCESS);
}

// A kernel with the default effect.
inline void LaunchHash(CUstream stream, uint64_t id, uint64_t duration_ns,
                       std::vector<SimRange> reads, std::vector<SimRange> writes) {
  SimWork work{};
  work.id = id;
  work.duration_ns = duration_ns;
  work.reads = reads.data();
  work.read_count = reads.size();
  work.writes = writes.data();
  work.write_count = writes.size();
  ASSERT_EQ(simLaunch(stream, &work), CUDA_SUCCESS);
}

// `call()` on a thread of its own, with the context current.
template <typename Call>
auto OnOtherThread(CUcontext context, Call call) {
  decltype(call()) result{};
  std::thread([&] {
    cuCtxSetCurrent(context);
    result = call();
  }).join();
  return result;
}

}  // namespace cmp::sim

#endif  // CMP_TESTS_SIM_TEST_DEVICE_H_
