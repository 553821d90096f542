// Driver entry points that load modules and libraries.
//
// An image is a text that declares variables, "global x 64; managed y 64"; there are no kernels in
// it. As measured, loading and unloading a module waits for its context, unloading a library for
// nothing.
#include <sstream>
#include <string_view>
#include <utility>

#include "driver_entry.h"

namespace cmp::sim {
namespace {

bool Parse(const char* text, Image* image) {
  std::istringstream declarations(text);
  std::string declaration;
  while (std::getline(declarations, declaration, ';')) {
    std::istringstream words(declaration);
    std::string kind;
    Image::Variable variable;
    if (!(words >> kind)) continue;  // nothing behind the last semicolon
    if (!(words >> variable.name >> variable.bytes) || variable.bytes == 0) return false;
    if (kind != "global" && kind != "managed") return false;
    variable.managed = kind == "managed";
    image->variables.push_back(std::move(variable));
  }
  return !image->variables.empty();
}

// Made when it is not there yet.
CUresult PlaceOf(Simulation& sim, Image& image, const Image::Variable& variable,
                 const Context* context, Image::Place* place) {
  const std::pair key{context == nullptr ? 0 : context->id, variable.name};
  const auto found = image.places.find(key);
  if (found != image.places.end()) {
    *place = found->second;
    return CUDA_SUCCESS;
  }
  const Allocation* allocation =
      sim.allocations.AllocateVariable(context, variable.bytes, variable.managed);
  if (allocation == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  *place = image.places[key] = {allocation->base, allocation->buffer_id};
  return CUDA_SUCCESS;
}

void Unplace(Simulation& sim, const Image& image, const char* how) {
  for (const auto& [key, place] : image.places) {
    Allocation* allocation = sim.allocations.FindBase(place.base);
    if (allocation == nullptr || allocation->buffer_id != place.buffer_id) continue;
    sim.hazards.NoteReleased(allocation->range(), how);
    sim.allocations.Release(*allocation);
  }
}

const Image::Variable* Find(const Image& image, const char* name) {
  for (const Image::Variable& variable : image.variables) {
    if (name != nullptr && variable.name == name) return &variable;
  }
  return nullptr;
}

CUresult Tell(Simulation& sim, Image& image, const Image::Variable& variable,
              const Context* context, CUdeviceptr* pointer, size_t* bytes) {
  Image::Place place;
  const CUresult result = PlaceOf(sim, image, variable, context, &place);
  if (result != CUDA_SUCCESS) return result;
  if (pointer != nullptr) *pointer = place.base;
  if (bytes != nullptr) *bytes = variable.bytes;
  return CUDA_SUCCESS;
}

// What the driver writes of a log. The size of its buffer is one of the option values, and where it
// says how much it has written; nothing, if it fails.
class Log {
 public:
  Log(const CUjit_option* options, void** values, unsigned count) {
    for (unsigned i = 0; i < count; ++i) {
      if (options[i] == CU_JIT_INFO_LOG_BUFFER) buffer_ = static_cast<char*>(values[i]);
      if (options[i] == CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES) size_ = &values[i];
    }
    if (size_ != nullptr) bytes_ = reinterpret_cast<uintptr_t>(std::exchange(*size_, nullptr));
  }
  CUresult Ends(CUresult result) const {
    constexpr std::string_view kText = "loaded";
    if (result != CUDA_SUCCESS || buffer_ == nullptr || bytes_ <= kText.size()) return result;
    buffer_[kText.copy(buffer_, kText.size())] = '\0';
    *size_ = reinterpret_cast<void*>(kText.size() + 1);
    return result;
  }

 private:
  char* buffer_ = nullptr;
  void** size_ = nullptr;
  size_t bytes_ = 0;
};

CUresult LoadModule(Simulation& sim, Lock& lock, CUmodule* handle, const void* text) {
  const CUresult unsafe = CheckUnsafeCall(sim);
  if (unsafe != CUDA_SUCCESS) return unsafe;
  Context* context = nullptr;
  const CUresult result = RequireContext(sim, &context);
  if (result != CUDA_SUCCESS) return result;
  if (handle == nullptr || text == nullptr) return CUDA_ERROR_INVALID_VALUE;
  auto module = std::make_unique<Module>();
  if (!Parse(static_cast<const char*>(text), &module->image)) return CUDA_ERROR_INVALID_IMAGE;
  module->context = context->handle;
  module->context_id = context->id;
  const CUresult drained = Drain(sim, lock, module->context);
  if (drained != CUDA_SUCCESS) return drained;
  context = sim.contexts.Find(module->context);
  for (const Image::Variable& variable : module->image.variables) {
    Image::Place place;
    const CUresult placed = PlaceOf(sim, module->image, variable, context, &place);
    if (placed == CUDA_SUCCESS) continue;
    Unplace(sim, module->image, "not loaded");
    return placed;
  }
  *handle = sim.modules.Add(std::move(module));
  return CUDA_SUCCESS;
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  return Enter("cuModuleLoadData",
               [&](Simulation& sim, Lock& lock) { return LoadModule(sim, lock, module, image); });
}

CUresult cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned int count,
                            CUjit_option* options, void** values) {
  const Log log(options, values, count);
  return log.Ends(Enter("cuModuleLoadDataEx", [&](Simulation& sim, Lock& lock) {
    return LoadModule(sim, lock, module, image);
  }));
}

CUresult cuModuleLoadFatBinary(CUmodule* module, const void* image) {
  return Enter("cuModuleLoadFatBinary",
               [&](Simulation& sim, Lock& lock) { return LoadModule(sim, lock, module, image); });
}

CUresult cuModuleUnload(CUmodule handle) {
  return Enter("cuModuleUnload", [&](Simulation& sim, Lock& lock) -> CUresult {
    const CUresult unsafe = CheckUnsafeCall(sim);
    if (unsafe != CUDA_SUCCESS) return unsafe;
    const Module* module = sim.modules.Find(handle);
    if (module == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    Context* context = nullptr;
    const CUresult known = RequireContext(sim, module->context, &context);
    if (known != CUDA_SUCCESS) return known;
    Drain(sim, lock, module->context);  // what it finds out is said from the next call on
    const std::unique_ptr<Module> removed = sim.modules.Remove(handle);
    if (removed == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    Unplace(sim, removed->image, "unloaded");
    return CUDA_SUCCESS;
  });
}

// Of a managed variable, too.
CUresult cuModuleGetGlobal_v2(CUdeviceptr* pointer, size_t* bytes, CUmodule handle,
                              const char* name) {
  return Enter("cuModuleGetGlobal_v2", [&](Simulation& sim, Lock&) -> CUresult {
    Module* module = sim.modules.Find(handle);
    if (module == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (name == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const Image::Variable* variable = Find(module->image, name);
    if (variable == nullptr) return CUDA_ERROR_NOT_FOUND;
    return Tell(sim, module->image, *variable, sim.contexts.Find(module->context), pointer, bytes);
  });
}

CUresult cuLibraryLoadData(CUlibrary* handle, const void* code, CUjit_option* options,
                           void** values, unsigned int count, CUlibraryOption*, void**,
                           unsigned int) {
  const Log log(options, values, count);
  return log.Ends(Enter("cuLibraryLoadData", [&](Simulation& sim, Lock&) -> CUresult {
    if (handle == nullptr || code == nullptr) return CUDA_ERROR_INVALID_VALUE;
    auto image = std::make_unique<Image>();
    if (!Parse(static_cast<const char*>(code), image.get())) return CUDA_ERROR_INVALID_IMAGE;
    *handle = sim.libraries.Add(std::move(image));
    return CUDA_SUCCESS;
  }));
}

CUresult cuLibraryUnload(CUlibrary handle) {
  return Enter("cuLibraryUnload", [&](Simulation& sim, Lock&) -> CUresult {
    const std::unique_ptr<Image> removed = sim.libraries.Remove(handle);
    if (removed == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    Unplace(sim, *removed, "unloaded without a wait");
    return CUDA_SUCCESS;
  });
}

CUresult cuLibraryGetGlobal(CUdeviceptr* pointer, size_t* bytes, CUlibrary library,
                            const char* name) {
  return Enter("cuLibraryGetGlobal", [&](Simulation& sim, Lock&) -> CUresult {
    Image* image = sim.libraries.Find(library);
    if (image == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    Context* context = nullptr;
    const CUresult result = RequireContext(sim, &context);
    if (result != CUDA_SUCCESS) return result;
    const Image::Variable* variable = Find(*image, name);
    if (variable == nullptr || variable->managed) return CUDA_ERROR_NOT_FOUND;
    return Tell(sim, *image, *variable, context, pointer, bytes);
  });
}

// Needs no context.
CUresult cuLibraryGetManaged(CUdeviceptr* pointer, size_t* bytes, CUlibrary library,
                             const char* name) {
  return Enter("cuLibraryGetManaged", [&](Simulation& sim, Lock&) -> CUresult {
    Image* image = sim.libraries.Find(library);
    if (image == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    const Image::Variable* variable = Find(*image, name);
    if (variable == nullptr || !variable->managed) return CUDA_ERROR_NOT_FOUND;
    return Tell(sim, *image, *variable, nullptr, pointer, bytes);
  });
}

}  // extern "C"
