#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include "sim.h"

TEST(Runtime, AllocatesAndFrees) {
  void* p = nullptr;
  ASSERT_EQ(cudaMalloc(&p, 1000), cudaSuccess);
  EXPECT_NE(p, nullptr);
  EXPECT_EQ(cudaFree(p), cudaSuccess);
  EXPECT_EQ(simCallCount("cuMemFree_v2"), 1U);
  EXPECT_EQ(simCallCount("cudaMalloc"), 1U);
}
