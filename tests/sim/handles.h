// Handles of one kind: what the program holds, and whether it is still good.
//
// Invariant: a handle that was given back is the next one given out, as with the real driver's
// allocator, so that code which remembers a handle too long meets an alias and not merely an error.
#ifndef CMP_TESTS_SIM_HANDLES_H_
#define CMP_TESTS_SIM_HANDLES_H_

#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

namespace cmp::sim {

template <typename Handle, typename Object>
class HandleTable {
 public:
  // The handle is an address that nothing else has, so a handle of one kind is none of another.
  Handle Add(std::unique_ptr<Object> object) {
    const Handle handle = Reserve();
    objects_[handle] = std::move(object);
    return handle;
  }

  // A handle that stands for nothing yet, and later for one object after another.
  Handle Reserve() {
    if (free_.empty()) {
      for (int i = 0; i < 64; ++i) free_.push_back(new Slot[1]);
    }
    Slot* slot = free_.back();
    free_.pop_back();
    return reinterpret_cast<Handle>(slot);
  }
  void Put(Handle reserved, std::unique_ptr<Object> object) {
    objects_[reserved] = std::move(object);
  }

  Object* Find(Handle handle) const {
    const auto found = objects_.find(handle);
    return found == objects_.end() ? nullptr : found->second.get();
  }

  std::unique_ptr<Object> Remove(Handle handle, bool keep_reserved = false) {
    const auto found = objects_.find(handle);
    if (found == objects_.end()) return nullptr;
    std::unique_ptr<Object> object = std::move(found->second);
    objects_.erase(found);
    if (!keep_reserved) free_.push_back(reinterpret_cast<Slot*>(handle));
    return object;
  }

  const std::unordered_map<Handle, std::unique_ptr<Object>>& all() const { return objects_; }

 private:
  struct alignas(16) Slot {
    char bytes[16];
  };

  std::vector<Slot*> free_;
  std::unordered_map<Handle, std::unique_ptr<Object>> objects_;
};

}  // namespace cmp::sim

#endif  // CMP_TESTS_SIM_HANDLES_H_
