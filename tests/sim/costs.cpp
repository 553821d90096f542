#include "costs.h"

#include <chrono>
#include <cstring>

#include "settings.h"

namespace cmp::sim {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

struct SizeClass {
  size_t up_to;
  double allocate_us;
  double free_us;
};

// Measured on one H200, driver 580.159.04.
constexpr SizeClass kSizeClasses[] = {
    {64 << 10, 1.3, 1.2}, {kMiB, 1.9, 1.8},      {2 * kMiB, 42, 35},
    {16 * kMiB, 42, 45},  {256 * kMiB, 62, 116}, {SIZE_MAX, 122, 345},
};
constexpr double kLastOfChunkUs = 74;
// Page-locked memory of the host, likewise, as the only block.
constexpr SizeClass kHostSizeClasses[] = {
    {kMiB, 510, 220}, {16 * kMiB, 5100, 1500}, {SIZE_MAX, 113000, 25000}};

struct NamedCost {
  const char* name;
  double us;
};

constexpr NamedCost kNamedCosts[] = {
    {"cuMemAllocAsync", 0.36},  {"cuMemFreeAsync", 0.36}, {"cuCtxSynchronize", 0.48},
    {"cuCtxRecordEvent", 0.19}, {"cuCtxWaitEvent", 0.11}, {"cuEventQuery", 0.17},
    {"cuMemGetInfo_v2", 4.3},
};

thread_local double t_block_us = 0;

uint64_t NowNs() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                   std::chrono::steady_clock::now().time_since_epoch())
                                   .count());
}

const SizeClass& ClassOf(size_t bytes, const SizeClass* size_class = kSizeClasses) {
  while (bytes > size_class->up_to) ++size_class;
  return *size_class;
}

}  // namespace

Stopwatch::Stopwatch() {
  if (TheSettings().costs) begun_ns_ = NowNs();
}

void Stopwatch::Spend(const char* name) const {
  if (begun_ns_ == 0) return;
  double us = t_block_us;
  t_block_us = 0;
  for (const NamedCost& cost : kNamedCosts) {
    if (std::strcmp(cost.name, name) == 0) us += cost.us;
  }
  const uint64_t until = begun_ns_ + static_cast<uint64_t>(us * 1000);
  // Long ones without a processor, but for the end: a sleep may take that much longer.
  constexpr uint64_t kSpunNs = 100000;
  const uint64_t now = NowNs();
  if (now + 2 * kSpunNs < until) {
    const uint64_t ns = until - now - kSpunNs;
    const timespec sleep = {static_cast<time_t>(ns / 1000000000),
                            static_cast<long>(ns % 1000000000)};
    nanosleep(&sleep, nullptr);
  }
  while (NowNs() < until) {
  }
}

void NoteAllocationCost(size_t bytes) { t_block_us = ClassOf(bytes).allocate_us; }

void NoteHostAllocationCost(size_t bytes) {
  t_block_us = ClassOf(bytes, kHostSizeClasses).allocate_us;
}

void NoteHostFreeCost(size_t bytes) { t_block_us = ClassOf(bytes, kHostSizeClasses).free_us; }

void NoteFreeCost(size_t bytes, bool last_of_chunk) {
  t_block_us = ClassOf(bytes).free_us + (last_of_chunk && bytes < kMiB ? kLastOfChunkUs : 0);
}

// A round of an allocation, a free and a synchronisation took 86 us more at 1 MiB, and 149 us at
// 64 MiB, where the pool kept nothing.
void NotePoolCost(size_t bytes) {
  t_block_us += 42.5 + static_cast<double>(bytes) / (2.0 * static_cast<double>(kMiB));
}

}  // namespace cmp::sim
