// The contexts of the process that have a pool.
//
// Invariant: a place goes from nullptr to a context and back; readers need no lock, since a
// ContextPool is never destroyed. One that is in no place is spare, and the next context's as soon
// as nobody holds it.
#ifndef CMP_CORE_CONTEXTS_CONTEXTS_H_
#define CMP_CORE_CONTEXTS_CONTEXTS_H_

#include "core/contexts/context_pool.h"
#include "core/contexts/device_links.h"

namespace cmp {

// May work of `other` use memory of `context`?
inline bool MayUse(const ContextPool& other, const ContextPool& context) {
  return g_device_links.Linked(other.device(), context.device());
}

class Contexts {
 public:
  static constexpr size_t kMost = 256;
  // Visits every context that was opened and not dropped, closed ones included, held meanwhile.
  template <typename Visitor>
  void ForEach(Visitor visit) const {
    ForEachIf([](const ContextPool&) { return true; }, visit);
  }
  // The same of those for which is(context), which looks only at what Glance may.
  template <typename Condition, typename Visitor>
  void ForEachIf(Condition is, Visitor visit) const {
    ForEachPlace([&](const std::atomic<ContextPool*>& place, ContextPool& context) {
      if (!is(context)) return;
      const HeldContext held(context);
      if (place.load(std::memory_order_acquire) == &context && is(context)) visit(context);
    });
  }
  // Visits them without holding them: each may be dropped meanwhile, and be the next context's.
  // For who only looks: at handle, device, whether it is open or may work, of_host, and what the
  // fences have passed.
  template <typename Visitor>
  void Glance(Visitor visit) const {
    ForEachPlace([&](const auto&, ContextPool& context) { visit(context); });
  }
  // How many there are. One is the usual case, and nothing else is to be asked then.
  unsigned count() const { return count_.load(std::memory_order_acquire); }

  // REQUIRES for all: lock() is held
  bool HasRoom() const { return count() < kMost; }
  // A record that nobody needs any more, held by the caller, or nullptr.
  ContextPool* TakeSpare() {
    for (ContextPool** link = &spare_; *link != nullptr; link = &(*link)->next_spare) {
      ContextPool* context = *link;
      if (!context->HoldSpare()) continue;
      *link = context->next_spare;
      return context;
    }
    return nullptr;
  }
  void PutSpare(ContextPool* context) {
    context->next_spare = spare_;
    spare_ = context;
  }
  // REQUIRES: HasRoom()
  void Add(ContextPool* context) {
    for (size_t i = 0; i < kMost; ++i) {
      if (places_[i].load(std::memory_order_relaxed) != nullptr) continue;
      count_.fetch_add(1, std::memory_order_acq_rel);  // before anybody finds it
      context->SetAmongSeveral(count() > 1);
      TellAll(count() > 1);
      places_[i].store(context, std::memory_order_release);
      if (i >= places_used_.load(std::memory_order_relaxed)) {
        places_used_.store(i + 1, std::memory_order_release);  // after the place
      }
      return;
    }
  }
  // False: it is not there.
  bool Remove(const ContextPool* context) {
    for (std::atomic<ContextPool*>& place : places_) {
      if (place.load(std::memory_order_relaxed) != context) continue;
      place.store(nullptr, std::memory_order_release);
      count_.fetch_sub(1, std::memory_order_acq_rel);
      TellAll(count() > 1);
      return true;
    }
    return false;
  }
  Mutex& lock() { return lock_; }

 private:
  void TellAll(bool several) {
    ForEachPlace([&](const auto&, ContextPool& context) { context.SetAmongSeveral(several); });
  }
  template <typename Visitor>
  void ForEachPlace(Visitor visit) const {
    const size_t used = places_used_.load(std::memory_order_acquire);
    for (size_t i = 0; i < used; ++i) {
      ContextPool* context = places_[i].load(std::memory_order_acquire);
      if (context != nullptr) visit(places_[i], *context);
    }
  }

  // Every free reads the count, and where there are several contexts the places; apart from what
  // others write.
  alignas(kCacheLine) std::atomic<unsigned> count_{0};
  std::atomic<size_t> places_used_{0};  // no place from here on was ever used
  std::atomic<ContextPool*> places_[kMost] = {};
  alignas(kCacheLine) Mutex lock_;
  ContextPool* spare_ = nullptr;  // through next_spare
};

}  // namespace cmp

#endif  // CMP_CORE_CONTEXTS_CONTEXTS_H_
