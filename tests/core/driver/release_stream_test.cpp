// How idle memory goes back: what the stream's driver calls come to, whatever they answer.
#include "core/driver/release_stream.h"

#include <gtest/gtest.h>

#include "core/driver/driver.h"

namespace cmp {
namespace {

// One at a time in a process, since the driver's table holds plain functions.
struct StreamDriver {
  static inline CUresult create = CUDA_SUCCESS;
  static inline CUresult free = CUDA_SUCCESS;
  static inline CUresult synchronize = CUDA_SUCCESS;
  static inline int streams = 0;
  static inline int frees = 0;
  static inline int pushed = 0;

  static Driver Table() {
    create = free = synchronize = CUDA_SUCCESS;
    streams = frees = pushed = 0;
    Driver driver;
    driver.push_current = [](CUcontext) { return ++pushed, CUDA_SUCCESS; };
    driver.pop_current = [](CUcontext*) { return --pushed, CUDA_SUCCESS; };
    driver.exchange_capture_mode = [](CUstreamCaptureMode*) { return CUDA_SUCCESS; };
    driver.stream_create = [](CUstream* stream, unsigned flags) {
      EXPECT_EQ(flags, static_cast<unsigned>(CU_STREAM_NON_BLOCKING));
      if (create != CUDA_SUCCESS) return create;
      *stream = reinterpret_cast<CUstream>(static_cast<uintptr_t>(++streams));
      return CUDA_SUCCESS;
    };
    driver.mem_free_async = [](CUdeviceptr, CUstream) {
      if (free == CUDA_SUCCESS) ++frees;
      return free;
    };
    driver.stream_synchronize = [](CUstream) { return synchronize; };
    return driver;
  }
};

class ReleaseStreamTest : public testing::Test {
 protected:
  int Free() { return stream_.Free(driver_, nullptr, 0x1000); }
  Driver driver_ = StreamDriver::Table();
  ReleaseStream stream_;
};

TEST_F(ReleaseStreamTest, OneStreamForAllFrees) {
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Free(), kSuccess);
  EXPECT_EQ(StreamDriver::streams, 1);
  EXPECT_EQ(StreamDriver::frees, 3);
  EXPECT_EQ(StreamDriver::pushed, 0);
}

TEST_F(ReleaseStreamTest, AnotherContextGetsAnotherStream) {
  EXPECT_EQ(Free(), kSuccess);
  stream_.Open();
  EXPECT_EQ(Free(), kSuccess);
  EXPECT_EQ(StreamDriver::streams, 2);
}

TEST_F(ReleaseStreamTest, WithoutTheFunctionOrRoomForAStreamNothingIsDone) {
  StreamDriver::create = CUDA_ERROR_OUT_OF_MEMORY;
  EXPECT_EQ(Free(), ReleaseStream::kUnavailable);
  StreamDriver::create = CUDA_SUCCESS;
  driver_.mem_free_async = nullptr;
  EXPECT_EQ(Free(), ReleaseStream::kUnavailable);
  EXPECT_EQ(StreamDriver::frees, 0);
}

TEST_F(ReleaseStreamTest, ARefusalIsForTheRealFreeToExplain) {
  for (const CUresult status : {CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_PERMITTED,
                                CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED}) {
    StreamDriver::free = status;
    EXPECT_EQ(Free(), ReleaseStream::kUnavailable) << status;
  }
}

TEST_F(ReleaseStreamTest, ABrokenContextIsTold) {
  StreamDriver::free = CUDA_ERROR_LAUNCH_FAILED;
  EXPECT_EQ(Free(), CUDA_ERROR_LAUNCH_FAILED);
  StreamDriver::free = CUDA_SUCCESS;
  StreamDriver::synchronize = CUDA_ERROR_ILLEGAL_ADDRESS;
  EXPECT_EQ(Free(), CUDA_ERROR_ILLEGAL_ADDRESS);
}

// Found by review: the block went back to the pool, and was freed twice.
TEST_F(ReleaseStreamTest, WhatWasAcceptedIsFreeWhateverTheSynchronisationAnswers) {
  StreamDriver::synchronize = CUDA_ERROR_MPS_CONNECTION_FAILED;
  EXPECT_EQ(Free(), kSuccess);
}

// The process remembers it, so this is a process of its own.
TEST_F(ReleaseStreamTest, NotSupportedIsNotAskedAgain) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        StreamDriver::free = CUDA_ERROR_NOT_SUPPORTED;
        const bool refused = Free() == ReleaseStream::kUnavailable;
        StreamDriver::free = CUDA_SUCCESS;
        const bool still = Free() == ReleaseStream::kUnavailable;
        std::_Exit(refused && still && StreamDriver::frees == 0 ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace cmp
