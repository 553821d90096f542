// A second process, which shares device memory with the first one by IPC, and says what it sees.
#ifndef CMP_TESTS_PROGRAMS_OBSERVATIONS_PEER_H_
#define CMP_TESTS_PROGRAMS_OBSERVATIONS_PEER_H_

#include <sys/types.h>

#include "scene.h"

namespace observations {

class Peer {
 public:
  Peer();
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  // It opens memory of ours.
  void Open(const cudaIpcMemHandle_t& handle);
  // It allocates memory and exports it.
  cudaIpcMemHandle_t Export();
  // The same by a shareable handle of memory of cuMemCreate: our file descriptor, or a copy of its.
  void OpenShareable(int file);
  int ExportShareable();
  // The first word of that memory, as it sees it.
  uint64_t Look();

 private:
  void Ask(char what, const void* data, size_t bytes, void* answer, size_t answer_bytes);

  pid_t process_ = 0;
  int to_ = -1;
  int from_ = -1;
};

}  // namespace observations

#endif  // CMP_TESTS_PROGRAMS_OBSERVATIONS_PEER_H_
