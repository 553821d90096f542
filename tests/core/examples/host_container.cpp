// Does not compile, on purpose: a host container would write to device memory from the host.
#include <vector>

#include "core/device_allocator.h"

int main() {
  std::vector<int, cmp::DeviceAllocator<int>> numbers;
  numbers.push_back(1);
}
