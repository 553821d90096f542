// Submissions beside kernels and plain copies: each is work on its stream, with what it touches.
#include <cstring>
#include <functional>
#include <numeric>
#include <vector>

#include "test_device.h"

namespace cmp::sim {
namespace {

class Submission : public SimTest {
 protected:
  // `submit(stream)` comes after the stream's earlier work, and frees wait for it.
  void ExpectStreamOrder(const char* what, const std::function<CUresult(CUstream)>& submit) {
    const CUstream stream = NewStream();
    ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
    SimWork slow{};
    slow.duration_ns = 10 * kMillisecond;
    ASSERT_EQ(simLaunch(stream, &slow), CUDA_SUCCESS);
    ASSERT_EQ(submit(stream), CUDA_SUCCESS) << what;
    EXPECT_GE(simPendingCount(context_), 2U) << what;
    const CUdeviceptr block = NewBlock(256);
    ASSERT_EQ(cuMemFree(block), CUDA_SUCCESS) << what;
    EXPECT_EQ(simPendingCount(context_), 0U) << what;
  }
};

std::vector<unsigned char> Counting(size_t count) {
  std::vector<unsigned char> bytes(count);
  std::iota(bytes.begin(), bytes.end(), static_cast<unsigned char>(1));
  return bytes;
}

CUDA_MEMCPY2D Box(CUdeviceptr to, size_t to_pitch, CUdeviceptr from, size_t from_pitch,
                  size_t width, size_t height) {
  CUDA_MEMCPY2D box{};
  box.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  box.dstDevice = to;
  box.dstPitch = to_pitch;
  box.srcMemoryType = CU_MEMORYTYPE_DEVICE;
  box.srcDevice = from;
  box.srcPitch = from_pitch;
  box.WidthInBytes = width;
  box.Height = height;
  return box;
}

TEST_F(Submission, ABoxIsCopiedRowByRow) {
  const CUdeviceptr from = NewBlock(64);
  const CUdeviceptr to = NewBlock(64);
  const auto data = Counting(64);
  std::memcpy(Word(from), data.data(), 64);
  CUDA_MEMCPY2D box = Box(to, 10, from, 16, 3, 4);
  box.srcXInBytes = 2;
  box.srcY = 0;
  box.dstXInBytes = 1;
  box.dstY = 1;
  ASSERT_EQ(cuMemcpy2D(&box), CUDA_SUCCESS);
  ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  std::vector<unsigned char> expected(64, 0);
  for (size_t y = 0; y < 4; ++y) {
    for (size_t x = 0; x < 3; ++x) expected[(y + 1) * 10 + 1 + x] = data[y * 16 + 2 + x];
  }
  EXPECT_EQ(std::memcmp(Word(to), expected.data(), 64), 0);
}

TEST_F(Submission, ABoxFromAndToTheHost) {
  const CUdeviceptr block = NewBlock(64);
  auto data = Counting(64);
  CUDA_MEMCPY2D box = Box(block, 16, 0, 8, 8, 4);
  box.srcMemoryType = CU_MEMORYTYPE_HOST;
  box.srcHost = data.data();
  ASSERT_EQ(cuMemcpy2DUnaligned(&box), CUDA_SUCCESS);
  std::fill(data.begin(), data.begin() + 32, 0);  // the source was read already
  std::vector<unsigned char> back(32);
  CUDA_MEMCPY2D out = Box(0, 8, block, 16, 8, 4);
  out.dstMemoryType = CU_MEMORYTYPE_HOST;
  out.dstHost = back.data();
  ASSERT_EQ(cuMemcpy2D(&out), CUDA_SUCCESS);
  EXPECT_EQ(back, Counting(32));
}

TEST_F(Submission, ABoxOfThreeDimensions) {
  const CUdeviceptr from = NewBlock(2 * 4 * 8);
  const CUdeviceptr to = NewBlock(64);
  const auto data = Counting(64);
  std::memcpy(Word(from), data.data(), 64);
  CUDA_MEMCPY3D box{};
  box.srcMemoryType = CU_MEMORYTYPE_DEVICE;
  box.srcDevice = from;
  box.srcPitch = 8;
  box.srcHeight = 4;
  box.dstMemoryType = CU_MEMORYTYPE_UNIFIED;
  box.dstDevice = to;
  box.dstPitch = 4;
  box.dstHeight = 2;
  box.WidthInBytes = 4;
  box.Height = 2;
  box.Depth = 2;
  const CUstream stream = NewStream();
  ASSERT_EQ(cuMemcpy3DAsync(&box, stream), CUDA_SUCCESS);
  EXPECT_EQ(*Word(to), 0U);  // not yet
  ASSERT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  const auto* bytes = reinterpret_cast<unsigned char*>(to);
  for (size_t z = 0; z < 2; ++z) {
    for (size_t y = 0; y < 2; ++y) {
      for (size_t x = 0; x < 4; ++x) {
        EXPECT_EQ(bytes[z * 8 + y * 4 + x], data[z * 32 + y * 8 + x]) << z << y << x;
      }
    }
  }
}

TEST_F(Submission, WrongBoxesAreRefused) {
  const CUdeviceptr block = NewBlock(512);
  const CUdeviceptr other = NewBlock(512);
  CUDA_MEMCPY2D box = Box(block, 7, other, 16, 8, 4);
  EXPECT_EQ(cuMemcpy2D(&box), CUDA_ERROR_INVALID_VALUE);  // the rows overlap
  box = Box(block, 256, other, 16, 8, 4);
  EXPECT_EQ(cuMemcpy2D(&box), CUDA_ERROR_INVALID_VALUE);  // beyond the block
  box.dstPitch = 16;
  EXPECT_EQ(cuMemcpy2D(&box), CUDA_SUCCESS);
  box.dstMemoryType = CU_MEMORYTYPE_ARRAY;
  EXPECT_EQ(cuMemcpy2D(&box), CUDA_ERROR_NOT_SUPPORTED);
  EXPECT_EQ(cuMemcpy2D(nullptr), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(Submission, ABoxTouchesItsRowsAlone) {
  const CUdeviceptr block = NewBlock(4096);
  const CUdeviceptr other = NewBlock(4096);
  const CUstream stream = NewStream();
  SimWork slow{};
  slow.duration_ns = 10 * kMillisecond;
  ASSERT_EQ(simLaunch(stream, &slow), CUDA_SUCCESS);
  CUDA_MEMCPY2D box = Box(block, 1024, other, 1024, 256, 4);
  ASSERT_EQ(cuMemcpy2DAsync(&box, stream), CUDA_SUCCESS);
  simNoteAlloc(reinterpret_cast<void*>(block + 512), 256);  // between two rows
  EXPECT_EQ(simHazardCount(), 0U);
  simNoteAlloc(reinterpret_cast<void*>(block + 1024), 128);
  EXPECT_EQ(simHazardCount(), 1U);
  simNoteAlloc(reinterpret_cast<void*>(other + 3072), 128);
  EXPECT_EQ(simHazardCount(), 2U);
  expected_hazards_ = 2;
}

TEST_F(Submission, ABatchOfCopies) {
#if CUDA_VERSION >= 13000
  const CUdeviceptr a = NewBlock(64);
  const CUdeviceptr b = NewBlock(64);
  const CUstream stream = NewStream();
  *Word(a) = 7;
  CUdeviceptr to[] = {b, b + 8};
  CUdeviceptr from[] = {a, b};
  size_t bytes[] = {8, 8};
  CUmemcpyAttributes attributes{};
  attributes.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
  size_t index = 0;
  ASSERT_EQ(cuMemcpyBatchAsync(to, from, bytes, 2, &attributes, &index, 1, stream), CUDA_SUCCESS);
  EXPECT_EQ(*Word(b), 0U);
  ASSERT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  EXPECT_EQ(Word(b)[0], 7U);
  EXPECT_EQ(Word(b)[1], 7U);
  EXPECT_EQ(cuMemcpyBatchAsync(to, from, bytes, 2, &attributes, &index, 1, nullptr),
            CUDA_ERROR_INVALID_VALUE);
  to[1] = b + (size_t{512} << 20);  // nobody's
  EXPECT_EQ(cuMemcpyBatchAsync(to, from, bytes, 2, &attributes, &index, 1, stream),
            CUDA_ERROR_INVALID_VALUE);
#endif
}

TEST_F(Submission, AWaitForAValueEndsWithTheWrite) {
  const CUdeviceptr flag = NewBlock(8);
  const CUdeviceptr word = NewBlock(8);
  for (const uint64_t seed : {0, 1, 2}) {
    simSeed(seed);
    *Word(flag) = 0;
    *Word(word) = 0;
    const CUstream waiter = NewStream();
    const CUstream writer = NewStream();
    ASSERT_EQ(cuStreamWaitValue32(waiter, flag, 5, CU_STREAM_WAIT_VALUE_EQ), CUDA_SUCCESS);
    Store store{Word(word), 1};
    LaunchStore(waiter, &store, 0);
    simAdvance(1000 * kMillisecond);
    EXPECT_EQ(cuStreamQuery(waiter), CUDA_ERROR_NOT_READY);
    SimWork slow{};
    slow.duration_ns = 10 * kMillisecond;
    ASSERT_EQ(simLaunch(writer, &slow), CUDA_SUCCESS);
    ASSERT_EQ(cuStreamWriteValue32(writer, flag, 5, 0), CUDA_SUCCESS);
    EXPECT_EQ(*Word(word), 0U);
    ASSERT_EQ(cuStreamSynchronize(waiter), CUDA_SUCCESS) << seed;
    EXPECT_EQ(*Word(word), 1U);
    EXPECT_EQ(*Word(flag), 5U);
  }
}

TEST_F(Submission, AnyWriterEndsAWaitForAValue) {
  const CUdeviceptr flag = NewBlock(8);
  const CUstream waiter = NewStream();
  ASSERT_EQ(cuStreamWaitValue64(waiter, flag, 1, CU_STREAM_WAIT_VALUE_GEQ), CUDA_SUCCESS);
  Store store{Word(flag), 3};
  LaunchStore(NewStream(), &store, 10 * kMillisecond);
  ASSERT_EQ(cuStreamSynchronize(waiter), CUDA_SUCCESS);

  // The host, in page-locked memory, on the waiting thread's or on another one.
  void* locked = nullptr;
  ASSERT_EQ(cuMemHostAlloc(&locked, 8, CU_MEMHOSTALLOC_DEVICEMAP), CUDA_SUCCESS);
  volatile auto* word = static_cast<volatile uint32_t*>(locked);
  *word = 0;
  const auto address = reinterpret_cast<CUdeviceptr>(locked);
  ASSERT_EQ(cuStreamWaitValue32(waiter, address, 1, CU_STREAM_WAIT_VALUE_AND), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamQuery(waiter), CUDA_ERROR_NOT_READY);
  *word = 3;
  EXPECT_EQ(cuStreamQuery(waiter), CUDA_SUCCESS);
  *word = 0;
  ASSERT_EQ(cuStreamWaitValue32(waiter, address, 1, CU_STREAM_WAIT_VALUE_AND), CUDA_SUCCESS);
  std::thread host([word] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    __atomic_store_n(word, 1, __ATOMIC_RELAXED);
  });
  EXPECT_EQ(cuStreamSynchronize(waiter), CUDA_SUCCESS);
  host.join();
}

TEST_F(Submission, TheConditionsOfAWait) {
  const CUdeviceptr flag = NewBlock(8);
  const CUstream stream = NewStream();
  const auto holds = [&](uint32_t now, uint32_t wanted, unsigned condition) {
    *Word(flag) = now;
    EXPECT_EQ(cuStreamWaitValue32(stream, flag, wanted, condition), CUDA_SUCCESS);
    simAdvance(1000);
    const bool done = cuStreamQuery(stream) == CUDA_SUCCESS;
    if (!done) {  // end it
      EXPECT_EQ(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
      *Word(flag) = condition == CU_STREAM_WAIT_VALUE_NOR ? 0 : wanted;
      EXPECT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
    }
    return done;
  };
  EXPECT_TRUE(holds(5, 5, CU_STREAM_WAIT_VALUE_GEQ));
  EXPECT_FALSE(holds(4, 5, CU_STREAM_WAIT_VALUE_GEQ));
  EXPECT_TRUE(holds(1, 0xfffffff0, CU_STREAM_WAIT_VALUE_GEQ));  // cyclic
  EXPECT_TRUE(holds(5, 5, CU_STREAM_WAIT_VALUE_EQ));
  EXPECT_FALSE(holds(6, 5, CU_STREAM_WAIT_VALUE_EQ));
  EXPECT_TRUE(holds(6, 2, CU_STREAM_WAIT_VALUE_AND));
  EXPECT_FALSE(holds(4, 2, CU_STREAM_WAIT_VALUE_AND));
  EXPECT_TRUE(holds(4, 2, CU_STREAM_WAIT_VALUE_NOR));
  EXPECT_FALSE(holds(0xffffffff, 2, CU_STREAM_WAIT_VALUE_NOR));
}

TEST_F(Submission, WrongMemoryOperationsAreRefusedWhole) {
  const CUdeviceptr flag = NewBlock(8);
  const CUstream stream = NewStream();
  CUdeviceptr managed = 0;
  ASSERT_EQ(cuMemAllocManaged(&managed, 8, CU_MEM_ATTACH_GLOBAL), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamWriteValue32(stream, flag + 1, 1, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuStreamWriteValue64(stream, flag + 4, 1, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuStreamWriteValue32(stream, managed, 1, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuStreamWaitValue32(stream, flag, 1, 9), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuStreamWaitValue32(stream, flag, 1, CU_STREAM_WAIT_VALUE_FLUSH),
            CUDA_ERROR_NOT_SUPPORTED);
  CUstreamBatchMemOpParams batch[2] = {};
  batch[0].operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
  batch[0].writeValue.address = flag;
  batch[0].writeValue.value = 9;
  batch[1].operation = CU_STREAM_MEM_OP_WRITE_VALUE_64;
  batch[1].writeValue.address = flag + 4;
  EXPECT_EQ(cuStreamBatchMemOp(stream, 2, batch, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(simPendingCount(context_), 0U);
  batch[1].writeValue.address = flag;
  batch[1].writeValue.value64 = 10;
  EXPECT_EQ(cuStreamBatchMemOp(stream, 2, batch, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  EXPECT_EQ(*Word(flag), 10U);
}

TEST_F(Submission, AWaitOnFreedMemoryEndsAndIsReported) {
  const CUstream stream = NewStream();
  CUdeviceptr pooled = 0;
  ASSERT_EQ(cuMemAllocAsync(&pooled, 256, stream), CUDA_SUCCESS);
  SimWork slow{};
  slow.duration_ns = 10 * kMillisecond;
  ASSERT_EQ(simLaunch(stream, &slow), CUDA_SUCCESS);
  ASSERT_EQ(cuMemFreeAsync(pooled, stream), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamWaitValue32(stream, pooled, 1, 0), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  EXPECT_EQ(simHazardCount(), 1U);
  expected_hazards_ = 1;
}

TEST_F(Submission, AWaitThatNobodyEndsAborts) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(
      {
        CUstream stream = nullptr;
        CUdeviceptr flag = 0;
        cudaFree(nullptr);
        cuMemAlloc(&flag, 8);
        cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
        cuStreamWaitValue32(stream, flag, 1, 0);
        cuStreamSynchronize(stream);
      },
      "deadlock.*\n.*wait for a value");
}

TEST_F(Submission, EachKindComesInItsStreamsOrder) {
  const CUdeviceptr a = NewBlock(4096);
  const CUdeviceptr b = NewBlock(4096);
  CUdeviceptr managed = 0;
  ASSERT_EQ(cuMemAllocManaged(&managed, 4096, CU_MEM_ATTACH_GLOBAL), CUDA_SUCCESS);
  const CUDA_MEMCPY2D box = Box(a, 64, b, 64, 16, 4);
  ExpectStreamOrder("2D", [&](CUstream s) { return cuMemcpy2DAsync(&box, s); });
  CUDA_MEMCPY3D_PEER peer{};
  peer.srcMemoryType = peer.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  peer.srcDevice = a;
  peer.dstDevice = b;
  peer.WidthInBytes = 16;
  peer.Height = peer.Depth = 1;
  ExpectStreamOrder("3D peer", [&](CUstream s) { return cuMemcpy3DPeerAsync(&peer, s); });
  ExpectStreamOrder("write", [&](CUstream s) { return cuStreamWriteValue32(s, a, 1, 0); });
  ExpectStreamOrder("wait", [&](CUstream s) { return cuStreamWaitValue32(s, a, 1, 0); });
#if CUDA_VERSION >= 13000
  const CUmemLocation place{CU_MEM_LOCATION_TYPE_DEVICE, {0}};
  ExpectStreamOrder("prefetch",
                    [&](CUstream s) { return cuMemPrefetchAsync(managed, 4096, place, 0, s); });
#else
  ExpectStreamOrder("prefetch",
                    [&](CUstream s) { return cuMemPrefetchAsync(managed, 4096, 0, s); });
#endif
  ExpectStreamOrder("attach", [&](CUstream s) {
    return cuStreamAttachMemAsync(s, managed, 0, CU_MEM_ATTACH_GLOBAL);
  });
  CUgraph graph = nullptr;
  CUgraphExec exec = nullptr;
  ASSERT_EQ(cuGraphCreate(&graph, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuGraphInstantiate(&exec, graph, 0), CUDA_SUCCESS);
  ExpectStreamOrder("upload", [&](CUstream s) { return cuGraphUpload(exec, s); });
  cuGraphExecDestroy(exec);
  cuGraphDestroy(graph);
}

TEST_F(Submission, ABatchOfPrefetches) {
#if CUDA_VERSION >= 13000
  const CUstream stream = NewStream();
  CUdeviceptr managed[2] = {};
  size_t bytes[] = {4096, 8192};
  for (int i = 0; i < 2; ++i) {
    ASSERT_EQ(cuMemAllocManaged(&managed[i], bytes[i], CU_MEM_ATTACH_GLOBAL), CUDA_SUCCESS);
  }
  CUmemLocation places[] = {{CU_MEM_LOCATION_TYPE_DEVICE, {0}}, {CU_MEM_LOCATION_TYPE_DEVICE, {9}}};
  size_t indices[] = {0, 1};
  EXPECT_EQ(cuMemPrefetchBatchAsync(managed, bytes, 2, places, indices, 1, 0, stream),
            CUDA_SUCCESS);
  EXPECT_EQ(simPendingCount(context_), 2U);
  // The second place is the second range's.
  EXPECT_EQ(cuMemPrefetchBatchAsync(managed, bytes, 2, places, indices, 2, 0, stream),
            CUDA_ERROR_INVALID_DEVICE);
#endif
}

TEST_F(Submission, ManagedMemoryAlone) {
  const CUdeviceptr block = NewBlock(4096);
  const CUstream stream = NewStream();
#if CUDA_VERSION >= 13000
  const CUmemLocation place{CU_MEM_LOCATION_TYPE_DEVICE, {0}};
  EXPECT_EQ(cuMemPrefetchAsync(block, 4096, place, 0, stream), CUDA_ERROR_INVALID_VALUE);
#else
  EXPECT_EQ(cuMemPrefetchAsync(block, 4096, 0, stream), CUDA_ERROR_INVALID_VALUE);
#endif
  EXPECT_EQ(cuStreamAttachMemAsync(stream, block, 0, CU_MEM_ATTACH_GLOBAL),
            CUDA_ERROR_INVALID_VALUE);
}

TEST_F(Submission, MemoryOperationsAndBoxesCanBeCaptured) {
  const CUdeviceptr a = NewBlock(64);
  const CUdeviceptr b = NewBlock(64);
  const CUstream stream = NewStream();
  CUgraph graph = nullptr;
  CUgraphExec exec = nullptr;
  ASSERT_EQ(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamWriteValue32(stream, a, 4, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamWaitValue32(stream, a, 4, CU_STREAM_WAIT_VALUE_EQ), CUDA_SUCCESS);
  const CUDA_MEMCPY2D box = Box(b, 16, a, 16, 4, 2);
  ASSERT_EQ(cuMemcpy2DAsync(&box, stream), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamEndCapture(stream, &graph), CUDA_SUCCESS);
  EXPECT_EQ(*Word(a), 0U);
  ASSERT_EQ(cuGraphInstantiate(&exec, graph, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuGraphLaunch(exec, stream), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  EXPECT_EQ(*Word(b), 4U);
  // A synchronous box is no part of a capture.
  ASSERT_EQ(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  EXPECT_EQ(cuGraphUpload(exec, stream), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  EXPECT_EQ(cuStreamEndCapture(stream, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  cuGraphExecDestroy(exec);
}

}  // namespace
}  // namespace cmp::sim
