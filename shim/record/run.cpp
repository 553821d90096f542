#include "shim/record/run.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/base/options.h"
#include "core/pool/pool_instance.h"
#include "shim/record/own_files.h"

namespace cmp {

namespace {

// The begin of a file of the kernel's, at most `room` - 1 bytes and a zero; how many.
size_t ReadBegin(const char* path, char* text, size_t room) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  size_t length = 0;
  while (file >= 0 && length + 1 < room) {
    const ssize_t added = read(file, text + length, room - 1 - length);
    if (added <= 0) break;
    length += static_cast<size_t>(added);
  }
  if (file >= 0) close(file);
  text[length] = '\0';
  return length;
}

// The words of /proc/self/cmdline, each with a zero behind it, as a shell takes them.
void CopyCommand(char* command, size_t room) {
  constexpr char kPlain[] =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
  constexpr char kCut[] = "...";
  char words[2048];
  const size_t length = ReadBegin("/proc/self/cmdline", words, sizeof(words));
  size_t used = 0;
  bool cut = length + 1 == sizeof(words);
  const auto add = [&](char letter) {
    if (used + sizeof(kCut) < room) {
      command[used++] = letter;
    } else {
      cut = true;
    }
  };
  for (size_t at = 0; at < length; at += strlen(words + at) + 1) {
    const char* word = words + at;
    if (at != 0) add(' ');
    const bool plain = word[0] != '\0' && word[strspn(word, kPlain)] == '\0';
    if (!plain) add('\'');
    for (; *word != '\0'; ++word) {
      if (*word == '\'') {
        for (const char letter : {'\'', '\\', '\''}) add(letter);
      }
      add(*word);
    }
    if (!plain) add('\'');
  }
  command[used] = '\0';
  if (cut) memcpy(command + used, kCut, sizeof(kCut));
}

// "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu ...", also with "Open" in it.
void CopyDriverVersion(char* version, size_t room) {
  char text[512];
  ReadBegin("/proc/driver/nvidia/version", text, sizeof(text));
  if (char* end = strchr(text, '\n')) *end = '\0';
  for (const char* at = text; (at = strchr(at, ' ')) != nullptr;) {
    at += strspn(at, " ");
    const size_t length = strspn(at, "0123456789.");
    const bool is_version = length > 3 && memchr(at, '.', length) != nullptr &&
                            (at[length] == ' ' || at[length] == '\0');
    if (!is_version || length >= room) continue;
    memcpy(version, at, length);
    version[length] = '\0';
    return;
  }
}

}  // namespace

uint64_t ProcessAgeNs() {
  char text[1024];
  ReadBegin("/proc/self/stat", text, sizeof(text));
  // The program's name, in the second field, may hold anything; the 22nd is the begin.
  const char* at = strrchr(text, ')');
  for (int field = 2; at != nullptr && field < 22; ++field) at = strchr(at + 1, ' ');
  const long ticks = sysconf(_SC_CLK_TCK);
  timespec now;
  if (at == nullptr || ticks <= 0 || clock_gettime(CLOCK_BOOTTIME, &now) != 0) return 0;
  const double begin = static_cast<double>(NumberAt(at)) / static_cast<double>(ticks);
  const double age =
      static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9 - begin;
  return age > 0 ? static_cast<uint64_t>(age * 1e9) : 0;
}

uint64_t UnixNs() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

void CopySettings(char* settings, size_t room) {
  constexpr char kMore[] = "...\n";
  size_t length = 0;
  bool whole = true;
  for (char* const* variable = environ; variable != nullptr && *variable != nullptr; ++variable) {
    if (strncmp(*variable, "CMP_", 4) != 0) continue;
    const size_t added = strlen(*variable);
    if (length + added + 1 + sizeof(kMore) > room) {
      whole = false;
      continue;
    }
    memcpy(settings + length, *variable, added);
    settings[length + added] = '\n';
    length += added + 1;
  }
  memcpy(settings + length, whole ? "" : kMore, whole ? 1 : sizeof(kMore));
}

void CopyNames(char (&host)[80], char (&rank)[16], char (&command)[1024]) {
  if (gethostname(host, sizeof(host)) != 0) host[0] = '\0';
  host[sizeof(host) - 1] = '\0';
  const char* given = RankOfLauncher();
  snprintf(rank, sizeof(rank), "%.15s", given == nullptr ? "" : given);
  CopyCommand(command, sizeof(command));
}

void DescribeRun(StatisticsRun& run) {
  run.begin_unix_ns = UnixNs() - ProcessAgeNs();
  CopyNames(run.host, run.rank, run.command);
  CopyDriverVersion(run.driver, sizeof(run.driver));
  CopySettings(run.settings, sizeof(run.settings));
}

void NameGpus(const Driver& driver) {
  Pool* pool = g_started.load(std::memory_order_acquire);
  if (pool == nullptr || pool->options().stats == nullptr) return;
  StatisticsRun& run = pool->statistics().header()->run;
  int version = 0;
  if (driver.version != nullptr && driver.version(&version) == CUDA_SUCCESS) {
    run.cuda_version.store(static_cast<uint32_t>(version), std::memory_order_relaxed);
  }
  int devices = 0;
  if (driver.device_name == nullptr || driver.device_count == nullptr ||
      driver.device_count(&devices) != CUDA_SUCCESS) {
    return;
  }
  uint32_t named = 0;
  while (named < StatisticsRun::kMostGpus && static_cast<int>(named) < devices) {
    char* name = run.gpus[named];
    const auto device = static_cast<CUdevice>(named);
    if (driver.device_name(name, sizeof(run.gpus[0]), device) != CUDA_SUCCESS) break;
    ++named;
  }
  run.gpu_count.store(named, std::memory_order_release);
}

}  // namespace cmp
