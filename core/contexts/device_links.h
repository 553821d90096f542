// Which devices use each other's memory. The work of a context delays the reuse of memory of its
// own device, and of those that are linked to it: a kernel that stays on one device is no affair of
// another's.
//
// A kernel reaches another device's memory through peer access alone (CUDA programming guide, "Peer
// device memory access"), and with it a copy runs in the context of its source alone. Without
// it a copy has two parts, and each device's fence covers what it does with that device's memory
// (measured: tests/gpu/two_gpus_h200.md): it links nothing. Links are made before work that needs
// them is submitted, and stay.
#ifndef CMP_CORE_CONTEXTS_DEVICE_LINKS_H_
#define CMP_CORE_CONTEXTS_DEVICE_LINKS_H_

#include <atomic>
#include <cstdint>

namespace cmp {

// Devices as bits; one beyond the 64th counts as all.
using Devices = uint64_t;
inline constexpr Devices kAnyDevice = ~Devices{0};
inline constexpr Devices DeviceBit(int device) {
  return device >= 0 && device < 64 ? Devices{1} << device : kAnyDevice;
}

// Constant after construction but for links, which only grow. Thread-safe. acquire, release: who
// knows of work that was submitted after a link was made sees the link.
class DeviceLinks {
 public:
  // Each of `devices` with each other one.
  void Link(Devices devices) {
    for (int device = 0; device < 64; ++device) {
      if ((devices & DeviceBit(device)) != 0) {
        linked_[device].fetch_or(devices, std::memory_order_acq_rel);
      }
    }
  }
  bool Linked(int one, int other) const {
    if (one == other) return true;
    if (one < 0 || one >= 64 || other < 0 || other >= 64) return true;
    return (linked_[one].load(std::memory_order_acquire) & DeviceBit(other)) != 0;
  }

 private:
  std::atomic<Devices> linked_[64] = {};
};

// Of the process: peer access is enabled between contexts that may have no pool yet.
inline constinit DeviceLinks g_device_links;

}  // namespace cmp

#endif  // CMP_CORE_CONTEXTS_DEVICE_LINKS_H_
