#include "shim/shake/streams.h"

#include <algorithm>

namespace cmp {

bool AreOrdered(const ShakeStream& one, const ShakeStream& other) {
  return one.name == other.name || (one.name == kLegacyStream && other.blocking) ||
         (other.name == kLegacyStream && one.blocking);
}

bool IsWaitedFor(StreamName name, const ShakeStream& stream) {
  return name == kSeveralStreams || name == stream.name ||
         (name == kLegacyStream && stream.blocking);
}

ShakeStream* ShakeStreams::Find(StreamName name) {
  ShakeStream* const found =
      std::find_if(begin(), end(), [=](const ShakeStream& stream) { return stream.name == name; });
  return found == end() ? nullptr : found;
}

ShakeStream* ShakeStreams::Add(StreamName name, bool blocking, uint64_t owner) {
  if (ShakeStream* stream = Find(name)) return stream;
  ShakeStream* stream = Find(kNoStream);
  if (stream == nullptr) {
    if (places_ == kMost) return nullptr;
    stream = &streams_[places_++];
  }
  const auto any = [this](auto is) {
    return std::any_of(begin(), end(), [=](const ShakeStream& other) {
      return other.name != kNoStream && is(other);
    });
  };
  StreamOrdinal ordinal = 0;
  uint64_t who = 0;
  if (IsOfCurrentContext(name)) {
    ordinal = name == kLegacyStream ? kOrdinalLegacy : kOrdinalPerThread;
    who = static_cast<uint64_t>(ordinal);
  } else {
    while (any([=](const ShakeStream& other) { return other.ordinal == ordinal; })) ++ordinal;
    uint64_t turn = 0;
    do {
      who = MixShake(owner, turn++);
    } while (any([=](const ShakeStream& other) { return other.who == who; }));
  }
  *stream = {name, ordinal, who, blocking};
  return stream;
}

}  // namespace cmp
