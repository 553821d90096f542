// Calls that end something and wait for nothing, as measured on an H200: what pending work still
// uses is reported, and not done.
#include <cstring>
#include <functional>

#include "test_device.h"

namespace cmp::sim {
namespace {

class Destruction : public SimTest {
 protected:
  CUtexObject NewTexture() {
    CUDA_RESOURCE_DESC resource{};
    resource.resType = CU_RESOURCE_TYPE_LINEAR;
    resource.res.linear.devPtr = NewBlock(4096);
    resource.res.linear.sizeInBytes = 4096;
    resource.res.linear.format = CU_AD_FORMAT_FLOAT;
    resource.res.linear.numChannels = 1;
    const CUDA_TEXTURE_DESC description{};
    CUtexObject texture = 0;
    EXPECT_EQ(cuTexObjectCreate(&texture, &resource, &description, nullptr), CUDA_SUCCESS);
    return texture;
  }
  static CUsurfObject NewSurface() {
    CUDA_ARRAY_DESCRIPTOR shape{64, 64, CU_AD_FORMAT_FLOAT, 1};
    CUDA_RESOURCE_DESC resource{};
    resource.resType = CU_RESOURCE_TYPE_ARRAY;
    EXPECT_EQ(cuArrayCreate(&resource.res.array.hArray, &shape), CUDA_SUCCESS);
    CUsurfObject surface = 0;
    EXPECT_EQ(cuSurfObjectCreate(&surface, &resource), CUDA_SUCCESS);
    return surface;
  }
  static CUdeviceptr Map(size_t bytes) {
    CUmemAllocationProp properties{};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    CUmemGenericAllocationHandle handle = 0;
    CUdeviceptr start = 0;
    EXPECT_EQ(cuMemCreate(&handle, bytes, &properties, 0), CUDA_SUCCESS);
    EXPECT_EQ(cuMemAddressReserve(&start, bytes, 0, 0, 0), CUDA_SUCCESS);
    EXPECT_EQ(cuMemMap(start, bytes, 0, handle, 0), CUDA_SUCCESS);
    EXPECT_EQ(Allow(start, bytes, CU_MEM_ACCESS_FLAGS_PROT_READWRITE), CUDA_SUCCESS);
    EXPECT_EQ(cuMemRelease(handle), CUDA_SUCCESS);
    return start;
  }
  static CUresult Allow(CUdeviceptr start, size_t bytes, CUmemAccess_flags flags) {
    CUmemAccessDesc access{};
    access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    access.flags = flags;
    return cuMemSetAccess(start, bytes, &access, 1);
  }
  static void LaunchUsing(CUstream stream, unsigned long long object) {
    SimWork work{};
    work.duration_ns = kLong;
    work.objects = &object;
    work.object_count = 1;
    ASSERT_EQ(simLaunch(stream, &work), CUDA_SUCCESS);
  }
  // `end` waits for nothing; the pending work is a hazard then or when it would run.
  void ExpectHazard(const char* words, const std::function<CUresult()>& end) {
    ASSERT_EQ(simPendingCount(context_), 1U) << words;
    const uint64_t before = simHazardCount();
    EXPECT_EQ(end(), CUDA_SUCCESS) << words;
    EXPECT_EQ(simPendingCount(context_), 1U) << words;
    EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS) << words;
    EXPECT_EQ(simHazardCount(), before + 1) << words;
    EXPECT_NE(strstr(simHazardReport(), words), nullptr) << simHazardReport();
    expected_hazards_ = simHazardCount();
  }
};

TEST_F(Destruction, ObjectsThatPendingWorkUses) {
  const CUstream stream = NewStream();
  const CUtexObject texture = NewTexture();
  const CUsurfObject surface = NewSurface();
  LaunchUsing(stream, texture);
  LaunchUsing(stream, surface);
  ASSERT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  EXPECT_EQ(cuSurfObjectDestroy(texture), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(simHazardCount(), 0U);
  LaunchUsing(stream, texture);
  ExpectHazard("which was destroyed", [=] { return cuTexObjectDestroy(texture); });
  LaunchUsing(stream, surface);
  ExpectHazard("which was destroyed", [=] { return cuSurfObjectDestroy(surface); });
  EXPECT_EQ(cuTexObjectDestroy(texture), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(Destruction, AnObjectWithTheSameHandleIsAnother) {
  const CUstream stream = NewStream();
  const CUtexObject texture = NewTexture();
  LaunchUsing(stream, texture);
  ExpectHazard("which was destroyed", [&] {
    EXPECT_EQ(cuTexObjectDestroy(texture), CUDA_SUCCESS);
    EXPECT_EQ(NewTexture(), texture);
    return CUDA_SUCCESS;
  });
  CUtexObject none = 0;
  CUDA_RESOURCE_DESC resource{};
  resource.resType = CU_RESOURCE_TYPE_LINEAR;
  resource.res.linear.sizeInBytes = 64;
  const CUDA_TEXTURE_DESC description{};
  EXPECT_EQ(cuTexObjectCreate(&none, &resource, &description, nullptr), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(Destruction, MappingsUnderPendingWork) {
  const CUstream stream = NewStream();
  CUdeviceptr start = Map(2 * kMiB);
  LaunchHash(stream, 1, kLong, {{Word(start), 8}}, {});
  ExpectHazard("unmapped", [=] {
    const CUresult unmapped = cuMemUnmap(start, 2 * kMiB);
    return unmapped == CUDA_SUCCESS ? cuMemAddressFree(start, 2 * kMiB) : unmapped;
  });
  start = Map(2 * kMiB);
  LaunchHash(stream, 2, kLong, {{Word(start), 8}}, {});
  EXPECT_EQ(Allow(start, 2 * kMiB, CU_MEM_ACCESS_FLAGS_PROT_READ), CUDA_SUCCESS);
  EXPECT_EQ(simHazardCount(), 1U);  // it reads
  ExpectHazard("made inaccessible",
               [=] { return Allow(start, 2 * kMiB, CU_MEM_ACCESS_FLAGS_PROT_NONE); });
  EXPECT_EQ(Allow(start, 2 * kMiB, CU_MEM_ACCESS_FLAGS_PROT_READWRITE), CUDA_SUCCESS);
  LaunchHash(stream, 3, kLong, {}, {{Word(start), 8}});
  ExpectHazard("made inaccessible",
               [=] { return Allow(start, 2 * kMiB, CU_MEM_ACCESS_FLAGS_PROT_READ); });
  EXPECT_EQ(cuMemUnmap(start, 2 * kMiB), CUDA_SUCCESS);
  EXPECT_EQ(cuMemAddressFree(start, 2 * kMiB), CUDA_SUCCESS);
}

TEST_F(Destruction, StreamOrderedMemoryUnderPendingWork) {
  const CUstream stream = NewStream();
  CUdeviceptr pooled = 0;
  ASSERT_EQ(cuMemAllocAsync(&pooled, 256, stream), CUDA_SUCCESS);
  LaunchHash(stream, 1, kLong, {}, {{Word(pooled), 8}});
  ExpectHazard("freed without a wait", [=] { return cuMemFree(pooled); });
  ASSERT_EQ(cuMemAllocAsync(&pooled, 256, stream), CUDA_SUCCESS);
  LaunchHash(stream, 1, kLong, {}, {{Word(pooled), 8}});
  ASSERT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  LaunchHash(stream, 1, kLong, {}, {});
  EXPECT_EQ(cudaFree(Word(pooled)), cudaSuccess);
  EXPECT_EQ(simPendingCount(context_), 1U);
}

TEST_F(Destruction, AModulesVariablesEndWithIt) {
  const CUstream stream = NewStream();
  LaunchHash(stream, 1, kLong, {}, {});
  CUmodule module = nullptr;
  ASSERT_EQ(cuModuleLoadData(&module, "global x 64; managed y 64;"), CUDA_SUCCESS);
  EXPECT_EQ(simPendingCount(context_), 0U);  // loading waits
  CUdeviceptr x = 0;
  CUdeviceptr y = 0;
  size_t bytes = 0;
  ASSERT_EQ(cuModuleGetGlobal(&x, &bytes, module, "x"), CUDA_SUCCESS);
  EXPECT_EQ(bytes, 64U);
  ASSERT_EQ(cuModuleGetGlobal(&y, nullptr, module, "y"), CUDA_SUCCESS);
  EXPECT_EQ(cuModuleGetGlobal(&y, nullptr, module, "z"), CUDA_ERROR_NOT_FOUND);
  for (const auto& [address, expected] : {std::pair{x, 0U}, std::pair{y, 1U}}) {
    unsigned managed = 7;
    ASSERT_EQ(cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, address),
              CUDA_SUCCESS);
    EXPECT_EQ(managed, expected);
    EXPECT_EQ(cuMemFree(address), CUDA_ERROR_INVALID_VALUE);
  }
  LaunchHash(stream, 1, kLong, {}, {{Word(x), 64}, {Word(y), 64}});
  EXPECT_EQ(cuModuleUnload(module), CUDA_SUCCESS);
  EXPECT_EQ(simPendingCount(context_), 0U);  // unloading waits
  EXPECT_EQ(cuModuleUnload(module), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(cuMemsetD8(x, 0, 1), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuModuleLoadData(&module, "ELF"), CUDA_ERROR_INVALID_IMAGE);
}

TEST_F(Destruction, ALibrarysVariablesUnderPendingWork) {
  const CUstream stream = NewStream();
  const auto load = [] {
    CUlibrary library = nullptr;
    EXPECT_EQ(cuLibraryLoadData(&library, "global x 64; managed y 64", nullptr, nullptr, 0, nullptr,
                                nullptr, 0),
              CUDA_SUCCESS);
    return library;
  };
  CUlibrary library = load();
  CUdeviceptr x = 0;
  CUdeviceptr y = 0;
  CUdeviceptr again = 0;
  ASSERT_EQ(cuLibraryGetGlobal(&x, nullptr, library, "x"), CUDA_SUCCESS);
  ASSERT_EQ(cuLibraryGetGlobal(&again, nullptr, library, "x"), CUDA_SUCCESS);
  EXPECT_EQ(again, x);
  EXPECT_EQ(cuLibraryGetGlobal(&again, nullptr, library, "y"), CUDA_ERROR_NOT_FOUND);
  EXPECT_EQ(cuLibraryGetManaged(&again, nullptr, library, "x"), CUDA_ERROR_NOT_FOUND);
  LaunchHash(stream, 1, kLong, {}, {{Word(x), 8}});
  ExpectHazard("unloaded without a wait", [=] { return cuLibraryUnload(library); });
  library = load();
  ASSERT_EQ(cuLibraryGetManaged(&y, nullptr, library, "y"), CUDA_SUCCESS);
  EXPECT_EQ(*Word(y), 0U);  // the host reads it, too
  LaunchHash(stream, 1, kLong, {{Word(y), 8}}, {});
  ExpectHazard("unloaded without a wait", [=] { return cuLibraryUnload(library); });
  EXPECT_EQ(cuLibraryUnload(library), CUDA_ERROR_INVALID_HANDLE);
}

TEST_F(Destruction, AContextEndsItsModulesAndItsVariablesOfLibraries) {
  CUlibrary library = nullptr;
  CUmodule module = nullptr;
  CUdeviceptr x = 0;
  ASSERT_EQ(cuLibraryLoadData(&library, "global x 64", nullptr, nullptr, 0, nullptr, nullptr, 0),
            CUDA_SUCCESS);
  ASSERT_EQ(cuLibraryGetGlobal(&x, nullptr, library, "x"), CUDA_SUCCESS);
  ASSERT_EQ(cuModuleLoadData(&module, "global x 64"), CUDA_SUCCESS);
  ASSERT_EQ(cudaDeviceReset(), cudaSuccess);
  ASSERT_EQ(cudaFree(nullptr), cudaSuccess);
  EXPECT_EQ(simUsedBytes(0), 0U);
  EXPECT_EQ(cuModuleUnload(module), CUDA_ERROR_INVALID_HANDLE);
  const CUdeviceptr block = NewBlock(64);
  EXPECT_EQ(block, x);  // somebody else's by now
  EXPECT_EQ(cuLibraryUnload(library), CUDA_SUCCESS);
  EXPECT_EQ(cuMemFree(block), CUDA_SUCCESS);
}

}  // namespace
}  // namespace cmp::sim
