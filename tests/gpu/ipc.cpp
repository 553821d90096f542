// Two processes share blocks of many sizes by IPC. The exporter has recycled blocks before, so that
// the pool (of which this program knows nothing) hands out used ones. The importer checks what it
// sees and changes it; the exporter checks the change and that the neighbours are untouched. A
// second importer, in which nothing is preloaded, says what its driver knows of the sizes.
//
//   ipc [EXPORTER'S_DEVICE IMPORTER'S_DEVICE]
//
// starts itself again as the importers, with handles through a pipe. Both devices are 0 otherwise.
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

extern char** environ;

namespace {

struct Message {
  cudaIpcMemHandle_t handle;
  size_t bytes;
  unsigned char value;
};

void Check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  std::fprintf(stderr, "ipc: %s: error %d\n", call, static_cast<int>(status));
  std::exit(1);
}
#define CHECK(call) Check(call, #call)

bool IsAll(const void* block, size_t bytes, unsigned char value) {
  std::vector<unsigned char> host(bytes);
  CHECK(cudaMemcpy(host.data(), block, bytes, cudaMemcpyDeviceToHost));
  for (const unsigned char byte : host) {
    if (byte != value) return false;
  }
  return true;
}

int Import() {
  Message message;
  int wrong = 0;
  while (read(STDIN_FILENO, &message, sizeof(message)) == sizeof(message)) {
    void* block = nullptr;
    CHECK(cudaIpcOpenMemHandle(&block, message.handle, cudaIpcMemLazyEnablePeerAccess));
    wrong += IsAll(block, message.bytes, message.value) ? 0 : 1;
    CHECK(cudaMemset(block, message.value + 100, message.bytes));
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaIpcCloseMemHandle(block));
  }
  std::printf("importer: %d wrong blocks\n", wrong);
  return wrong;
}

int ImportSizes() {
  const auto range = reinterpret_cast<CUresult (*)(CUdeviceptr*, size_t*, CUdeviceptr)>(
      dlsym(dlopen("libcuda.so.1", RTLD_LAZY), "cuMemGetAddressRange_v2"));
  Message message;
  int wrong = 0;
  std::printf("importer without a preload:");
  while (read(STDIN_FILENO, &message, sizeof(message)) == sizeof(message)) {
    void* block = nullptr;
    CHECK(cudaIpcOpenMemHandle(&block, message.handle, cudaIpcMemLazyEnablePeerAccess));
    CUdeviceptr base = 0;
    size_t bytes = 0;
    const CUresult result = range(&base, &bytes, reinterpret_cast<CUdeviceptr>(block) + 100);
    const bool right = result == CUDA_SUCCESS && base == reinterpret_cast<CUdeviceptr>(block) &&
                       bytes == message.bytes &&
                       IsAll(block, bytes, static_cast<unsigned char>(message.value + 100));
    std::printf(" %zu%s", bytes, right ? "" : " (wrong)");
    wrong += right ? 0 : 1;
    CHECK(cudaIpcCloseMemHandle(block));
  }
  std::printf("\n");
  return wrong;
}

// Starts an importer and returns what was wrong there.
int RunImporter(char* program, const char* role, char* device, char** environment,
                const std::vector<Message>& messages) {
  int ends[2] = {};
  if (pipe(ends) != 0) return 1;
  char* arguments[] = {program, const_cast<char*>(role), device, nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[0], STDIN_FILENO);
  posix_spawn_file_actions_addclose(&actions, ends[1]);
  pid_t child = 0;
  if (posix_spawn(&child, "/proc/self/exe", &actions, nullptr, arguments, environment) != 0) {
    return 1;
  }
  posix_spawn_file_actions_destroy(&actions);
  close(ends[0]);
  const auto bytes = static_cast<ssize_t>(messages.size() * sizeof(Message));
  if (write(ends[1], messages.data(), static_cast<size_t>(bytes)) != bytes) return 1;
  close(ends[1]);
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 100;
}

int Export(char* program, char* importers_device) {
  const std::vector<size_t> sizes = {512, 700, 4096, 70000, 1 << 20, 3 << 20, 3000001, 20 << 20};
  std::vector<void*> warm;
  for (size_t bytes : sizes) {
    if (bytes == sizes.back()) bytes += 2 << 20;  // a larger block serves a request
    for (int i = 0; i < 6; ++i) CHECK(cudaMalloc(&warm.emplace_back(), bytes));
  }
  for (void* block : warm) CHECK(cudaFree(block));

  struct Shared {
    void* block;
    void* neighbours[2];
    size_t bytes;
    unsigned char value;
  };
  std::vector<Shared> shares;
  std::vector<Message> messages;
  unsigned char value = 1;
  for (const size_t bytes : sizes) {
    Shared share = {nullptr, {}, bytes, ++value};
    CHECK(cudaMalloc(&share.neighbours[0], bytes));
    CHECK(cudaMalloc(&share.block, bytes));
    CHECK(cudaMalloc(&share.neighbours[1], bytes));
    for (void* neighbour : share.neighbours) CHECK(cudaMemset(neighbour, 250, bytes));
    CHECK(cudaMemset(share.block, value, bytes));
    Message message = {{}, bytes, value};
    // From an address inside: the handle is that of the base all the same.
    CHECK(cudaIpcGetMemHandle(&message.handle, static_cast<char*>(share.block) + bytes / 2));
    shares.push_back(share);
    messages.push_back(message);
  }
  CHECK(cudaDeviceSynchronize());

  std::vector<char*> bare;  // the environment without a preload
  for (char** one = environ; *one != nullptr; ++one) {
    if (std::strncmp(*one, "LD_PRELOAD=", 11) != 0) bare.push_back(*one);
  }
  bare.push_back(nullptr);
  int wrong = RunImporter(program, "import", importers_device, environ, messages);
  wrong += RunImporter(program, "import-sizes", importers_device, bare.data(), messages);
  for (const Shared& share : shares) {
    wrong += IsAll(share.block, share.bytes, static_cast<unsigned char>(share.value + 100)) ? 0 : 1;
    for (void* neighbour : share.neighbours) wrong += IsAll(neighbour, share.bytes, 250) ? 0 : 1;
    CHECK(cudaFree(share.block));
    for (void* neighbour : share.neighbours) CHECK(cudaFree(neighbour));
  }
  std::printf("exporter: %zu blocks shared, %d wrong\n", shares.size(), wrong);
  return wrong == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const bool asks = argc > 1 && std::strcmp(argv[1], "import-sizes") == 0;
  const bool imports = asks || (argc > 1 && std::strcmp(argv[1], "import") == 0);
  char first[] = "0";
  char* importers_device = argc > 2 ? argv[2] : first;
  const int device = std::atoi(imports || argc < 2 ? importers_device : argv[1]);
  if (cudaSetDevice(device) != cudaSuccess || cudaFree(nullptr) != cudaSuccess) {
    std::fprintf(stderr, "ipc: no CUDA device %d\n", device);
    return 77;
  }
  if (asks) return ImportSizes();
  return imports ? Import() : Export(argv[0], importers_device);
}
