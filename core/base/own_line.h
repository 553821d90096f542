// What every hit reads and hardly anybody writes lies on cache lines that nothing else is on: who
// writes beside it would take the line away from every thread.
#ifndef CMP_CORE_BASE_OWN_LINE_H_
#define CMP_CORE_BASE_OWN_LINE_H_

#include <atomic>
#include <cstddef>

namespace cmp {

inline constexpr size_t kCacheLine = 64;

template <typename T>
struct alignas(kCacheLine) OwnLine : std::atomic<T> {
  using std::atomic<T>::atomic;
  using std::atomic<T>::operator=;
};
static_assert(sizeof(OwnLine<void*>) == kCacheLine);

}  // namespace cmp

#endif  // CMP_CORE_BASE_OWN_LINE_H_
