// Prints what new memory holds, after blocks full of 0x5A were freed.
#include <vector>

#include "program.h"

int main() {
  const size_t sizes[] = {1, 256, 5000, size_t{1} << 20, size_t{5} << 20};
  for (int round = 0; round < 3; ++round) {
    for (const size_t bytes : sizes) {
      std::vector<unsigned char*> blocks(3);
      for (auto& block : blocks) {
        block = reinterpret_cast<unsigned char*>(program::Allocate(bytes));
      }
      unsigned char low = 255;
      unsigned char high = 0;
      for (const unsigned char* block : blocks) {
        for (size_t i = 0; i < bytes; ++i) {
          if (block[i] < low) low = block[i];
          if (block[i] > high) high = block[i];
        }
      }
      printf("%zu bytes: from %02x to %02x\n", bytes, low, high);
      for (unsigned char* block : blocks) {
        MUST(cudaMemset(block, 0x5A, bytes));
        MUST(cudaFree(block));
      }
    }
  }
  // Filling waits for nothing: a kernel may run until a later one is launched.
  SimWork spinner = {};
  spinner.spin_until_id = 7;
  MUST(program::Launch(program::NonBlockingStream(), spinner));
  program::Allocate(5000);
  SimWork released = {};
  released.id = 7;
  MUST(program::Launch(program::NonBlockingStream(), released));
  MUST(cudaDeviceSynchronize());
  program::SayHazards();
  return 0;
}
