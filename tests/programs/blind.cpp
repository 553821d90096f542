// Blocks that a library writes to whose launches no preload sees, since it was loaded with
// RTLD_DEEPBIND: blind MODE LIBRARY [OTHER...]
//
//   normal        loaded without the flag
//   deep          with it
//   thread        by a thread that ends and calls nothing of CUDA
//   late          after blocks have been handed out from what threads remember
//   late-thread   both
//   second        LIBRARY, then an OTHER
//   apart         LIBRARY, then without the flag an OTHER, which imports what a blind one does
//   reuse         an OTHER without the flag, a second with it; the first is closed, and LIBRARY
//   comes
//                 to its address
//
// A library without `blind_launch` is loaded all the same, and nothing is launched.
#include <dlfcn.h>
#include <sim.h>

#include <string>
#include <thread>

#include "program.h"

namespace {

using Launch = int (*)(cudaStream_t stream, const SimWork* work);

Launch g_launch = nullptr;

void* Open(const char* library, int flags) {
  void* handle = dlopen(library, RTLD_NOW | RTLD_LOCAL | flags);
  printf("loaded: %s\n", handle != nullptr ? "yes" : "no");
  return handle;
}

void Load(const char* library, int flags) {
  void* handle = Open(library, flags);
  if (handle == nullptr) return;

  if (const auto found = reinterpret_cast<Launch>(dlsym(handle, "blind_launch"))) g_launch = found;
}

void LoadElsewhere(const char* library) { std::thread(Load, library, RTLD_DEEPBIND).join(); }

void Rounds(int count) {
  cudaStream_t streams[2];
  for (cudaStream_t& stream : streams) {
    MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  }
  for (int i = 0; i < count; ++i) {
    void* block = program::Allocate(4096);
    SimRange range = {block, 4096};
    SimWork work = {};
    work.id = static_cast<uint64_t>(i) + 1;
    work.duration_ns = 500'000;
    work.writes = &range;
    work.write_count = 1;
    simNoteAlloc(block, 4096);
    if (g_launch != nullptr && g_launch(streams[i % 2], &work) != 0) printf("not launched\n");
    simNoteFree(block);
    MUST(cudaFree(block));
  }
  MUST(cudaDeviceSynchronize());
  for (cudaStream_t stream : streams) MUST(cudaStreamDestroy(stream));
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 3) return 2;
  const std::string mode = arguments[1];
  const char* library = arguments[2];
  if (mode.starts_with("late")) Rounds(200);
  if (mode == "reuse") {
    void* first = Open(arguments[3], 0);
    Open(arguments[4], RTLD_DEEPBIND);
    if (first != nullptr) dlclose(first);
  }
  if (mode == "normal") {
    Load(library, 0);
  } else if (mode == "thread" || mode == "late-thread") {
    LoadElsewhere(library);
  } else {
    Load(library, RTLD_DEEPBIND);
  }
  if (mode == "second") Load(arguments[3], RTLD_DEEPBIND);
  if (mode == "apart") Load(arguments[3], 0);
  Rounds(200);
  program::SayHazards();
}
