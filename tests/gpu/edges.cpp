// Walks along the edges of cudaMalloc and cudaFree and prints what every call answered. It knows
// nothing of the pool: on the same machine its output must be the same without and with the
// preload, on a GPU and on the simulated CUDA.
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <thread>
#include <vector>

#include "../demo/kernels.h"

namespace {

using cmp::demo::Kernels;

constexpr size_t kMiB = size_t{1} << 20;

void Say(const char* what, cudaError_t status) {
  std::printf("%-52s %d, last error %d\n", what, static_cast<int>(status),
              static_cast<int>(cudaPeekAtLastError()));
}
#define SAY(call) Say(#call, call)

void* Offset(void* pointer, size_t bytes) { return static_cast<char*>(pointer) + bytes; }

void Errors() {
  std::printf("== errors\n");
  void* p = nullptr;
  SAY(cudaMalloc(&p, 1000));
  SAY(cudaMalloc(nullptr, 16));
  SAY(cudaGetLastError());
  void* z = &p;
  SAY(cudaMalloc(&z, 0));
  std::printf("size 0 gives %s\n", z == nullptr ? "NULL" : "a pointer");
  z = &p;
  SAY(cudaMalloc(&z, ~size_t{0}));
  std::printf("impossible size gives %s\n", z == nullptr ? "NULL" : "a pointer");
  SAY(cudaGetLastError());
  SAY(cudaMalloc(&z, size_t{1} << 46));
  SAY(cudaFree(Offset(p, 1)));  // with an error pending
  SAY(cudaGetLastError());
  SAY(cudaFree(Offset(p, 256)));
  SAY(cudaGetLastError());
  SAY(cudaFree(reinterpret_cast<void*>(uintptr_t{0x1234567800})));
  SAY(cudaGetLastError());
  SAY(cudaFree(nullptr));
  SAY(cudaFree(p));
  SAY(cudaFree(p));
  SAY(cudaGetLastError());
  int on_stack = 0;
  SAY(cudaFree(&on_stack));
  SAY(cudaGetLastError());
  SAY(cudaMallocHost(&p, 4096));
  SAY(cudaFree(p));
  SAY(cudaGetLastError());
  SAY(cudaFreeHost(p));
}

void OtherAllocations() {
  std::printf("== other allocation calls\n");
  void* p = nullptr;
  SAY(cudaMallocManaged(&p, 5000, cudaMemAttachGlobal));
  SAY(cudaFree(p));
  size_t pitch = 0;
  SAY(cudaMallocPitch(&p, &pitch, 1000, 10));
  SAY(cudaFree(p));
  cudaPitchedPtr pitched = {};
  SAY(cudaMalloc3D(&pitched, cudaExtent{100, 10, 10}));
  SAY(cudaFree(pitched.ptr));
  SAY(cudaMallocAsync(&p, 3 * kMiB, nullptr));
  SAY(cudaFree(p));
  SAY(cudaMalloc(&p, 3 * kMiB));
  SAY(cudaFreeAsync(p, nullptr));
  SAY(cudaDeviceSynchronize());
  void* q = nullptr;
  SAY(cudaMallocManaged(&q, 3 * kMiB, cudaMemAttachGlobal));
  SAY(cudaFree(q));
  SAY(cudaFree(q));
  SAY(cudaGetLastError());
}

// The real cudaFree waits for every stream; cudaMalloc for nothing. The kernel that they find runs
// until another stream writes a word, so it outlasts the calls before that, however long they take.
void Waiting(const Kernels& kernels) {
  std::printf("== waiting\n");
  cudaStream_t streams[3] = {};
  cudaStreamCreateWithFlags(&streams[0], cudaStreamNonBlocking);
  cudaStreamCreate(&streams[1]);
  streams[2] = cudaStreamLegacy;
  cudaStream_t opening = nullptr;
  cudaStreamCreateWithFlags(&opening, cudaStreamNonBlocking);
  void* memory = nullptr;
  cudaMalloc(&memory, 2 * sizeof(uint32_t));
  auto* words = static_cast<uint32_t*>(memory);  // what is waited for, whether that was given up
  cudaMemset(words, 0, 2 * sizeof(uint32_t));
  cudaDeviceSynchronize();
  uint32_t turn = 0;
  for (cudaStream_t stream : streams) {
    for (const size_t bytes : {size_t{256}, 4 * kMiB}) {
      void* p = nullptr;
      void* q = nullptr;
      cudaMalloc(&p, bytes);
      cudaMalloc(&q, bytes);
      cudaFree(q);
      kernels.SpinUntil(stream, words, ++turn, words + 1);
      cudaMalloc(&q, bytes);
      Say("after cudaMalloc the stream is", cudaStreamQuery(stream));
      cudaGetLastError();
      kernels.WriteLate(opening, words, turn, 20000000);
      cudaFree(p);
      Say("after cudaFree the stream is", cudaStreamQuery(stream));
      cudaFree(q);
    }
  }
  uint32_t given_up = 0;
  cudaMemcpy(&given_up, words + 1, sizeof(given_up), cudaMemcpyDeviceToHost);
  std::printf("waits given up: %u\n", given_up);
  cudaFree(words);
  for (cudaStream_t stream : {streams[0], streams[1], opening}) cudaStreamDestroy(stream);
}

void Captures() {
  std::printf("== captures\n");
  void* kept = nullptr;
  cudaMalloc(&kept, 4096);
  for (const cudaStreamCaptureMode mode :
       {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal,
        cudaStreamCaptureModeRelaxed}) {
    for (const bool other_thread : {false, true}) {
      for (const bool frees : {false, true}) {
        cudaStream_t stream = nullptr;
        cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
        void* p = nullptr;
        cudaMalloc(&p, 12345);
        cudaStreamBeginCapture(stream, mode);
        cudaMemsetAsync(kept, 1, 4096, stream);
        const auto act = [&] {
          void* q = nullptr;
          // A size that is not idle anywhere, so that both ways make the real call.
          const cudaError_t status = frees ? cudaFree(p) : cudaMalloc(&q, 77 * kMiB);
          std::printf("mode %d, %s thread, %s: %d\n", static_cast<int>(mode),
                      other_thread ? "other" : "same", frees ? "cudaFree" : "cudaMalloc",
                      static_cast<int>(status));
          cudaGetLastError();
          if (q != nullptr) cudaFree(q);
        };
        if (other_thread) {
          std::thread(act).join();
        } else {
          act();
        }
        cudaGraph_t graph = nullptr;
        Say("end of capture", cudaStreamEndCapture(stream, &graph));
        cudaGetLastError();
        if (graph != nullptr) cudaGraphDestroy(graph);
        Say("free afterwards", cudaFree(p));
        cudaGetLastError();
        cudaStreamDestroy(stream);
      }
    }
  }
  SAY(cudaFree(kept));
}

// Fill most of the device in one size, free it, and again in another: what fits without a pool
// fits with one.
void NearlyFull() {
  std::printf("== nearly full\n");
  size_t free_bytes = 0;
  size_t total = 0;
  cudaMemGetInfo(&free_bytes, &total);
  const size_t budget = free_bytes / 100 * 95;
  for (const size_t pieces : {size_t{50}, size_t{7}, size_t{180}, size_t{1}}) {
    std::vector<void*> blocks(pieces);
    size_t good = 0;
    for (void*& block : blocks) {
      good += cudaMalloc(&block, budget / pieces / kMiB * kMiB) == cudaSuccess ? 1 : 0;
    }
    std::printf("%zu pieces of 95%%: %zu allocated, last error %d\n", pieces, good,
                static_cast<int>(cudaPeekAtLastError()));
    for (void* block : blocks) {
      if (block != nullptr) cudaFree(block);
    }
  }
  void* p = nullptr;
  SAY(cudaMalloc(&p, total * 2));
  SAY(cudaGetLastError());
}

void Reset() {
  std::printf("== reset\n");
  void* p = nullptr;
  void* q = nullptr;
  SAY(cudaMalloc(&p, 5 * kMiB));
  SAY(cudaMalloc(&q, 5000));
  SAY(cudaFree(q));
  SAY(cudaDeviceReset());
  SAY(cudaFree(p));
  SAY(cudaGetLastError());
  SAY(cudaMalloc(&q, 5000));
  SAY(cudaMemset(q, 1, 5000));
  SAY(cudaFree(q));
  std::thread([] {
    void* r = nullptr;
    SAY(cudaMalloc(&r, 100));
    SAY(cudaFree(r));
  }).join();
}

}  // namespace

int main() {
  if (cudaFree(nullptr) != cudaSuccess) {
    std::fprintf(stderr, "edges: no CUDA device\n");
    return 77;
  }
  const Kernels kernels;
  Errors();
  OtherAllocations();
  Waiting(kernels);
  Captures();
  NearlyFull();
  Reset();
  return 0;
}
