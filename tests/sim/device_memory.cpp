#include "device_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace cmp::sim {
namespace {

constexpr unsigned char kPoison = 0xDB;
constexpr size_t kSystemPage = 4096;
constexpr size_t kRecentCount = 64;
// To fault a page in again takes 20 times as long as to zero it (measured).
constexpr size_t kMostKept = size_t{256} << 20;   // of memory that nobody has
constexpr size_t kMostZeroed = size_t{64} << 20;  // at a time

size_t RoundUp(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

void Die(const char* what) {
  std::perror(what);
  std::abort();
}

bool IsPoison(const unsigned char* bytes, size_t count) {
  return std::all_of(bytes, bytes + count, [](unsigned char byte) { return byte == kPoison; });
}

}  // namespace

void DeviceMemory::Extents::Add(size_t offset, size_t bytes) {
  recent_.push_back(offset);
  if (recent_.size() > kRecentCount) recent_.erase(recent_.begin());
  auto next = free_.lower_bound(offset);
  if (next != free_.begin() && !AtBoundary(offset)) {
    auto previous = std::prev(next);
    if (previous->first + previous->second == offset) {
      offset = previous->first;
      bytes += previous->second;
      free_.erase(previous);
    }
  }
  if (next != free_.end() && offset + bytes == next->first && !AtBoundary(next->first)) {
    bytes += next->second;
    free_.erase(next);
  }
  free_[offset] = bytes;
}

bool DeviceMemory::Extents::Covers(size_t offset, size_t bytes) const {
  auto after = free_.upper_bound(offset);
  if (after == free_.begin()) return false;
  const auto& [start, length] = *std::prev(after);
  return offset + bytes <= start + length;
}

void DeviceMemory::Extents::Remove(size_t offset, size_t bytes) {
  auto extent = std::prev(free_.upper_bound(offset));
  const size_t start = extent->first;
  const size_t end = start + extent->second;
  free_.erase(extent);
  if (start < offset) free_[start] = offset - start;
  if (offset + bytes < end) free_[offset + bytes] = end - offset - bytes;
}

void DeviceMemory::Extents::Withdraw(size_t offset, size_t bytes) {
  Remove(offset, bytes);
  std::erase_if(recent_, [&](size_t at) { return at >= offset && at < offset + bytes; });
}

bool DeviceMemory::Extents::TakeAt(size_t offset, size_t bytes) {
  if (!Covers(offset, bytes)) return false;
  Remove(offset, bytes);
  return true;
}

bool DeviceMemory::Extents::Take(size_t bytes, size_t* offset) {
  for (size_t i = recent_.size(); i-- > 0;) {
    *offset = recent_[i];
    if (!TakeAt(*offset, bytes)) continue;
    recent_.erase(recent_.begin() + static_cast<std::ptrdiff_t>(i));
    return true;
  }
  for (const auto& [start, length] : free_) {
    if (length < bytes) continue;
    *offset = start;
    Remove(start, bytes);
    return true;
  }
  return false;
}

DeviceMemory::DeviceMemory(size_t capacity)
    : capacity_(capacity / kPage * kPage), range_(std::max(capacity_ * 4, size_t{1} << 33)) {
  file_ = memfd_create("cmp_sim_device", MFD_CLOEXEC);
  if (file_ < 0 || ftruncate(file_, static_cast<off_t>(range_)) != 0) Die("cmp sim: memory file");
  // One page more than needed, so that the range can begin at a 2 MiB boundary.
  void* reserved =
      mmap(nullptr, range_ + kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) Die("cmp sim: address range");
  start_ = RoundUp(reinterpret_cast<uintptr_t>(reserved), kPage);
  if (mmap(reinterpret_cast<void*>(start_), range_, PROT_NONE,
           MAP_SHARED | MAP_FIXED | MAP_NORESERVE, file_, 0) == MAP_FAILED) {
    Die("cmp sim: device memory");
  }
  pages_.Add(0, range_);
  kept_.resize(range_ / kPage);
}

uintptr_t DeviceMemory::Allocate(size_t bytes, bool* spoiled) {
  *spoiled = false;
  if (bytes > capacity_) return 0;
  if (bytes < kSmallLimit) return AllocateSmall(RoundUp(bytes, kSmallAlignment), spoiled);
  size_t offset = 0;
  return TakePages(RoundUp(bytes, kPage), &offset) ? start_ + offset : 0;
}

void DeviceMemory::Free(uintptr_t base, size_t bytes) {
  if (bytes < kSmallLimit) {
    FreeSmall(base - start_, RoundUp(bytes, kSmallAlignment));
  } else {
    ReturnPages(base - start_, RoundUp(bytes, kPage));
  }
}

bool DeviceMemory::TakePages(size_t bytes, size_t* offset) {
  if (!MakeRoom(bytes) || !pages_.Take(bytes, offset)) return false;
  if (mprotect(reinterpret_cast<void*>(start_ + *offset), bytes, PROT_READ | PROT_WRITE) != 0) {
    Die("cmp sim: device pages");
  }
  for (size_t page = *offset / kPage; page < (*offset + bytes) / kPage; ++page) {
    if (!kept_[page]) continue;
    kept_[page] = false;
    kept_bytes_ -= kPage;
    Zero(page * kPage, kPage);
  }
  used_ += bytes;
  static uint64_t g_last_id = 0;
  chunks_[*offset] = {start_ + *offset, bytes, ++g_last_id};
  return true;
}

DeviceMemory::Chunk DeviceMemory::ChunkOf(uintptr_t address) const {
  return std::prev(chunks_.upper_bound(address - start_))->second;
}

bool DeviceMemory::MakeRoom(size_t bytes) {
  if (used_ - granules_.size() * kPage + bytes > capacity_) return false;
  while (used_ + bytes > capacity_) {
    DropManaged(granules_.front());
    ++managed.evictions;
  }
  return true;
}

void DeviceMemory::UseManaged(uintptr_t granule) {
  if (const auto at = granule_at_.find(granule); at != granule_at_.end()) {
    granules_.splice(granules_.end(), granules_, at->second);
    return;
  }
  if (!MakeRoom(kPage)) {
    ++managed.remote_uses;
    return;
  }
  granule_at_[granule] = granules_.insert(granules_.end(), granule);
  used_ += kPage;
  ++managed.migrations;
}

void DeviceMemory::DropManaged(uintptr_t granule) {
  const auto at = granule_at_.find(granule);
  if (at == granule_at_.end()) return;
  granules_.erase(at->second);
  granule_at_.erase(at);
  used_ -= kPage;
}

// The protection makes a use after the free a crash. A hole reads as zeros when it is handed out
// again, by this process or an importer; pages that are kept are zeroed then.
void DeviceMemory::ReturnPages(size_t offset, size_t bytes) {
  if (bytes <= kMostZeroed && kept_bytes_ + bytes <= kMostKept) {
    std::fill_n(kept_.begin() + static_cast<std::ptrdiff_t>(offset / kPage), bytes / kPage, true);
    kept_bytes_ += bytes;
  } else {
    PunchOut(offset, bytes);
  }
  if (mprotect(reinterpret_cast<void*>(start_ + offset), bytes, PROT_NONE) != 0) {
    Die("cmp sim: returning device pages");
  }
  used_ -= bytes;
  chunks_.erase(offset);
  pages_.Add(offset, bytes);
}

uintptr_t DeviceMemory::AllocateSmall(size_t bytes, bool* spoiled) {
  size_t offset = 0;
  if (!small_.Take(bytes, &offset)) {
    size_t chunk = 0;
    if (!TakePages(kPage, &chunk)) return 0;
    chunk_used_[chunk] = 0;
    small_.Add(chunk, kPage);
    small_.TakeAt(chunk, bytes);
    offset = chunk;
  }
  chunk_used_[offset / kPage * kPage] += bytes;
  auto* block = reinterpret_cast<unsigned char*>(start_ + offset);
  // Bytes are zero (never used) or poison (freed); anything else was written after the free. The
  // first 512 bytes decide.
  const bool fresh =
      !MayHaveData(offset, bytes) ||
      std::all_of(block, block + kSmallAlignment, [](auto byte) { return byte == 0; });
  *spoiled = !fresh && !IsPoison(block, kSmallAlignment);
  Zero(offset, bytes);
  return start_ + offset;
}

void DeviceMemory::PunchOut(size_t offset, size_t bytes) {
  if (fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                static_cast<off_t>(bytes)) != 0) {
    Die("cmp sim: a hole in device memory");
  }
}

