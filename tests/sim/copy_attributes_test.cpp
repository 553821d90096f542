// Copies with attributes: when their source is read.
#include <cstring>
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
    block_ = NewBlock(size_t{1} << 20);
  }

  using Copy = std::function<CUresult(CUdeviceptr to, CUdeviceptr from, size_t bytes,
                                      CUmemcpySrcAccessOrder)>;
  std::vector<Copy> Copies() {
    return {
        [this](CUdeviceptr to, CUdeviceptr from, size_t bytes, CUmemcpySrcAccessOrder order) {
          CUmemcpyAttributes attributes{};
          attributes.srcAccessOrder = order;
          size_t first = 0;
          return cuMemcpyBatchAsync(&to, &from, &bytes, 1, &attributes, &first, 1, stream_);
        },
        [this](CUdeviceptr to, CUdeviceptr from, size_t bytes, CUmemcpySrcAccessOrder order) {
          CUDA_MEMCPY3D_BATCH_OP box = BoxOf(to, from, bytes, order);
          return cuMemcpy3DBatchAsync(1, &box, 0, stream_);
        },
        [this](CUdeviceptr to, CUdeviceptr from, size_t bytes, CUmemcpySrcAccessOrder order) {
          CUmemcpyAttributes attributes{};
          attributes.srcAccessOrder = order;
          return cuMemcpyWithAttributesAsync(to, from, bytes, &attributes, stream_);
        },
        [this](CUdeviceptr to, CUdeviceptr from, size_t bytes, CUmemcpySrcAccessOrder order) {
          CUDA_MEMCPY3D_BATCH_OP box = BoxOf(to, from, bytes, order);
          return cuMemcpy3DWithAttributesAsync(&box, 0, stream_);
        },
    };
  }
  static CUDA_MEMCPY3D_BATCH_OP BoxOf(CUdeviceptr to, CUdeviceptr from, size_t bytes,
                                      CUmemcpySrcAccessOrder order) {
    CUDA_MEMCPY3D_BATCH_OP box{};
    box.src.type = box.dst.type = CU_MEMCPY_OPERAND_TYPE_POINTER;
    box.src.op.ptr.ptr = from;
    box.dst.op.ptr.ptr = to;
    box.extent = {bytes, 1, 1};
    box.srcAccessOrder = order;
    return box;
  }
  // What arrives of a source that holds 1 at the call, behind long work, and 2 afterwards.
  struct Arrived {
    unsigned value;
    bool waited;
    bool operator==(const Arrived&) const = default;
  };
  Arrived Arrives(const Copy& copy, void* source, size_t bytes, CUmemcpySrcAccessOrder order) {
    LaunchHash(stream_, 1, 10 * kMillisecond, {}, {});
    std::memset(source, 1, bytes);
    EXPECT_EQ(copy(block_, reinterpret_cast<CUdeviceptr>(source), bytes, order), CUDA_SUCCESS);
    const bool waited = simPendingCount(nullptr) == 0;
    std::memset(source, 2, bytes);
    EXPECT_EQ(cuStreamSynchronize(stream_), CUDA_SUCCESS);
    return {reinterpret_cast<const unsigned char*>(block_)[bytes - 1], waited};
  }

  CUstream stream_ = nullptr;
  CUdeviceptr block_ = 0;
};

constexpr size_t kLittle = 64;
constexpr size_t kMuch = size_t{1} << 20;
constexpr auto kInOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
constexpr auto kDuring = CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL;
constexpr auto kAny = CU_MEMCPY_SRC_ACCESS_ORDER_ANY;

TEST_F(CopyAttributes, APageableSourceIsStagedWaitedForOrReadLater) {
  std::vector<unsigned char> source(kMuch);
  const Arrived staged{1, false};
  const Arrived waited{1, true};
  const Arrived later{2, false};
  for (const Copy& copy : Copies()) {
    EXPECT_EQ(Arrives(copy, source.data(), kLittle, kInOrder), waited);
    EXPECT_EQ(Arrives(copy, source.data(), kMuch, kInOrder), waited);
    EXPECT_EQ(Arrives(copy, source.data(), kLittle, kAny), staged);
    EXPECT_EQ(Arrives(copy, source.data(), kMuch, kAny), later);
    EXPECT_EQ(Arrives(copy, source.data(), kLittle, kDuring), staged);
    EXPECT_EQ(Arrives(copy, source.data(), kMuch, kDuring), later);
  }
}

TEST_F(CopyAttributes, APageLockedSourceIsReadLaterOrWaitedFor) {
  void* source = nullptr;
  ASSERT_EQ(cuMemHostAlloc(&source, kMuch, 0), CUDA_SUCCESS);
  const Arrived waited{1, true};
  const Arrived later{2, false};
  for (const Copy& copy : Copies()) {
    EXPECT_EQ(Arrives(copy, source, kLittle, kInOrder), later);
    EXPECT_EQ(Arrives(copy, source, kLittle, kAny), later);
    EXPECT_EQ(Arrives(copy, source, kLittle, kDuring), waited);
    EXPECT_EQ(copy(block_, block_ + 8, 8, CU_MEMCPY_SRC_ACCESS_ORDER_INVALID),
              CUDA_ERROR_INVALID_VALUE);
  }
}

TEST_F(CopyAttributes, APageableTargetIsNotWaitedFor) {
  for (const Copy& copy : Copies()) {
    const Store store{Word(block_), 7};
    LaunchStore(stream_, &store, 10 * kMillisecond);
    uint64_t target = 0;
    EXPECT_EQ(copy(reinterpret_cast<CUdeviceptr>(&target), block_, 8, kInOrder), CUDA_SUCCESS);
    EXPECT_EQ(target, 0U);
    EXPECT_EQ(cuStreamSynchronize(stream_), CUDA_SUCCESS);
    EXPECT_EQ(target, 7U);
  }
}

TEST_F(CopyAttributes, EachAppliesFromItsFirstCopyOn) {
  CUdeviceptr to[] = {block_, block_ + 8, block_ + 16};
  CUdeviceptr from[] = {block_ + 64, block_ + 72, block_ + 80};
  size_t bytes[] = {8, 8, 8};
  CUmemcpyAttributes attributes[2] = {};
  attributes[0].srcAccessOrder = kInOrder;
  attributes[1].srcAccessOrder = kDuring;
  size_t first[] = {0, 2};
  LaunchHash(stream_, 1, 10 * kMillisecond, {}, {});
  ASSERT_EQ(cuMemcpyBatchAsync(to, from, bytes, 2, attributes, first, 1, stream_), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamQuery(stream_), CUDA_ERROR_NOT_READY);
  ASSERT_EQ(cuMemcpyBatchAsync(to, from, bytes, 3, attributes, first, 2, stream_), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamQuery(stream_), CUDA_SUCCESS);
}

TEST_F(CopyAttributes, BoxesHaveRowsAndLayers) {
  uint8_t source[2 * 3 * 8];
  for (size_t i = 0; i < sizeof source; ++i) source[i] = static_cast<uint8_t>(i);
  CUDA_MEMCPY3D_BATCH_OP box = BoxOf(block_, reinterpret_cast<CUdeviceptr>(&source[0]), 4,
                                     CU_MEMCPY_SRC_ACCESS_ORDER_STREAM);
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
