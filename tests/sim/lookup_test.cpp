// cuGetProcAddress and the runtime's way to the driver.
#include <dlfcn.h>

#include <algorithm>

#include "test_device.h"

namespace cmp::sim {
namespace {

class Lookup : public SimTest {
 protected:
  static void* Find(const char* name, int version, cuuint64_t flags = 0) {
    void* address = nullptr;
    EXPECT_EQ(cuGetProcAddress(name, &address, version, flags, nullptr), CUDA_SUCCESS) << name;
    return address;
  }
  static void* Symbol(const char* name) { return dlsym(RTLD_DEFAULT, name); }
};

TEST_F(Lookup, EachVersionIsItsOwnFunction) {
  EXPECT_EQ(Find("cuMemAlloc", 3020), Symbol("cuMemAlloc_v2"));
  EXPECT_EQ(Find("cuMemAlloc", 12000), Symbol("cuMemAlloc_v2"));
  EXPECT_EQ(Find("cuMemAlloc", 2000), Symbol("cuMemAlloc"));
  EXPECT_NE(Find("cuMemAlloc", 2000), Find("cuMemAlloc", 3020));
  EXPECT_EQ(Find("cuDevicePrimaryCtxReset", 7000), Symbol("cuDevicePrimaryCtxReset"));
  EXPECT_EQ(Find("cuDevicePrimaryCtxReset", 11000), Symbol("cuDevicePrimaryCtxReset_v2"));
  EXPECT_EQ(Find("cuGetProcAddress", 11030), Symbol("cuGetProcAddress"));
  EXPECT_EQ(Find("cuGetProcAddress", 12000), Symbol("cuGetProcAddress_v2"));
}

TEST_F(Lookup, PerThreadVariants) {
  constexpr auto kPerThread = CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
  EXPECT_EQ(Find("cuMemAllocAsync", 11020), Symbol("cuMemAllocAsync"));
  EXPECT_EQ(Find("cuMemAllocAsync", 11020, kPerThread), Symbol("cuMemAllocAsync_ptsz"));
  EXPECT_EQ(Find("cuMemcpyDtoH", 7000, kPerThread), Symbol("cuMemcpyDtoH_v2_ptds"));
  EXPECT_EQ(Find("cuMemcpyDtoH", 4000, kPerThread), Symbol("cuMemcpyDtoH_v2"));
  EXPECT_EQ(Find("cuMemAlloc", 12000, kPerThread), Symbol("cuMemAlloc_v2"));
}

TEST_F(Lookup, StatusSaysWhy) {
  void* address = &address;
  CUdriverProcAddressQueryResult status{};
  EXPECT_EQ(cuGetProcAddress("cuMemAllocAsync", &address, 10000, 0, &status), CUDA_SUCCESS);
  EXPECT_EQ(status, CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT);
  EXPECT_EQ(address, nullptr);
  EXPECT_EQ(cuGetProcAddress("cuMemAlloc_v2", &address, 12000, 0, &status), CUDA_SUCCESS);
  EXPECT_EQ(status, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
  EXPECT_EQ(cuGetProcAddress("cuMemAlloc", &address, 99000, 0, &status), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(Lookup, EveryFunctionOfTheTableIsTheSymbolOfThatName) {
  int newest = 0;
  ASSERT_EQ(cuDriverGetVersion(&newest), CUDA_SUCCESS);
  const auto expect = [&](const char* name, int version, const char* symbol, cuuint64_t flags = 0) {
    void* const expected = version <= newest ? Symbol(symbol) : nullptr;
    EXPECT_EQ(Find(name, std::min(version, newest), flags), expected) << symbol;
  };
#define CMP_SIM_FUNCTION(name, version, symbol) expect(#name, version, #symbol);
#define CMP_SIM_STREAM_FUNCTION(name, version, symbol, per_thread_version, per_thread) \
  expect(#name, version, #symbol);                                                     \
  expect(#name, per_thread_version, #per_thread, CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM);
#include "driver_functions.inc"
#undef CMP_SIM_FUNCTION
#undef CMP_SIM_STREAM_FUNCTION
}

TEST_F(Lookup, TheRuntimeHandsOutTheSame) {
  void* address = nullptr;
  cudaDriverEntryPointQueryResult status{};
#if CUDART_VERSION >= 12050
  ASSERT_EQ(
      cudaGetDriverEntryPointByVersion("cuMemFree", &address, 12000, cudaEnableDefault, &status),
      cudaSuccess);
#else
  ASSERT_EQ(cudaGetDriverEntryPoint("cuMemFree", &address, cudaEnableDefault, &status),
            cudaSuccess);
#endif
  EXPECT_EQ(status, cudaDriverEntryPointSuccess);
  EXPECT_EQ(address, Symbol("cuMemFree_v2"));
#if CUDART_VERSION >= 12050
  ASSERT_EQ(cudaGetDriverEntryPointByVersion("cuStreamQuery", &address, 12000,
                                             cudaEnablePerThreadDefaultStream, &status),
            cudaSuccess);
  EXPECT_EQ(address, Symbol("cuStreamQuery_ptsz"));
#endif
}

}  // namespace
}  // namespace cmp::sim
