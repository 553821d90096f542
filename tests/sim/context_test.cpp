// Contexts and devices: births, ends, ids, handles; fork and exit.
#include <sys/wait.h>
#include <unistd.h>

#include "test_device.h"

namespace cmp::sim {
namespace {

constexpr char kImporter[] = "CMPSIM_TEST_IMPORTER";

// The importing process of AnotherProcessReadsAnExportedBlock: reads a handle from its standard
// input, expects 42 in the block and writes 43.
int Import() {
  cudaIpcMemHandle_t handle;
  if (read(0, &handle, sizeof handle) != static_cast<ssize_t>(sizeof handle)) return 1;
  void* pointer = nullptr;
  if (cudaIpcOpenMemHandle(&pointer, handle, cudaIpcMemLazyEnablePeerAccess) != cudaSuccess) {
    return 2;
  }
  uint64_t value = 0;
  if (cudaMemcpy(&value, pointer, sizeof value, cudaMemcpyDeviceToHost) != cudaSuccess) return 3;
  if (value != 42) return 4;
  value = 43;
  if (cudaMemcpy(pointer, &value, sizeof value, cudaMemcpyHostToDevice) != cudaSuccess) return 5;
  if (cudaDeviceSynchronize() != cudaSuccess) return 6;
  return cudaIpcCloseMemHandle(pointer) == cudaSuccess ? 0 : 7;
}

const bool kNoImporter = [] {
  if (getenv(kImporter) != nullptr) _exit(Import());
  return true;
}();

class Contexts : public SimTest {
 protected:
  static unsigned long long IdOf(CUcontext context) {
    unsigned long long id = 0;
    EXPECT_EQ(cuCtxGetId(context, &id), CUDA_SUCCESS);
    return id;
  }
};

TEST_F(Contexts, HandlesComeBackAndIdsDoNot) {
  const CUcontext first = NewContext();
  const auto first_id = IdOf(first);
  ASSERT_EQ(cuCtxDestroy(first), CUDA_SUCCESS);
  CUcontext current = nullptr;
  EXPECT_EQ(cuCtxGetCurrent(&current), CUDA_SUCCESS);
  EXPECT_EQ(current, context_);
  const CUcontext second = NewContext();
  EXPECT_EQ(second, first);
  EXPECT_NE(IdOf(second), first_id);
  ASSERT_EQ(cuCtxDestroy(second), CUDA_SUCCESS);
}

TEST_F(Contexts, DestroyRunsWhatIsPendingAndFreesTheMemory) {
  const CUdeviceptr mine = NewBlock(512);
  const CUcontext other = NewContext();
  const CUdeviceptr theirs = NewBlock(512);
  Store store{Word(mine), 1};
  LaunchStore(NewStream(), &store, 10 * kMillisecond);
  EXPECT_EQ(simLiveAllocations(0), 2U);
  ASSERT_EQ(cuCtxDestroy(other), CUDA_SUCCESS);
  EXPECT_EQ(*Word(mine), 1U);
  EXPECT_EQ(simLiveAllocations(0), 1U);
  EXPECT_EQ(cuMemFree(theirs), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(Contexts, FreeingAnotherContextsBlockWaitsForThatContext) {
  const CUcontext other = NewContext();
  const CUdeviceptr theirs = NewBlock(512);
  LaunchHash(NewStream(), 1, 10 * kMillisecond, {}, {{Word(theirs), 8}});
  cuCtxSetCurrent(context_);
  LaunchHash(NewStream(), 2, 10000 * kMillisecond, {}, {});
  ASSERT_EQ(cuMemFree(theirs), CUDA_SUCCESS);
  EXPECT_EQ(simPendingCount(other), 0U);
  EXPECT_EQ(simPendingCount(context_), 1U);
  ASSERT_EQ(cuCtxDestroy(other), CUDA_SUCCESS);
}

TEST_F(Contexts, ResetEndsThePrimaryContextUntilTheNextUse) {
  void* pointer = nullptr;
  ASSERT_EQ(cudaMalloc(&pointer, 512), cudaSuccess);
  const auto id = IdOf(context_);
  ASSERT_EQ(cudaDeviceReset(), cudaSuccess);
  EXPECT_EQ(simLiveAllocations(0), 0U);
  unsigned flags = 0;
  int active = 1;
  ASSERT_EQ(cuDevicePrimaryCtxGetState(0, &flags, &active), CUDA_SUCCESS);
  EXPECT_EQ(active, 0);
  CUdeviceptr block = 0;
  EXPECT_EQ(cuMemAlloc(&block, 512), CUDA_ERROR_CONTEXT_IS_DESTROYED);
  EXPECT_EQ(cudaFree(pointer), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMalloc(&pointer, 512), cudaSuccess);
  EXPECT_NE(IdOf(context_), id);
}

TEST_F(Contexts, ReleaseToZeroDeactivates) {
  ASSERT_EQ(cudaDeviceReset(), cudaSuccess);
  CUcontext primary = nullptr;
  ASSERT_EQ(cuDevicePrimaryCtxRetain(&primary, 0), CUDA_SUCCESS);
  EXPECT_EQ(primary, context_);
  ASSERT_EQ(cuDevicePrimaryCtxRetain(&primary, 0), CUDA_SUCCESS);
  unsigned flags = 0;
  int active = 0;
  ASSERT_EQ(cuDevicePrimaryCtxRelease(0), CUDA_SUCCESS);
  ASSERT_EQ(cuDevicePrimaryCtxGetState(0, &flags, &active), CUDA_SUCCESS);
  EXPECT_EQ(active, 1);
  ASSERT_EQ(cuDevicePrimaryCtxRelease(0), CUDA_SUCCESS);
  ASSERT_EQ(cuDevicePrimaryCtxGetState(0, &flags, &active), CUDA_SUCCESS);
  EXPECT_EQ(active, 0);
}

TEST_F(Contexts, AThreadWithoutAContextGetsThePrimaryOne) {
  const CUcontext current = [] {
    CUcontext found = nullptr;
    std::thread([&] {
      CUdeviceptr block = 0;
      EXPECT_EQ(cuMemAlloc(&block, 512), CUDA_ERROR_INVALID_CONTEXT);
      void* pointer = nullptr;
      EXPECT_EQ(cudaMalloc(&pointer, 512), cudaSuccess);
      cuCtxGetCurrent(&found);
    }).join();
    return found;
  }();
  EXPECT_EQ(current, context_);
}

TEST_F(Contexts, AForkedChildIsRefused) {
  const pid_t child = fork();
  if (child == 0) {
    void* pointer = nullptr;
    _exit(cudaMalloc(&pointer, 512) == cudaErrorInitializationError ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

// The device's memory is a file that another process finds by the handle.
TEST_F(Contexts, AnotherProcessReadsAnExportedBlock) {
  CUipcMemHandle handle;
  const CUdeviceptr neighbour = NewBlock(1000);
  const CUdeviceptr block = NewBlock(1000);
  *Word(neighbour) = 1;
  *Word(block) = 42;
  ASSERT_EQ(cuIpcGetMemHandle(&handle, block), CUDA_SUCCESS);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  ASSERT_EQ(write(ends[1], &handle, sizeof handle), static_cast<ssize_t>(sizeof handle));
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[0], 0);
    setenv(kImporter, "1", 1);
    execl("/proc/self/exe", "cmp_sim_test", nullptr);
    _exit(127);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(*Word(block), 43U);
  close(ends[0]);
  close(ends[1]);
}

// Deprecated, and still there.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
TEST_F(Contexts, AContextEndsWithItsLastDetach) {
  const CUcontext made = NewContext();
  CUcontext attached = nullptr;
  ASSERT_EQ(cuCtxAttach(&attached, 0), CUDA_SUCCESS);
  EXPECT_EQ(attached, made);
  NewBlock(size_t{4} << 20);
  EXPECT_EQ(cuCtxDetach(made), CUDA_SUCCESS);
  EXPECT_EQ(simLiveAllocations(0), 1U);
  EXPECT_EQ(cuCtxDetach(context_), CUDA_ERROR_INVALID_CONTEXT);  // not current
  EXPECT_EQ(cuCtxDetach(made), CUDA_SUCCESS);
  EXPECT_EQ(simLiveAllocations(0), 0U);
  CUcontext current = nullptr;
  ASSERT_EQ(cuCtxGetCurrent(&current), CUDA_SUCCESS);
  EXPECT_EQ(current, context_);
}
#pragma GCC diagnostic pop

}  // namespace
}  // namespace cmp::sim
