#include "shim/visible/visible_memory.h"

#include <string.h>

#include <new>

#include "core/base/memory.h"
#include "core/driver/driver.h"
#include "core/pool/pool_instance.h"
#include "shim/loaded/nvidia_libraries.h"
#include "shim/lookup/lookup.h"

namespace cmp {

// release on the way in, so that no store of the change comes before the odd number; and on the way
// out, so that none comes after the even one.
class VisibleMemory::Change {
 public:
  explicit Change(VisibleMemory& memory) : memory_(memory), held_(memory.lock_) {
    memory_.changes_.fetch_add(1, std::memory_order_acq_rel);
  }
  ~Change() { memory_.changes_.fetch_add(1, std::memory_order_release); }
  Change(const Change&) = delete;
  Change& operator=(const Change&) = delete;

 private:
  VisibleMemory& memory_;
  const Held<Mutex> held_;
};

struct VisibleMemory::Nodes {
  Node nodes[127];
  Nodes* more = nullptr;
};

// acquire, so that a reader's look at changes_ stays behind its loads.
VisibleMemory::Range VisibleMemory::Load(const Node& node) {
  return {node.begin.load(std::memory_order_acquire), node.end.load(std::memory_order_acquire),
          node.context.load(std::memory_order_acquire), node.what.load(std::memory_order_acquire)};
}

bool VisibleMemory::IsPageLocked(uintptr_t address) const {
  if (!HasPageLocked()) return incomplete_.load(std::memory_order_relaxed);
  for (Pause pause;; pause.Wait()) {
    const uint32_t changes = changes_.load(std::memory_order_acquire);
    if (changes % 2 != 0) continue;
    const Node* below = nullptr;
    // In a change there may be circles.
    for (const Node* node = root_.load(std::memory_order_acquire);
         node != nullptr && changes_.load(std::memory_order_acquire) == changes;) {
      const bool is_below = node->begin.load(std::memory_order_acquire) <= address;
      if (is_below) below = node;
      node = (is_below ? node->more : node->less).load(std::memory_order_acquire);
    }
    const Range range = below == nullptr ? Range{} : Load(*below);
    if (changes_.load(std::memory_order_acquire) != changes) continue;
    if (address < range.end) return range.what != Visible::kManaged;
    return incomplete_.load(std::memory_order_relaxed);
  }
}

VisibleMemory::Node* VisibleMemory::TakeNode() {
  if (unused_ == nullptr) {
    void* memory = MapPages(sizeof(Nodes));
    if (memory == nullptr) return nullptr;
    auto* nodes = new (memory) Nodes;
    nodes->more = nodes_;
    nodes_ = nodes;
    for (Node& node : nodes->nodes) {
      node.less.store(unused_, std::memory_order_release);
      unused_ = &node;
    }
  }
  Node* node = unused_;
  unused_ = node->less.load(std::memory_order_relaxed);
  random_ ^= random_ << 13;  // Marsaglia, "Xorshift RNGs"
  random_ ^= random_ >> 17;
  random_ ^= random_ << 5;
  node->priority = random_;
  return node;
}

VisibleMemory::Node* VisibleMemory::AtOrBelow(uintptr_t address) {
  Node* below = nullptr;
  for (Node* node = root_.load(std::memory_order_relaxed); node != nullptr; ++steps_) {
    const bool is_below = node->begin.load(std::memory_order_relaxed) <= address;
    if (is_below) below = node;
    node = (is_below ? node->more : node->less).load(std::memory_order_relaxed);
  }
  return below;
}

// Its place is where the first node of a lower priority is, whose tree is split between its two.
void VisibleMemory::Insert(Node* node) {
  const uintptr_t begin = node->begin.load(std::memory_order_relaxed);
  const auto is_less = [begin](const Node* of) {
    return of->begin.load(std::memory_order_relaxed) < begin;
  };
  Link* link = &root_;
  Node* at = link->load(std::memory_order_relaxed);
  for (; at != nullptr && at->priority >= node->priority; ++steps_) {
    link = is_less(at) ? &at->more : &at->less;
    at = link->load(std::memory_order_relaxed);
  }
  link->store(node, std::memory_order_release);
  Link* less = &node->less;
  Link* more = &node->more;
  for (; at != nullptr; ++steps_) {
    Link** side = is_less(at) ? &less : &more;
    (*side)->store(at, std::memory_order_release);
    *side = side == &less ? &at->more : &at->less;
    at = (*side)->load(std::memory_order_relaxed);
  }
  less->store(nullptr, std::memory_order_release);
  more->store(nullptr, std::memory_order_release);
  Count(*node, 1);
}

// Its two trees become one in its place.
void VisibleMemory::Erase(Node* node) {
  Link* link = &root_;
  for (Node* at; (at = link->load(std::memory_order_relaxed)) != node; ++steps_) {
    const bool is_less =
        at->begin.load(std::memory_order_relaxed) < node->begin.load(std::memory_order_relaxed);
    link = is_less ? &at->more : &at->less;
  }
  Node* less = node->less.load(std::memory_order_relaxed);
  Node* more = node->more.load(std::memory_order_relaxed);
  for (; less != nullptr && more != nullptr; ++steps_) {
    const bool is_less = less->priority >= more->priority;
    Node*& upper = is_less ? less : more;
    link->store(upper, std::memory_order_release);
    link = is_less ? &upper->more : &upper->less;
    upper = link->load(std::memory_order_relaxed);
  }
  link->store(less != nullptr ? less : more, std::memory_order_release);
  Count(*node, -1);
  node->end.store(0, std::memory_order_release);
  node->less.store(unused_, std::memory_order_release);
  unused_ = node;
}

void VisibleMemory::Count(const Node& node, int change) {
  const auto by = static_cast<size_t>(change);
  const Visible what = node.what.load(std::memory_order_relaxed);
  if (what == Visible::kManaged) {
    const size_t bytes =
        node.end.load(std::memory_order_relaxed) - node.begin.load(std::memory_order_relaxed);
    managed_bytes_.fetch_add(by * bytes, std::memory_order_relaxed);
  }
  count_.fetch_add(by, std::memory_order_release);
  if (what != Visible::kManaged) page_locked_.fetch_add(by, std::memory_order_release);
  const bool exists = (of_kind_[static_cast<unsigned>(what)] += by) != 0;
  if (what == Visible::kCopies) return;
  if (exists) {
    ranges_.fetch_or(BitOf(what), std::memory_order_release);
  } else {
    ranges_.fetch_and(~BitOf(what), std::memory_order_release);
  }
}

void VisibleMemory::Add(const Range& range) {
  const Change change(*this);
  // What is there already has gone in a way that nobody saw.
  for (Node* at; (at = AtOrBelow(range.end - 1)) != nullptr &&
                 at->end.load(std::memory_order_relaxed) > range.begin;) {
    Erase(at);
  }
  Node* node = TakeNode();
  if (node == nullptr) {
    incomplete_.store(true, std::memory_order_relaxed);
    if (range.what != Visible::kCopies) NoteForGood(range.what);
    return;
  }
  node->begin.store(range.begin, std::memory_order_release);
  node->end.store(range.end, std::memory_order_release);
  node->context.store(range.context, std::memory_order_release);
  node->what.store(range.what, std::memory_order_release);
  Insert(node);
}

VisibleMemory::Range VisibleMemory::Remove(uintptr_t begin) {
  const Change change(*this);
  Node* node = AtOrBelow(begin);
  if (node == nullptr) return Range{};
  const Range range = Load(*node);
  if (range.begin != begin) return Range{};
  Erase(node);
  return range;
}

void VisibleMemory::Become(Node* node, Visible what) {
  Count(*node, -1);
  node->what.store(what, std::memory_order_release);
  Count(*node, 1);
}

void VisibleMemory::SetMapped(uintptr_t address) {
  const Change change(*this);
  Node* node = AtOrBelow(address);
  if (node == nullptr) return;
  const Range range = Load(*node);
  if (address >= range.end || range.what != Visible::kCopies) return;
  Become(node, Visible::kMapped);
}

void VisibleMemory::SetWhat(uintptr_t begin, Visible what) {
  const Change change(*this);
  Node* node = AtOrBelow(begin);
  if (node != nullptr && Load(*node).begin == begin) {
    Become(node, what);
  } else if (what != Visible::kCopies) {
    NoteForGood(what);  // there was no memory to add it
  }
}

void VisibleMemory::ContextEnds(uint64_t context) {
  if (count_.load(std::memory_order_acquire) == 0) return;
  const Change change(*this);
  for (Nodes* nodes = nodes_; nodes != nullptr; nodes = nodes->more) {
    for (Node& node : nodes->nodes) {
      const Range range = Load(node);
      if (range.end != 0 && range.context == context) Erase(&node);
    }
  }
}

Visible VisibleMemory::First(uint32_t exists) {
  const auto is = [exists](Visible what, Rule rule) {
    return (exists & BitOf(what)) != 0 && RuleIsOn(rule);
  };
  if (is(Visible::kManaged, Rule::kVisibleManaged)) return Visible::kManaged;
  if (is(Visible::kMapped, Rule::kVisibleMapped)) return Visible::kMapped;
  if (is(Visible::kPageableAccess, Rule::kVisiblePageableAccess)) return Visible::kPageableAccess;
  if (is(Visible::kExports, Rule::kVisibleExports)) return Visible::kExports;
  if (is(Visible::kImports, Rule::kVisibleImports)) return Visible::kImports;
  if (is(Visible::kAttributes, Rule::kVisibleAttributes)) return Visible::kAttributes;
  return Visible::kNothing;
}

void VisibleMemory::Forget() { new (this) VisibleMemory; }

void NoteShared(Visible what, const void* caller) {
  if (!IsNvidiaLibrary(caller)) g_visible_memory.NoteForGood(what);
}

void AddRange(Visible what, uintptr_t begin, size_t bytes, const void* caller) {
  const Driver* driver = LoadedDriver();
  if (driver == nullptr || bytes == 0 || IsNvidiaLibrary(caller)) return;
  const uint64_t context = ContextId(*driver, CurrentContext(*driver));
  g_visible_memory.Add({begin, begin + bytes, context, what});
}

void NotePlace(int type, const CUmemLocation& place, const void* caller) {
  constexpr int kManagedType = 2;  // CU_MEM_ALLOCATION_TYPE_MANAGED, CUDA 13.0
  // CU_MEM_LOCATION_TYPE_HOST, _HOST_NUMA, _HOST_NUMA_CURRENT, which older headers lack
  const int where = static_cast<int>(place.type);
  if (type == kManagedType) NoteShared(Visible::kManaged, caller);
  if (where >= 2 && where <= 4) NoteShared(Visible::kMapped, caller);
}

void MakeRoomForManaged(size_t more) {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  const Driver* driver = LoadedDriver();
  if (pool == nullptr || driver == nullptr || t_inside_real != 0) return;
  const Uncancelled uncancelled;
  pool->LeaveRoomForManaged(more, *driver);
}

}  // namespace cmp
