// Copies with attributes: when their source is read.
#include <functional>

#include "test_device.h"

#if CUDA_VERSION >= 13000

namespace cmp::sim {
namespace {

class CopyAttributes : public SimTest {
 protected:
  void SetUp() override {
    SimTest::SetUp();
    stream_ = NewStream();
    block_ = NewBlock(4096);
  }

  // Of one word, behind long work.
  using Copy = std::function<CUresult(CUdeviceptr to, CUdeviceptr from, CUmemcpySrcAccessOrder)>;
  std::vector<Copy> Copies() {
    return {
        [this](CUdeviceptr to, CUdeviceptr from, CUmemcpySrcAccessOrder order) {
          CUmemcpyAttributes attributes{};
          attributes.srcAccessOrder = order;
          size_t bytes = 8;
          size_t first = 0;
          return cuMemcpyBatchAsync(&to, &from, &bytes, 1, &attributes, &first, 1, stream_);
        },
        [this](CUdeviceptr to, CUdeviceptr from, CUmemcpySrcAccessOrder order) {
          CUDA_MEMCPY3D_BATCH_OP box = BoxOf(to, from, order);
          return cuMemcpy3DBatchAsync(1, &box, 0, stream_);
        },
        [this](CUdeviceptr to, CUdeviceptr from, CUmemcpySrcAccessOrder order) {
          CUmemcpyAttributes attributes{};
          attributes.srcAccessOrder = order;
          return cuMemcpyWithAttributesAsync(to, from, 8, &attributes, stream_);
        },
        [this](CUdeviceptr to, CUdeviceptr from, CUmemcpySrcAccessOrder order) {
          CUDA_MEMCPY3D_BATCH_OP box = BoxOf(to, from, order);
          return cuMemcpy3DWithAttributesAsync(&box, 0, stream_);
        },
    };
  }
  static CUDA_MEMCPY3D_BATCH_OP BoxOf(CUdeviceptr to, CUdeviceptr from,
                                      CUmemcpySrcAccessOrder order) {
    CUDA_MEMCPY3D_BATCH_OP box{};
    box.src.type = box.dst.type = CU_MEMCPY_OPERAND_TYPE_POINTER;
    box.src.op.ptr.ptr = from;
    box.dst.op.ptr.ptr = to;
    box.extent = {8, 1, 1};
    box.srcAccessOrder = order;
    return box;
  }
  // What arrives of a source that holds 1 at the call and 2 afterwards.
  uint64_t Arrives(const Copy& copy, uint64_t* source, CUmemcpySrcAccessOrder order) {
    LaunchHash(stream_, 1, 10 * kMillisecond, {}, {});
    *source = 1;
    EXPECT_EQ(copy(block_, reinterpret_cast<CUdeviceptr>(source), order), CUDA_SUCCESS);
    EXPECT_EQ(cuStreamQuery(stream_), CUDA_ERROR_NOT_READY);
    *source = 2;
    EXPECT_EQ(cuStreamSynchronize(stream_), CUDA_SUCCESS);
    return *Word(block_);
  }

  CUstream stream_ = nullptr;
  CUdeviceptr block_ = 0;
};

TEST_F(CopyAttributes, ASourceIsReadWhenTheySay) {
  uint64_t pageable = 0;
  void* locked = nullptr;
  ASSERT_EQ(cuMemHostAlloc(&locked, 8, 0), CUDA_SUCCESS);
  for (const Copy& copy : Copies()) {
    for (uint64_t* source : {&pageable, static_cast<uint64_t*>(locked)}) {
      EXPECT_EQ(Arrives(copy, source, CU_MEMCPY_SRC_ACCESS_ORDER_STREAM), 2U);
      EXPECT_EQ(Arrives(copy, source, CU_MEMCPY_SRC_ACCESS_ORDER_ANY), 2U);
      EXPECT_EQ(Arrives(copy, source, CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL), 1U);
    }
    EXPECT_EQ(copy(block_, block_ + 8, CU_MEMCPY_SRC_ACCESS_ORDER_INVALID),
              CUDA_ERROR_INVALID_VALUE);
  }
}

// What is in pageable memory afterwards is there when the call returns.
TEST_F(CopyAttributes, APageableTargetIsWaitedFor) {
  for (const Copy& copy : Copies()) {
    const Store store{Word(block_), 7};
    LaunchStore(stream_, &store, 10 * kMillisecond);
    uint64_t target = 0;
    EXPECT_EQ(
        copy(reinterpret_cast<CUdeviceptr>(&target), block_, CU_MEMCPY_SRC_ACCESS_ORDER_STREAM),
        CUDA_SUCCESS);
    EXPECT_EQ(target, 7U);
    EXPECT_EQ(cuStreamQuery(stream_), CUDA_SUCCESS);
  }
}

TEST_F(CopyAttributes, EachAppliesFromItsFirstCopyOn) {
  uint64_t sources[] = {1, 1, 1};
  CUdeviceptr to[] = {block_, block_ + 8, block_ + 16};
  CUdeviceptr from[] = {reinterpret_cast<CUdeviceptr>(&sources[0]),
                        reinterpret_cast<CUdeviceptr>(&sources[1]),
                        reinterpret_cast<CUdeviceptr>(&sources[2])};
  size_t bytes[] = {8, 8, 8};
  CUmemcpyAttributes attributes[2] = {};
  attributes[0].srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL;
  attributes[1].srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_ANY;
  size_t first[] = {0, 2};
  LaunchHash(stream_, 1, 10 * kMillisecond, {}, {});
  ASSERT_EQ(cuMemcpyBatchAsync(to, from, bytes, 3, attributes, first, 2, stream_), CUDA_SUCCESS);
  for (uint64_t& source : sources) source = 2;
  ASSERT_EQ(cuStreamSynchronize(stream_), CUDA_SUCCESS);
  EXPECT_EQ(Word(block_)[0], 1U);
  EXPECT_EQ(Word(block_)[1], 1U);
  EXPECT_EQ(Word(block_)[2], 2U);
}

TEST_F(CopyAttributes, BoxesHaveRowsAndLayers) {
  uint8_t source[2 * 3 * 8];
  for (size_t i = 0; i < sizeof source; ++i) source[i] = static_cast<uint8_t>(i);
  CUDA_MEMCPY3D_BATCH_OP box =
      BoxOf(block_, reinterpret_cast<CUdeviceptr>(&source[0]), CU_MEMCPY_SRC_ACCESS_ORDER_STREAM);
  box.extent = {4, 2, 2};
  box.src.op.ptr.rowLength = 8;
  box.src.op.ptr.layerHeight = 3;
  ASSERT_EQ(cuMemcpy3DBatchAsync(1, &box, 0, stream_), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamSynchronize(stream_), CUDA_SUCCESS);
  const auto* copied = reinterpret_cast<const uint8_t*>(block_);
  for (size_t z = 0; z < 2; ++z) {
    for (size_t y = 0; y < 2; ++y) {
      for (size_t x = 0; x < 4; ++x) EXPECT_EQ(copied[z * 8 + y * 4 + x], z * 24 + y * 8 + x);
    }
  }
  box.src.type = CU_MEMCPY_OPERAND_TYPE_ARRAY;
  EXPECT_EQ(cuMemcpy3DBatchAsync(1, &box, 0, stream_), CUDA_ERROR_NOT_SUPPORTED);
  EXPECT_EQ(cuMemcpy3DBatchAsync(1, &box, 0, nullptr), CUDA_ERROR_INVALID_VALUE);
}

}  // namespace
}  // namespace cmp::sim

#endif
