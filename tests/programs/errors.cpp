// Every wrong or unusual call of cudaMalloc and cudaFree, with the last error after each.
#include <initializer_list>

#include "program.h"

using program::Allocate;
using program::Say;

namespace {

void SayAndClear(const char* what, cudaError_t result) {
  Say(what, result);
  const int cleared = cudaGetLastError();
  printf("  cleared %d, then %d\n", cleared, static_cast<int>(cudaGetLastError()));
}

void* const kUntouched = reinterpret_cast<void*>(0x1234);

void Allocations() {
  SayAndClear("cudaMalloc(NULL, 16)", cudaMalloc(nullptr, 16));
  SayAndClear("cudaMalloc(NULL, 0)", cudaMalloc(nullptr, 0));
  void* pointer = kUntouched;
  SayAndClear("cudaMalloc(&p, 0)", cudaMalloc(&pointer, 0));
  printf("  p is %s\n", pointer == nullptr ? "NULL" : pointer == kUntouched ? "untouched" : "set");
  const size_t impossible[] = {SIZE_MAX,        SIZE_MAX - 255,  size_t{1} << 63,
                               size_t{1} << 48, size_t{1} << 47, (size_t{1} << 47) - 1,
                               size_t{1} << 40, size_t{3} << 30, (size_t{1} << 30) + 1};
  for (const size_t bytes : impossible) {
    pointer = kUntouched;
    SayAndClear("cudaMalloc(&p, impossible)", cudaMalloc(&pointer, bytes));
    printf("  p is %s\n", pointer == nullptr      ? "NULL"
                          : pointer == kUntouched ? "untouched"
                                                  : "set");
  }
}

void WrongFrees(size_t bytes) {
  printf("-- blocks of %zu bytes\n", bytes);
  SayAndClear("cudaFree(NULL)", cudaFree(nullptr));
  char* pointer = Allocate(bytes);
  char* second = Allocate(bytes);
  for (const size_t offset : {size_t{1}, size_t{8}, size_t{256}, size_t{512}, bytes - 1}) {
    if (offset < bytes) SayAndClear("interior", cudaFree(pointer + offset));
  }
  SayAndClear("free", cudaFree(pointer));
  SayAndClear("double free", cudaFree(pointer));
  SayAndClear("double free again", cudaFree(pointer));
  if (bytes > 1) SayAndClear("interior of a freed block", cudaFree(pointer + 1));
  SayAndClear("free of the other", cudaFree(second));
  SayAndClear("double free of the other", cudaFree(second));
  // A success leaves the last error alone.
  Say("wrong free", cudaFree(second));
  void* third = nullptr;
  Say("malloc with an error pending", cudaMalloc(&third, bytes));
  Say("free with an error pending", cudaFree(third));
  SayAndClear("free of NULL with an error pending", cudaFree(nullptr));
}

void WildPointers() {
  int local = 0;
  static int global = 0;
  int* heap = new int(0);
  SayAndClear("stack", cudaFree(&local));
  SayAndClear("static", cudaFree(&global));
  SayAndClear("heap", cudaFree(heap));
  delete heap;
  for (const uintptr_t wild :
       {uintptr_t{1}, uintptr_t{0xdeadbeef00}, uintptr_t{1} << 47, uintptr_t{0xffff800000000000},
        ~uintptr_t{0}, ~uintptr_t{255}, uintptr_t{1} << 48, uintptr_t{2} << 20}) {
    SayAndClear("wild", cudaFree(reinterpret_cast<void*>(wild)));
  }
}

void OtherAllocations() {
  void* pointer = nullptr;
  SayAndClear("cudaMallocManaged", cudaMallocManaged(&pointer, 4096, cudaMemAttachGlobal));
  SayAndClear("  interior", cudaFree(static_cast<char*>(pointer) + 256));
  SayAndClear("  free", cudaFree(pointer));
  SayAndClear("  double free", cudaFree(pointer));

  size_t pitch = 0;
  SayAndClear("cudaMallocPitch", cudaMallocPitch(&pointer, &pitch, 1000, 20));
  SayAndClear("  free", cudaFree(pointer));
  SayAndClear("  double free", cudaFree(pointer));

  cudaPitchedPtr pitched = {};
  SayAndClear("cudaMalloc3D", cudaMalloc3D(&pitched, cudaExtent{100, 10, 10}));
  SayAndClear("  free", cudaFree(pitched.ptr));
  SayAndClear("  double free", cudaFree(pitched.ptr));

  const cudaStream_t stream = program::NonBlockingStream();
  SayAndClear("cudaMallocAsync", cudaMallocAsync(&pointer, 4096, stream));
  SayAndClear("  free", cudaFree(pointer));
  SayAndClear("  double free", cudaFree(pointer));
  SayAndClear("cudaMallocAsync", cudaMallocAsync(&pointer, 4096, stream));
  SayAndClear("  cudaFreeAsync", cudaFreeAsync(pointer, stream));
  MUST(cudaStreamSynchronize(stream));
  SayAndClear("  then cudaFree", cudaFree(pointer));

  cudaMemPool_t pool = nullptr;
  SayAndClear("pool", cudaDeviceGetDefaultMemPool(&pool, 0));
  SayAndClear("cudaMallocFromPoolAsync", cudaMallocFromPoolAsync(&pointer, 4096, pool, stream));
  SayAndClear("  free", cudaFree(pointer));
  SayAndClear("  double free", cudaFree(pointer));

  SayAndClear("cudaMallocHost", cudaMallocHost(&pointer, 4096));
  SayAndClear("  cudaFree of it", cudaFree(pointer));
  SayAndClear("  cudaFreeHost", cudaFreeHost(pointer));
  SayAndClear("  cudaFree after it", cudaFree(pointer));
  char* device = Allocate(4096);
  SayAndClear("cudaFreeHost of a device block", cudaFreeHost(device));
  SayAndClear("  cudaFree of it", cudaFree(device));
  MUST(cudaStreamDestroy(stream));
}

void AsynchronousFrees(size_t bytes) {
  const cudaStream_t stream = program::NonBlockingStream();
  char* pointer = Allocate(bytes);
  simNoteAlloc(pointer, bytes);
  program::LaunchWrite(stream, pointer, bytes, 7, 100000);
  simNoteFree(pointer);
  SayAndClear("cudaFreeAsync of a cudaMalloc block", cudaFreeAsync(pointer, stream));
  MUST(cudaStreamSynchronize(stream));
  SayAndClear("  then cudaFree", cudaFree(pointer));
  SayAndClear("  then cudaFreeAsync", cudaFreeAsync(pointer, stream));
  MUST(cudaStreamSynchronize(stream));
  cudaGetLastError();
  // The address may come back, from whichever allocation call.
  void* blocks[16] = {};
  for (int i = 0; i < 16; ++i) {
    if (i % 2 == 0) {
      Say("  cudaMalloc", cudaMalloc(&blocks[i], bytes));
    } else {
      Say("  cudaMallocAsync", cudaMallocAsync(&blocks[i], bytes, stream));
    }
    simNoteAlloc(blocks[i], bytes);
    program::LaunchWrite(stream, blocks[i], bytes, i, 1000);
  }
  MUST(cudaStreamSynchronize(stream));
  for (void* block : blocks) {
    simNoteFree(block);
    Say("  cudaFree", cudaFree(block));
  }
  // A freed block, idle in a pool, is no block to cudaFreeAsync either.
  char* freed = Allocate(bytes);
  MUST(cudaFree(freed));
  SayAndClear("cudaFreeAsync after cudaFree", cudaFreeAsync(freed, stream));
  MUST(cudaStreamSynchronize(stream));
  SayAndClear("  and cudaFree again", cudaFree(freed));
  SayAndClear("cudaFreeAsync, interior", cudaFreeAsync(Allocate(bytes) + 1, stream));
  SayAndClear("cudaFreeAsync(NULL)", cudaFreeAsync(nullptr, stream));
  MUST(cudaStreamDestroy(stream));
}

// REQUIRES: 64 MiB of device memory. The last allocation fits only after the idle ones are gone.
void Rescue(bool pending) {
  void* blocks[56] = {};
  for (void*& block : blocks) block = Allocate(size_t{1} << 19);
  for (void* block : blocks) MUST(cudaFree(block));
  void* large[15] = {};
  for (void*& block : large) block = Allocate(size_t{2} << 20);
  for (void* block : large) MUST(cudaFree(block));
  if (pending) Say("wrong free", cudaFree(reinterpret_cast<void*>(0x123000)));
  void* all = nullptr;
  Say("an allocation that needs releases", cudaMalloc(&all, size_t{60} << 20));
  SayAndClear("its free", cudaFree(all));
  if (pending) Say("wrong free", cudaFree(reinterpret_cast<void*>(0x123000)));
  SayAndClear("one that does not fit", cudaMalloc(&all, size_t{66} << 20));
  printf("  p is %s\n", all == nullptr ? "NULL" : "set");
}

// An allocation fails for another reason than a lack of memory; an older error may be pending.
void OtherFailures() {
  for (const int error : {46, 2, 999}) {
    for (const bool pending : {false, true}) {
      for (const size_t bytes : {size_t{4096}, size_t{700000}, size_t{3} << 20}) {
        void* pointer = nullptr;
        if (pending) Say("impossible", cudaMalloc(&pointer, size_t{1} << 50));
        simFailFrom("cuMemAlloc_v2", 1, error);
        Say("cudaMalloc", cudaMalloc(&pointer, bytes));
        simFailNever();
        Say("  then", cudaPeekAtLastError());
        Say("  cudaMalloc again", cudaMalloc(&pointer, bytes));
        SayAndClear("  its free", cudaFree(pointer));
        MUST(cudaDeviceReset());  // nothing is idle
      }
    }
  }
}

}  // namespace

