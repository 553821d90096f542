// Green contexts: whose memory, whose streams, and what covers them.
#include "test_device.h"

namespace cmp::sim {
namespace {

class GreenContexts : public SimTest {
 protected:
  static CUgreenCtx NewGreenContext() {
    CUdevResource all{};
    CUdevResource half{};
    unsigned groups = 1;
    CUdevResourceDesc description = nullptr;
    CUgreenCtx green = nullptr;
    EXPECT_EQ(cuDeviceGetDevResource(0, &all, CU_DEV_RESOURCE_TYPE_SM), CUDA_SUCCESS);
    EXPECT_EQ(cuDevSmResourceSplitByCount(&half, &groups, &all, nullptr, 0, all.sm.smCount / 2),
              CUDA_SUCCESS);
    EXPECT_EQ(groups, 1U);
    EXPECT_LT(half.sm.smCount, all.sm.smCount);
    EXPECT_EQ(cuDevResourceGenerateDesc(&description, &half, 1), CUDA_SUCCESS);
    EXPECT_EQ(cuGreenCtxCreate(&green, description, 0, CU_GREEN_CTX_DEFAULT_STREAM), CUDA_SUCCESS);
    return green;
  }
};

TEST_F(GreenContexts, MemoryIsThePrimarysOwn) {
  const CUgreenCtx green = NewGreenContext();
  CUcontext context = nullptr;
  ASSERT_EQ(cuCtxFromGreenCtx(&context, green), CUDA_SUCCESS);
  EXPECT_NE(context, context_);
  ASSERT_EQ(cuCtxSetCurrent(context), CUDA_SUCCESS);
  const CUdeviceptr block = NewBlock(256);
  CUcontext owner = nullptr;
  ASSERT_EQ(cuPointerGetAttribute(&owner, CU_POINTER_ATTRIBUTE_CONTEXT, block), CUDA_SUCCESS);
  EXPECT_EQ(owner, context_);
  EXPECT_EQ(cuCtxDestroy(context), CUDA_ERROR_INVALID_CONTEXT);
  ASSERT_EQ(cuCtxSetCurrent(context_), CUDA_SUCCESS);
  ASSERT_EQ(cuGreenCtxDestroy(green), CUDA_SUCCESS);
  EXPECT_EQ(cuGreenCtxDestroy(green), CUDA_ERROR_INVALID_CONTEXT);
  EXPECT_EQ(cuMemFree(block), CUDA_SUCCESS);
}

#if CUDA_VERSION >= 12050
TEST_F(GreenContexts, ThePrimarysFencesAndFreesCoverThem) {
  const CUgreenCtx green = NewGreenContext();
  const CUdeviceptr word = NewBlock(8);
  const CUevent event = NewEvent();
  CUstream stream = nullptr;
  ASSERT_EQ(cuGreenCtxStreamCreate(&stream, green, CU_STREAM_NON_BLOCKING, 0), CUDA_SUCCESS);
  EXPECT_EQ(cuGreenCtxStreamCreate(&stream, green, 0, 0), CUDA_ERROR_INVALID_VALUE);
  Store store{Word(word), 1};
  LaunchStore(stream, &store, 10 * kMillisecond);
  ASSERT_EQ(cuCtxRecordEvent(context_, event), CUDA_SUCCESS);
  EXPECT_EQ(cuEventQuery(event), CUDA_ERROR_NOT_READY);
  ASSERT_EQ(cuMemFree(NewBlock(256)), CUDA_SUCCESS);
  EXPECT_EQ(*Word(word), 1U);

  // What the primary context waits for, its green ones wait for, too.
  const CUstream other = NewStream();
  Store slow{Word(word), 2};
  LaunchStore(other, &slow, 10 * kMillisecond);
  ASSERT_EQ(cuCtxRecordEvent(context_, event), CUDA_SUCCESS);
  ASSERT_EQ(cuCtxWaitEvent(context_, event), CUDA_SUCCESS);
  Store quick{Word(word), 3};
  LaunchStore(stream, &quick, 0);
  ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(*Word(word), 3U);

  // Not the other way round.
  CUcontext context = nullptr;
  ASSERT_EQ(cuCtxFromGreenCtx(&context, green), CUDA_SUCCESS);
  LaunchStore(other, &slow, 10 * kMillisecond);
  ASSERT_EQ(cuCtxSetCurrent(context), CUDA_SUCCESS);
  ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(*Word(word), 3U);
  ASSERT_EQ(cuCtxSetCurrent(context_), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamDestroy(stream), CUDA_SUCCESS);
  ASSERT_EQ(cuGreenCtxDestroy(green), CUDA_SUCCESS);
}
#endif

TEST_F(GreenContexts, TheyEndWithTheDevicesReset) {
  const CUgreenCtx green = NewGreenContext();
  CUcontext context = nullptr;
  ASSERT_EQ(cuCtxFromGreenCtx(&context, green), CUDA_SUCCESS);
  ASSERT_EQ(cudaDeviceReset(), cudaSuccess);
  EXPECT_EQ(cuCtxSetCurrent(context), CUDA_ERROR_INVALID_CONTEXT);
  EXPECT_EQ(cuGreenCtxDestroy(green), CUDA_ERROR_CONTEXT_IS_DESTROYED);
}

}  // namespace
}  // namespace cmp::sim
