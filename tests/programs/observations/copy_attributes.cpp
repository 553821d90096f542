// Copies with attributes: what they wrote is there, and what they read may be overwritten, when a
// free has returned, in page-locked memory or not.
#include "scene.h"

namespace observations {

#if CUDA_VERSION >= 13000

namespace {

using SourceOrder = CUmemcpySrcAccessOrder;
constexpr auto kInOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;

// More than is staged of pageable memory.
constexpr size_t kAttributedBytes = size_t{256} << 10;

CUmemcpyAttributes ReadIn(SourceOrder order) {
  CUmemcpyAttributes attributes = {};
  attributes.srcAccessOrder = order;
  return attributes;
}

CUDA_MEMCPY3D_BATCH_OP BoxOf(CUdeviceptr to, CUdeviceptr from, size_t bytes, SourceOrder order) {
  CUDA_MEMCPY3D_BATCH_OP box = {};
  box.src.type = box.dst.type = CU_MEMCPY_OPERAND_TYPE_POINTER;
  box.src.op.ptr.ptr = from;
  box.dst.op.ptr.ptr = to;
  box.extent = {bytes, 1, 1};
  box.srcAccessOrder = order;
  return box;
}

// Copies kAttributedBytes. Before the copy in question, a list has one from `spare` to behind it.
struct AttributedWay {
  const char* name;
  void (*copy)(CUdeviceptr to, CUdeviceptr from, SourceOrder order, cudaStream_t stream,
               CUdeviceptr spare);
};

const AttributedWay kWays[] = {
    {"batch",
     [](CUdeviceptr to_last, CUdeviceptr from_last, SourceOrder order, cudaStream_t stream,
        CUdeviceptr spare) {
       CUdeviceptr to[] = {spare + 8, to_last};
       CUdeviceptr from[] = {spare, from_last};
       size_t bytes[] = {8, kAttributedBytes};
       CUmemcpyAttributes attributes[] = {ReadIn(kInOrder), ReadIn(order)};
       size_t first[] = {0, 1};
       MUST_DRIVER(cuMemcpyBatchAsync(to, from, bytes, 2, attributes, first, 2, stream));
     }},
    {"boxes",
     [](CUdeviceptr to, CUdeviceptr from, SourceOrder order, cudaStream_t stream,
        CUdeviceptr spare) {
       CUDA_MEMCPY3D_BATCH_OP boxes[] = {BoxOf(spare + 8, spare, 8, kInOrder),
                                         BoxOf(to, from, kAttributedBytes, order)};
       MUST_DRIVER(cuMemcpy3DBatchAsync(2, boxes, 0, stream));
     }},
    {"one",
     [](CUdeviceptr to, CUdeviceptr from, SourceOrder order, cudaStream_t stream, CUdeviceptr) {
       CUmemcpyAttributes attributes = ReadIn(order);
       MUST_DRIVER(cuMemcpyWithAttributesAsync(to, from, kAttributedBytes, &attributes, stream));
     }},
    {"box",
     [](CUdeviceptr to, CUdeviceptr from, SourceOrder order, cudaStream_t stream, CUdeviceptr) {
       CUDA_MEMCPY3D_BATCH_OP box = BoxOf(to, from, kAttributedBytes, order);
       MUST_DRIVER(cuMemcpy3DWithAttributesAsync(&box, 0, stream));
     }},
};

// For copies, a spare word behind them.
char* DeviceBlock() {
  char* block = Allocate(2 * kAttributedBytes);
  MUST(cudaMemset(block, 0, 2 * kAttributedBytes));
  MUST(cudaDeviceSynchronize());
  return block;
}

void ToHost(const AttributedWay& way, SourceOrder order, char* host) {
  char* device = DeviceBlock();
  for (const cudaStream_t stream : {NonBlockingStream(), cudaStream_t{cudaStreamPerThread}}) {
    const uint64_t value = NextValue();
    SetHostWord(host, 0);
    WriteWord(stream, device, value, kLong);
    way.copy(Address(host), Address(device), order, stream, Address(device + kAttributedBytes));
    FreeUnrelated();
    See("copied", HostWord(host), value);
    MUST(cudaDeviceSynchronize());
  }
}

void FromHost(const AttributedWay& way, SourceOrder order, char* host) {
  char* device = DeviceBlock();
  for (const cudaStream_t stream : {NonBlockingStream(), cudaStream_t{cudaStreamPerThread}}) {
    const uint64_t value = NextValue();
    SetHostWord(host, value);
    WriteWord(stream, device, 1, kLong);
    way.copy(Address(device), Address(host), order, stream, Address(device + kAttributedBytes));
    FreeUnrelated();
    SetHostWord(host, 0);  // the host has other plans for it
    MUST(cudaDeviceSynchronize());
    See("copied", WordOf(device), value);
  }
}

// Of a list of more blocks than anybody asks about, the last one is not the device's.
void FromPageableAmongMany() {
  constexpr size_t kCount = 40;
  char* device = DeviceBlock();
  static char source[kAttributedBytes];
  const cudaStream_t stream = NonBlockingStream();
  std::vector<CUdeviceptr> from;
  std::vector<CUdeviceptr> to;
  std::vector<size_t> bytes(kCount, 8);
  for (size_t i = 0; i < kCount; ++i) {
    from.push_back(Address(Allocate(4096)));
    to.push_back(Address(device + kAttributedBytes + 64 * i));
  }
  SetHostWord(source, 17);
  from.back() = Address(source);
  to.back() = Address(device);
  bytes.back() = kAttributedBytes;
  CUmemcpyAttributes attributes = ReadIn(CU_MEMCPY_SRC_ACCESS_ORDER_ANY);
  size_t first = 0;
  WriteWord(stream, device, 1, kLong);
  MUST_DRIVER(cuMemcpyBatchAsync(to.data(), from.data(), bytes.data(), kCount, &attributes, &first,
                                 1, stream));
  FreeUnrelated();
  SetHostWord(source, 0);
  MUST(cudaDeviceSynchronize());
  See("the last of many", WordOf(device), 17);
}

// With page-locked memory about, that nobody uses.
void OnDevice() {
  char* device = DeviceBlock();
  PageLocked();
  const cudaStream_t stream = NonBlockingStream();
  WriteWord(stream, device, 1, kLong);
  std::vector<CUdeviceptr> to;
  std::vector<CUdeviceptr> from;
  for (size_t i = 0; i < 100; ++i) {
    to.push_back(Address(device + kAttributedBytes + 2048 + 8 * i));
    from.push_back(Address(device + 8 * (i % 50)));
  }
  std::vector<size_t> bytes(100, 8);
  CUmemcpyAttributes attributes = ReadIn(CU_MEMCPY_SRC_ACCESS_ORDER_ANY);
  size_t first = 0;
  MUST_DRIVER(cuMemcpyBatchAsync(to.data(), from.data(), bytes.data(), 100, &attributes, &first, 1,
                                 stream));
  for (const AttributedWay& way : kWays) {
    way.copy(Address(device + kAttributedBytes), Address(device), kInOrder, stream,
             Address(device + kAttributedBytes));
  }
  FreeUnrelated();
  NoteRunning();
  MUST(cudaDeviceSynchronize());
}

}  // namespace

std::vector<Scenario> CopyAttributeScenarios() {
  std::vector<Scenario> scenarios;
  const auto add = [&](const std::string& name, const std::function<void()>& run) {
    scenarios.push_back({Expect::kVisible, "visible_copies", name, run});
  };
  static char pageable[64 + kAttributedBytes];
  char* host = pageable + 24;
  for (const AttributedWay& way : kWays) {
    const std::string name = std::string("-with-attributes-") + way.name;
    add("copy-to-host" + name, [way] { ToHost(way, kInOrder, PageLocked(kAttributedBytes)); });
    add("copy-from-host" + name, [way] { FromHost(way, kInOrder, PageLocked(kAttributedBytes)); });
    add("copy-to-pageable" + name, [=] { ToHost(way, kInOrder, host); });
    add("copy-to-pageable-any" + name, [=] { ToHost(way, CU_MEMCPY_SRC_ACCESS_ORDER_ANY, host); });
    add("copy-from-pageable-any" + name,
        [=] { FromHost(way, CU_MEMCPY_SRC_ACCESS_ORDER_ANY, host); });
    add("copy-from-pageable-during-call" + name,
        [=] { FromHost(way, CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL, host); });
  }
  add("copy-from-pageable-among-many", FromPageableAmongMany);
  scenarios.push_back({Expect::kQuiet, "-", "copies-with-attributes-on-device", OnDevice});
  return scenarios;
}

#else

std::vector<Scenario> CopyAttributeScenarios() { return {}; }

#endif

}  // namespace observations