// False: it reads as zeros, and the first look or write would make it a page. Of a small block it
// is as fast to look.
bool DeviceMemory::MayHaveData(size_t offset, size_t bytes) const {
  unsigned char has_page = 0;
  auto* page = reinterpret_cast<void*>(start_ + offset / kSystemPage * kSystemPage);
  return bytes <= kSystemPage || mincore(page, 1, &has_page) != 0 || (has_page & 1) != 0;
}

// Only what has pages: what was never written reads as zeros. (SEEK_HOLE would go on to the end of
// all data.)
void DeviceMemory::Zero(size_t offset, size_t bytes) {
  const size_t end = offset + bytes;
  if (bytes <= kSystemPage) {  // as fast as to ask
    std::memset(reinterpret_cast<void*>(start_ + offset), 0, bytes);
    return;
  }
  for (size_t at = offset; at < end;) {
    const off_t data = lseek(file_, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno != ENXIO) Die("cmp sim: data of device memory");
    if (data < 0 || static_cast<size_t>(data) >= end) return;
    at = static_cast<size_t>(data);
    const size_t first = at / kSystemPage * kSystemPage;
    constexpr size_t kWindow = 16 * kSystemPage;  // a page that is not there is asked for as well
    const size_t length = std::min(end - first, kWindow);
    unsigned char has_pages[kWindow / kSystemPage];
    if (mincore(reinterpret_cast<void*>(start_ + first), length, has_pages) != 0)
      Die("cmp sim: pages of device memory");
    for (size_t page = first; page < first + length; page += kSystemPage) {
      const size_t next = std::min(page + kSystemPage, end);
      if ((has_pages[(page - first) / kSystemPage] & 1) != 0)
        std::memset(reinterpret_cast<void*>(start_ + at), 0, next - at);
      at = next;
    }
  }
}

void DeviceMemory::FreeSmall(size_t offset, size_t bytes) {
  const size_t chunk = offset / kPage * kPage;
  size_t& used = chunk_used_[chunk];
  used -= bytes;
  if (used == 0) {
    chunk_used_.erase(chunk);
    small_.Add(offset, bytes);
    small_.Withdraw(chunk, kPage);
    ReturnPages(chunk, kPage);
    return;
  }
  // What is not poisoned reads as fresh: any part of it may be handed out next.
  if (bytes > kSystemPage) Zero(offset, bytes);
  if (MayHaveData(offset, bytes)) {
    std::memset(reinterpret_cast<void*>(start_ + offset), kPoison,
                bytes > kSystemPage ? kSmallAlignment : bytes);
  }
  small_.Add(offset, bytes);
}

}  // namespace cmp::sim
