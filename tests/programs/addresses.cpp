// Which addresses a program gets, as far as it can compare them: in the order of their first
// appearance. addresses pending|done: is the device done with its work before every free?
#include <map>
#include <vector>

#include "program.h"

int main(int count, char** arguments) {
  const bool done = count > 1 && strcmp(arguments[1], "done") == 0;
  const cudaStream_t streams[] = {program::NonBlockingStream(), program::NonBlockingStream()};
  std::map<char*, uint64_t> seen;
  std::vector<char*> live;
  program::Random random(7);
  uint64_t sequence = 0;
  for (int i = 0; i < 2000; ++i) {
    const size_t unit = i % 4 == 0 ? size_t{3} << 20 : 4096;
    char* block = program::Allocate(unit * (1 + random.Below(3)));
    sequence = program::Mix(sequence + seen.emplace(block, seen.size()).first->second);
    program::LaunchWrite(streams[random.Below(2)], block, 64, 1, 2000 + random.Below(4000));
    live.push_back(block);
    if (live.size() < 5) continue;
    if (done) MUST(cudaDeviceSynchronize());
    const auto at = live.begin() + static_cast<std::ptrdiff_t>(random.Below(live.size()));
    MUST(cudaFree(*at));
    live.erase(at);
  }
  printf("sequence %016llx\n", static_cast<unsigned long long>(sequence));
  program::SayHazards();
  return 0;
}
