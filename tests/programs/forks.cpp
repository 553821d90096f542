// Forks before and after CUDA was used. forks WHEN; forks busy PAUSE: a few microseconds now and
// then, for who counts every call.
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "program.h"

using program::Allocate;

namespace {

void Use(const char* who) {
  program::Warm(4096);
  for (int i = 0; i < 20; ++i) MUST(cudaFree(Allocate(4096)));
  printf("%s used CUDA\n", who);
  fflush(stdout);
}

void SayStatus(pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  printf("child: exit code %d, signal %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1,
         WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

}  // namespace

int main(int count, char** arguments) {
  const char* when = count > 1 ? arguments[1] : "";
  if (strcmp(when, "before") == 0) {
    const pid_t child = fork();
    Use(child == 0 ? "child" : "parent");
    if (child == 0) return 0;
    SayStatus(child);
    return 0;
  }
  Use("parent");
  char* block = Allocate(4096);
  char* idle = Allocate(4096);
  MUST(cudaFree(idle));
  std::atomic<bool> stop{false};
  std::thread worker;
  if (strcmp(when, "busy") == 0) {
    // Locks may be held at the moment of the fork.
    const useconds_t pause = count > 2 ? static_cast<useconds_t>(atoi(arguments[2])) : 0;
    worker = std::thread([&, pause] {
      for (int i = 0; !stop; ++i) {
        MUST(cudaFree(Allocate(4096)));
        if (pause != 0 && i % 100 == 0) usleep(pause);
      }
    });
  }
  for (int i = 0; i < (worker.joinable() ? 20 : 1); ++i) {
    fflush(stdout);
    const pid_t child = fork();
    if (child != 0) {
      SayStatus(child);
      continue;
    }
    // CUDA cannot be used in a child; what it says must be the same, and nothing may hang.
    void* pointer = nullptr;
    program::Say("child's malloc", cudaMalloc(&pointer, 4096));
    program::Say("child's large malloc", cudaMalloc(&pointer, 40 << 20));
    program::Say("child's free of the parent's block", cudaFree(block));
    program::Say("child's double free", cudaFree(idle));
    program::Say("child's free of NULL", cudaFree(nullptr));
    if (strcmp(when, "exec") == 0) {
      fflush(stdout);
      execl(arguments[2], arguments[2], "return", nullptr);
    }
    if (strcmp(when, "_exit") == 0) {
      fflush(stdout);
      _exit(0);
    }
    exit(0);
  }
  stop = true;
  if (worker.joinable()) worker.join();
  program::Say("parent's free", cudaFree(block));
  Use("parent");
  printf("live %llu of the program's\n", 0ull);
  return 0;
}
