// Copies that say when their source is read: what they wrote is there, and what they read may be
// overwritten, when a free has returned, page-locked or not.
#include "scene.h"

namespace observations {

#if CUDA_VERSION >= 13000

namespace {

using SourceOrder = CUmemcpySrcAccessOrder;

CUmemcpyAttributes ReadIn(SourceOrder order) {
  CUmemcpyAttributes attributes = {};
  attributes.srcAccessOrder = order;
  return attributes;
}

CUDA_MEMCPY3D_BATCH_OP BoxOfWord(CUdeviceptr to, CUdeviceptr from, SourceOrder order) {
  CUDA_MEMCPY3D_BATCH_OP box = {};
  box.src.type = box.dst.type = CU_MEMCPY_OPERAND_TYPE_POINTER;
  box.src.op.ptr.ptr = from;
  box.dst.op.ptr.ptr = to;
  box.extent = {8, 1, 1};
  box.srcAccessOrder = order;
  return box;
}

// Copies a word. Before the copy in question, a list has one from `spare` to behind it.
struct Way {
  const char* name;
  void (*copy)(CUdeviceptr to, CUdeviceptr from, SourceOrder order, cudaStream_t stream,
               CUdeviceptr spare);
};

const Way kWays[] = {
    {"batch",
     [](CUdeviceptr to_word, CUdeviceptr from_word, SourceOrder order, cudaStream_t stream,
        CUdeviceptr spare) {
       CUdeviceptr to[] = {spare + 8, to_word};
       CUdeviceptr from[] = {spare, from_word};
       size_t bytes[] = {8, 8};
       CUmemcpyAttributes attributes[] = {ReadIn(CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL),
                                          ReadIn(order)};
       size_t first[] = {0, 1};
       MUST_DRIVER(cuMemcpyBatchAsync(to, from, bytes, 2, attributes, first, 2, stream));
     }},
    {"boxes",
     [](CUdeviceptr to, CUdeviceptr from, SourceOrder order, cudaStream_t stream,
        CUdeviceptr spare) {
       CUDA_MEMCPY3D_BATCH_OP boxes[] = {
           BoxOfWord(spare + 8, spare, CU_MEMCPY_SRC_ACCESS_ORDER_STREAM),
           BoxOfWord(to, from, order)};
       MUST_DRIVER(cuMemcpy3DBatchAsync(2, boxes, 0, stream));
     }},
    {"one",
     [](CUdeviceptr to, CUdeviceptr from, SourceOrder order, cudaStream_t stream, CUdeviceptr) {
       CUmemcpyAttributes attributes = ReadIn(order);
       MUST_DRIVER(cuMemcpyWithAttributesAsync(to, from, 8, &attributes, stream));
     }},
    {"box",
     [](CUdeviceptr to, CUdeviceptr from, SourceOrder order, cudaStream_t stream, CUdeviceptr) {
       CUDA_MEMCPY3D_BATCH_OP box = BoxOfWord(to, from, order);
       MUST_DRIVER(cuMemcpy3DWithAttributesAsync(&box, 0, stream));
     }},
};

void ToHost(const Way& way) {
  char* device = DeviceWord();
  char* host = PageLocked() + 512;
  for (const cudaStream_t stream : {NonBlockingStream(), cudaStream_t{cudaStreamPerThread}}) {
    const uint64_t value = NextValue();
    SetHostWord(host, 0);
    WriteWord(stream, device, value, kLong);
    way.copy(Address(host), Address(device), CU_MEMCPY_SRC_ACCESS_ORDER_STREAM, stream,
             Address(device + 1024));
    FreeUnrelated();
    See("copied", HostWord(host), value);
    MUST(cudaDeviceSynchronize());
  }
}

void FromHost(const Way& way, SourceOrder order, char* host) {
  char* device = DeviceWord();
  for (const cudaStream_t stream : {NonBlockingStream(), cudaStream_t{cudaStreamPerThread}}) {
    const uint64_t value = NextValue();
    SetHostWord(host, value);
    WriteWord(stream, device, 1, kLong);
    way.copy(Address(device), Address(host), order, stream, Address(device + 1024));
    FreeUnrelated();
    SetHostWord(host, 0);  // the host has other plans for it
    MUST(cudaDeviceSynchronize());
    See("copied", WordOf(device), value);
  }
}

// Of a list of more blocks than anybody asks about, the last one is not the device's.
void FromPageableAmongMany() {
  constexpr size_t kCount = 40;
  char* device = DeviceWord();
  const cudaStream_t stream = NonBlockingStream();
  std::vector<CUdeviceptr> from;
  std::vector<CUdeviceptr> to;
  std::vector<size_t> bytes(kCount, 8);
  for (size_t i = 0; i < kCount; ++i) {
    from.push_back(Address(Allocate(4096)));
    to.push_back(Address(device + 64 * i));
  }
  char word[8] = {};
  SetHostWord(word, 17);
  from.back() = Address(word);
  CUmemcpyAttributes attributes = ReadIn(CU_MEMCPY_SRC_ACCESS_ORDER_ANY);
  size_t first = 0;
  WriteWord(stream, device, 1, kLong);
  MUST_DRIVER(cuMemcpyBatchAsync(to.data(), from.data(), bytes.data(), kCount, &attributes, &first,
                                 1, stream));
  FreeUnrelated();
  SetHostWord(word, 0);
  MUST(cudaDeviceSynchronize());
  See("the last of many", WordOf(device + 64 * (kCount - 1)), 17);
}

// Lists of copies on the device, with page-locked memory about that nobody uses, and a source that
// is read before the call returns.
void OnDevice() {
  char* device = DeviceWord();
  PageLocked();
  const cudaStream_t stream = NonBlockingStream();
  char word[8] = {};
  SetHostWord(word, 17);
  WriteWord(stream, device, 1, kLong);
  std::vector<CUdeviceptr> to;
  std::vector<CUdeviceptr> from;
  for (size_t i = 0; i < 100; ++i) {
    to.push_back(Address(device + 2048 + 8 * i));
    from.push_back(Address(device + 8 * (i % 50)));
  }
  std::vector<size_t> bytes(100, 8);
  from.back() = Address(word);
  CUmemcpyAttributes attributes[] = {ReadIn(CU_MEMCPY_SRC_ACCESS_ORDER_ANY),
                                     ReadIn(CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL)};
  size_t first[] = {0, 99};
  MUST_DRIVER(
      cuMemcpyBatchAsync(to.data(), from.data(), bytes.data(), 100, attributes, first, 2, stream));
  SetHostWord(word, 0);
  for (const Way& way : kWays) {
    way.copy(Address(device + 64), Address(device), CU_MEMCPY_SRC_ACCESS_ORDER_STREAM, stream,
             Address(device + 1024));
  }
  FreeUnrelated();
  NoteRunning();
  MUST(cudaDeviceSynchronize());
  Check("read during the call", WordOf(device + 2048 + 8 * 99), 17);
}

}  // namespace

std::vector<Scenario> CopyAttributeScenarios() {
  std::vector<Scenario> scenarios;
  const auto add = [&](const std::string& name, const std::function<void()>& run) {
    scenarios.push_back({Expect::kVisible, "visible_copies", name, run});
  };
  static char pageable[64];
  for (const Way& way : kWays) {
    const std::string name = std::string("-with-attributes-") + way.name;
    add("copy-to-host" + name, [way] { ToHost(way); });
    add("copy-from-host" + name,
        [way] { FromHost(way, CU_MEMCPY_SRC_ACCESS_ORDER_STREAM, PageLocked() + 512); });
    add("copy-from-pageable-any" + name,
        [way] { FromHost(way, CU_MEMCPY_SRC_ACCESS_ORDER_ANY, pageable + 24); });
    add("copy-from-pageable-stream" + name,
        [way] { FromHost(way, CU_MEMCPY_SRC_ACCESS_ORDER_STREAM, pageable + 24); });
  }
  add("copy-from-pageable-among-many", FromPageableAmongMany);
  scenarios.push_back({Expect::kQuiet, "-", "copies-with-attributes-on-device", OnDevice});
  return scenarios;
}

#else

std::vector<Scenario> CopyAttributeScenarios() { return {}; }

#endif

}  // namespace observations
