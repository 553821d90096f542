#include "peer.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "physical.h"

namespace observations {
namespace {

constexpr char kOpen = 'o';
constexpr char kExport = 'e';
constexpr char kOpenShareable = 'O';
constexpr char kExportShareable = 'E';
constexpr char kLook = 'l';

void MustBe(bool good, const char* what) {
  if (good) return;
  perror(what);
  _Exit(3);
}

void WriteAll(int file, const void* data, size_t bytes) {
  MustBe(write(file, data, bytes) == static_cast<ssize_t>(bytes), "write to the other process");
}
bool ReadAll(int file, void* data, size_t bytes) {
  return read(file, data, bytes) == static_cast<ssize_t>(bytes);
}

// Programs send each other descriptors by sockets; this is shorter.
struct OthersFile {
  pid_t process;
  int file;

  int Open() const {
    const std::string path = "/proc/" + std::to_string(process) + "/fd/" + std::to_string(file);
    const int opened = open(path.c_str(), O_RDWR | O_CLOEXEC);
    MustBe(opened >= 0, path.c_str());
    return opened;
  }
};

}  // namespace

// Without what is preloaded here: it stands for a program of somebody else's.
Peer::Peer() {
  int to[2];
  int from[2];
  MustBe(pipe(to) == 0 && pipe(from) == 0, "pipe");
  std::vector<char*> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (strncmp(*entry, "LD_PRELOAD=", 11) != 0) environment.push_back(*entry);
  }
  environment.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, to[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO);
  for (const int file : {to[0], to[1], from[0], from[1]}) {
    posix_spawn_file_actions_addclose(&actions, file);
  }
  char program[] = "/proc/self/exe";
  char scenario[] = "peer";
  char* arguments[] = {program, scenario, nullptr};
  const int failed =
      posix_spawn(&process_, program, &actions, nullptr, arguments, environment.data());
  MustBe(failed == 0, "posix_spawn");
  posix_spawn_file_actions_destroy(&actions);
  close(to[0]);
  close(from[1]);
  to_ = to[1];
  from_ = from[0];
}

Peer::~Peer() {
  close(to_);
  int status = 0;
  waitpid(process_, &status, 0);
  close(from_);
  if (status != 0) printf("the other process ended with %d\n", status);
}

void Peer::Ask(char what, const void* data, size_t bytes, void* answer, size_t answer_bytes) {
  WriteAll(to_, &what, 1);
  if (bytes > 0) WriteAll(to_, data, bytes);
  MustBe(ReadAll(from_, answer, answer_bytes), "the other process");
}

void Peer::Open(const cudaIpcMemHandle_t& handle) {
  char done = 0;
  Ask(kOpen, &handle, sizeof handle, &done, 1);
}
cudaIpcMemHandle_t Peer::Export() {
  cudaIpcMemHandle_t handle = {};
  Ask(kExport, nullptr, 0, &handle, sizeof handle);
  return handle;
}
void Peer::OpenShareable(int file) {
  const OthersFile sent{getpid(), file};
  char done = 0;
  Ask(kOpenShareable, &sent, sizeof sent, &done, 1);
}
int Peer::ExportShareable() {
  OthersFile sent{};
  Ask(kExportShareable, nullptr, 0, &sent, sizeof sent);
  return sent.Open();
}
uint64_t Peer::Look() {
  uint64_t word = 0;
  Ask(kLook, nullptr, 0, &word, sizeof word);
  return word;
}

int BePeer() {
  MUST(cudaFree(nullptr));
  char what = 0;
  void* memory = nullptr;
  while (ReadAll(STDIN_FILENO, &what, 1)) {
    cudaIpcMemHandle_t handle = {};
    if (what == kOpen) {
      if (!ReadAll(STDIN_FILENO, &handle, sizeof handle)) return 1;
      MUST(cudaIpcOpenMemHandle(&memory, handle, cudaIpcMemLazyEnablePeerAccess));
      WriteAll(STDOUT_FILENO, &what, 1);
    } else if (what == kExport) {
      memory = DeviceWord();
      MUST(cudaIpcGetMemHandle(&handle, memory));
      WriteAll(STDOUT_FILENO, &handle, sizeof handle);
    } else if (what == kOpenShareable) {
      OthersFile sent{};
      if (!ReadAll(STDIN_FILENO, &sent, sizeof sent)) return 1;
      memory = MapPhysical(ImportPhysical(sent.Open()));
      WriteAll(STDOUT_FILENO, &what, 1);
    } else if (what == kExportShareable) {
      const CUmemGenericAllocationHandle physical = MakePhysical();
      memory = MapPhysical(physical);
      const OthersFile sent{getpid(), ExportPhysical(physical)};
      WriteAll(STDOUT_FILENO, &sent, sizeof sent);
    } else {
      const uint64_t word = WordOf(static_cast<char*>(memory));
      WriteAll(STDOUT_FILENO, &word, sizeof word);
    }
  }
  return 0;
}

}  // namespace observations
