// Serves requests (workloads.h) with one allocator, a line of JSON each, so that several of these
// processes can take turns at a row: tests/gpu/compare_all.py starts one for each alternative.
//
//   against ALLOCATOR [LIBRARY]      reads requests, a line each, until its input ends
//
// ALLOCATOR is one of calls.h, or one that the adaptor LIBRARY knows. CMP_AGAINST_RESERVE: bytes
// that it may take at its start. The first line of the output says what it is, or why it is
// missing.
#include <iostream>

#include "../program.h"
#include "calls.h"
#include "workloads.h"

namespace {

using namespace cmp::gpu;
using cmp::against::Figures;
using cmp::against::Made;

Made Make(const char* name, const char* library) {
  if (library == nullptr) return cmp::against::MakeCalls(name);
  // Lazily: what it lies on may know functions of a newer runtime, which nobody calls here.
  void* adaptor = dlopen(library, RTLD_LAZY);
  if (adaptor == nullptr) return {nullptr, dlerror()};
  const auto make = reinterpret_cast<decltype(&MakeAllocator)>(dlsym(adaptor, "MakeAllocator"));
  if (make == nullptr) return {nullptr, "the library has no MakeAllocator"};
  const char* reserve = std::getenv("CMP_AGAINST_RESERVE");
  return make(name, reserve == nullptr ? size_t{1} << 30 : std::strtoull(reserve, nullptr, 10));
}

// Quoted for JSON.
std::string Quoted(const char* text) {
  std::string result = "\"";
  for (; *text != '\0'; ++text) {
    if (*text == '"' || *text == '\\') result += '\\';
    result += *text >= ' ' ? *text : ' ';
  }
  return result + "\"";
}

void Introduce() {
  cudaDeviceProp device = {};
  CHECK(cudaGetDeviceProperties(&device, 0));
  int driver = 0;
  int runtime = 0;
  CHECK(cudaDriverGetVersion(&driver));
  CHECK(cudaRuntimeGetVersion(&runtime));
  Dl_info of_malloc = {};
  dladdr(dlsym(RTLD_DEFAULT, "malloc"), &of_malloc);
  const bool preloaded = dlsym(RTLD_DEFAULT, "cmp_preload_version") != nullptr;
  std::printf(
      "{\"device\": %s, \"cuda_driver\": %d, \"cuda_runtime\": %d, \"malloc\": %s, \"preloaded\": "
      "%s}\n",
      Quoted(device.name).c_str(), driver, runtime,
      Quoted(of_malloc.dli_fname == nullptr ? "" : of_malloc.dli_fname).c_str(),
      preloaded ? "true" : "false");
}

void Print(const Figures& figures) {
  std::printf("{\"ns\": %.1f", figures.ns);
  const auto add = [](const char* name, double ns) {
    if (ns > 0) std::printf(", \"%s\": %.1f", name, ns);
  };
  add("mean_ns", figures.mean_ns);
  add("alone_ns", figures.alone_ns);
  add("worst_ns", figures.worst_ns);
  std::printf("}\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  StartCudaOrSkip();
  const cmp::demo::Kernels kernels;
  void* keep = nullptr;  // keeps the driver's chunk of small blocks alive
  CHECK(cudaMalloc(&keep, 256));
  const Made made = Make(argv[1], argc > 2 ? argv[2] : nullptr);
  if (made.allocator == nullptr) {
    std::printf("{\"missing\": %s}\n", Quoted(made.missing).c_str());
    return 0;
  }
  Introduce();
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    Print(Run(*made.allocator, kernels, cmp::against::Request(line)));
    std::fflush(stdout);
  }
  return 0;
}
