// The other process of the scenarios in which one looks: this program again, talking over a socket
// that is its standard input.
#include <spawn.h>
#include <sys/socket.h>

#include <string>

#include "visible.h"

namespace cmp::gpu {

namespace {

constexpr int kFile = 3;  // where the other process finds the file that it got

void SendTo(int socket, const void* data, size_t bytes) {
  if (write(socket, data, bytes) != static_cast<ssize_t>(bytes)) Fail("write to a socket", errno);
}

void ReceiveFrom(int socket, void* data, size_t bytes) {
  if (recv(socket, data, bytes, MSG_WAITALL) != static_cast<ssize_t>(bytes)) {
    Fail("the other process ended", errno);
  }
}

// Not CMP_STATS: the statistics are those of the first process.
std::vector<char*> Environment() {
  std::vector<char*> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (std::strncmp(*variable, "CMP_STATS=", 10) != 0) variables.push_back(*variable);
  }
  variables.push_back(nullptr);
  return variables;
}

// The word that is shared, when both processes have it.
const uint32_t* Share(const Stage& stage, const char* kind) {
  cudaIpcMemHandle_t handle = {};
  if (std::strcmp(kind, "exported") == 0) {
    void* memory = nullptr;
    ReceiveFrom(STDIN_FILENO, &handle, sizeof(handle));
    CHECK(cudaIpcOpenMemHandle(&memory, handle, cudaIpcMemLazyEnablePeerAccess));
    return static_cast<uint32_t*>(memory);
  }
  if (std::strcmp(kind, "shareable") == 0) return Import(stage, kFile).words();
  CHECK(cudaIpcGetMemHandle(&handle, stage.word));  // "imported"
  SendTo(STDIN_FILENO, &handle, sizeof(handle));
  return stage.word;
}

}  // namespace

OtherProcess::OtherProcess(const char* kind, int file) {
  int ends[2] = {};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) Fail("socketpair", errno);
  socket_ = ends[0];
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
  if (file >= 0) posix_spawn_file_actions_adddup2(&actions, file, kFile);
  std::string words[] = {"visible", "--look", kind};
  char* arguments[] = {words[0].data(), words[1].data(), words[2].data(), nullptr};
  pid_t child = 0;
  const int error =
      posix_spawn(&child, "/proc/self/exe", &actions, nullptr, arguments, Environment().data());
  if (error != 0) Fail("posix_spawn", error);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
}

void OtherProcess::Send(const void* data, size_t bytes) const { SendTo(socket_, data, bytes); }
void OtherProcess::Receive(void* data, size_t bytes) const { ReceiveFrom(socket_, data, bytes); }

uint32_t OtherProcess::Look() const {
  uint32_t seen = 0;
  Send(&seen, sizeof(seen));
  Receive(&seen, sizeof(seen));
  return seen;
}

int BeOtherProcess(const char* kind) {
  StartCudaOrSkip();
  const Watchdog watchdog(20);
  const Stage stage(kind);
  const uint32_t* const word = Share(stage, kind);
  uint32_t message = ReadBack(word);  // whatever is set up by a first read is set up
  SendTo(STDIN_FILENO, &message, sizeof(message));
  ReceiveFrom(STDIN_FILENO, &message, sizeof(message));
  message = ReadBack(word);
  SendTo(STDIN_FILENO, &message, sizeof(message));
  return 0;
}

}  // namespace cmp::gpu
