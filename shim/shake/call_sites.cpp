#include "shim/shake/call_sites.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <initializer_list>

#include "core/base/dynamic_symbols.h"
#include "shim/loaded/loaded_objects.h"
#include "shim/loaded/nvidia_libraries.h"

namespace cmp {

namespace {

// Of <unwind.h>: to go on, and to end.
constexpr int kNextFrame = 0;
constexpr int kLastFrame = 4;

const char* FileName(const char* path) {
  const char* slash = strrchr(path, '/');
  return slash == nullptr ? path : slash + 1;
}

bool IsNamedAsCuda(const char* file) {
  for (const char* beginning : {"libcuda.so", "libcudart.so", "libcupti.so"}) {
    if (strncmp(file, beginning, strlen(beginning)) == 0) return true;
  }
  return false;
}

uint64_t HashText(const char* text) {
  uint64_t hash = 0;
  for (; *text != '\0'; ++text) hash = MixShake(hash, static_cast<unsigned char>(*text));
  return hash;
}

}  // namespace

void CallSite::Print(char* text, size_t bytes) const {
  if (count == 0) {
    snprintf(text, bytes, "-");
    return;
  }
  size_t at = 0;
  for (size_t i = 0; i < count && at < bytes; ++i) {
    at += static_cast<size_t>(snprintf(text + at, bytes - at, "%s%s+0x%zx", i == 0 ? "" : "<",
                                       frames[i].library, static_cast<size_t>(frames[i].offset)));
  }
}

struct CallSites::Walk {
  CallSites& sites;
  CallSite found;
  const Object* object;  // the program's, once it was reached
  KnownWalk known;
  bool can_be_known;
};

void CallSites::Begin() {
  void* unwinder = dlopen("libgcc_s.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (unwinder == nullptr) return;
  void* address_of = FindSymbol(unwinder, "_Unwind_GetIP");
  void* backtrace = FindSymbol(unwinder, "_Unwind_Backtrace");
  void* stack_of = FindSymbol(unwinder, "_Unwind_GetCFA");
  if (address_of == nullptr || backtrace == nullptr || stack_of == nullptr) return;
  stack_of_ = reinterpret_cast<uintptr_t (*)(void*)>(stack_of);
  address_of_ = reinterpret_cast<uintptr_t (*)(void*)>(address_of);
  backtrace_ = reinterpret_cast<int (*)(int (*)(void*, void*), void*)>(backtrace);
}

const CallSites::Object* CallSites::KnownObject(uintptr_t address) const {
  for (size_t i = 0; i < object_count_; ++i) {
    if (address >= objects_[i].begin && address < objects_[i].end) return &objects_[i];
  }
  return nullptr;
}

const CallSites::Object* CallSites::ObjectOf(uintptr_t address) {
  {
    const Held held(lock_);
    if (const Object* known = KnownObject(address)) return known;
  }
  const auto* code = reinterpret_cast<const void*>(address);
  const LoadedObject found = ObjectAround(code);
  if (!found.exists()) return nullptr;
  Object object = {found.begin, found.end, Owner::kProgram, {}};
  const char* file = found.path[0] == '\0' ? program_invocation_short_name : FileName(found.path);
  snprintf(object.name, sizeof(object.name), "%.63s", file);
  for (char* c = object.name; *c != '\0'; ++c) {
    if (static_cast<unsigned char>(*c) <= ' ' || *c == '<') *c = '_';  // what separates in the file
  }
  if (IsOurs(code)) {
    object.owner = Owner::kThisLibrary;
  } else if (IsNamedAsCuda(object.name) || IsNvidiaLibrary(code)) {
    object.owner = Owner::kCuda;
  }
  const Held held(lock_);
  // By another thread meanwhile: a walk tells by it whether it is still in the same object.
  if (const Object* known = KnownObject(address)) return known;
  if (object_count_ == kMostObjects) return nullptr;
  objects_[object_count_] = object;
  return &objects_[object_count_++];
}

bool CallSites::KnownWalk::StillStands(uintptr_t from) const {
  if (frame != from) return false;
  // The innermost first: where that one stands, the frame around it is there, and has the next.
  // What lies beyond a frame that is another one may be no stack at all.
  for (size_t i = 0; i < count; ++i) {
    const auto* place = reinterpret_cast<const uintptr_t*>(returns[i].place);
    if (*place != returns[i].address) return false;
  }
  return true;
}

// Where the return address to a frame stands is known on processors whose calls push it.
void CallSites::NoteReturn(Walk& walk, void* frame, uintptr_t address) {
  const uintptr_t place = walk.sites.stack_of_(frame) - sizeof(uintptr_t);
  KnownWalk& known = walk.known;
  if (place < known.frame) return;  // Here, and what it calls
  walk.can_be_known = walk.can_be_known && known.count < KnownWalk::kMost &&
                      *reinterpret_cast<const uintptr_t*>(place) == address;
  if (walk.can_be_known) known.returns[known.count++] = {place, address};
}

int CallSites::Visit(void* frame, void* data) {
  auto& walk = *static_cast<Walk*>(data);
  const uintptr_t address = walk.sites.address_of_(frame) - 1;
  NoteReturn(walk, frame, address + 1);
  const Object* object = walk.sites.ObjectOf(address);
  if (walk.object == nullptr) {
    if (object != nullptr && object->owner != Owner::kProgram) {
      return kNextFrame;
    }
    if (object == nullptr) return kLastFrame;  // generated code
    walk.object = object;
  } else if (object != walk.object) {
    return kLastFrame;
  }
  CallSite& found = walk.found;
  found.frames[found.count++] = {object->name, address - object->begin};
  return found.count == CallSite::kMost ? kLastFrame : kNextFrame;
}

[[gnu::noinline]] const CallSite* CallSites::Here() {
  if (backtrace_ == nullptr) return &kUnknownCallSite;
  const auto frame = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
  auto& of_frame = known_[MixShake(0, frame) % kKnownFrames];
  {
    const Held held(lock_);
    for (const KnownWalk& known : of_frame) {
      if (known.StillStands(frame)) return known.site;
    }
  }
  Walk walk{*this, {}, nullptr, {}, true};
  walk.known.frame = frame;
  backtrace_(&Visit, &walk);
  if (walk.found.count == 0) return &kUnknownCallSite;
  uint64_t hash = HashText(walk.object->name);
  for (size_t i = 0; i < walk.found.count; ++i) hash = MixShake(hash, walk.found.frames[i].offset);
  walk.found.hash = hash == 0 ? 1 : hash;
  walk.known.site = Intern(walk.found);
  if (walk.can_be_known && walk.known.count != 0) {
    const Held held(lock_);
    of_frame[next_known_++ % kKnownOfFrame] = walk.known;
  }
  return walk.known.site;
}

const CallSite* CallSites::Intern(const CallSite& site) {
  const Held held(lock_);
  for (size_t i = site.hash % kPlaces;; i = (i + 1) % kPlaces) {
    if (sites_[i].hash == site.hash) return &sites_[i];
    if (sites_[i].hash != 0) continue;
    if (site_count_ == kPlaces / 2) return &kUnknownCallSite;
    ++site_count_;
    sites_[i] = site;
    return &sites_[i];
  }
}

}  // namespace cmp