int main(int count, char** arguments) {
  const char* scenario = count > 1 ? arguments[1] : "";
  if (strcmp(scenario, "first") == 0) {
    // The very first CUDA call of the process is a wrong one.
    Say("cudaFree(wild)", cudaFree(reinterpret_cast<void*>(0x123000)));
    SayAndClear("cudaMalloc(NULL, 1)", cudaMalloc(nullptr, 1));
    MUST(cudaFree(Allocate(100)));
  } else if (strcmp(scenario, "allocations") == 0) {
    Allocations();
    program::Warm(4096);
    Allocations();
  } else if (strcmp(scenario, "frees") == 0) {
    for (const size_t bytes : {size_t{1}, size_t{256}, size_t{700}, size_t{1} << 20,
                               size_t{3} << 20, size_t{100} << 20}) {
      WrongFrees(bytes);
      WrongFrees(bytes);
    }
    WildPointers();
  } else if (strcmp(scenario, "others") == 0) {
    program::Warm(4096);
    OtherAllocations();
  } else if (strcmp(scenario, "async") == 0) {
    for (const size_t bytes : {size_t{256}, size_t{4096}, size_t{1} << 20, size_t{4} << 20}) {
      program::Warm(bytes);
      AsynchronousFrees(bytes);
    }
  } else if (strcmp(scenario, "rescue") == 0) {
    Rescue(false);
    Rescue(true);
  } else if (strcmp(scenario, "other-failures") == 0) {
    OtherFailures();
  } else {
    return 2;
  }
  program::SayHazards();
  return 0;
}
