#include "replay_trace.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <unordered_map>

#include "shim/record/trace_format.h"

namespace cmp::replay {

namespace {

struct ThreadRecord {
  unsigned thread;
  size_t place;  // in the file
  TraceRecord record;
  bool Allocates() const { return record.outcome <= static_cast<unsigned>(TraceOutcome::failed); }
  bool Is(TraceOutcome outcome) const { return record.outcome == static_cast<unsigned>(outcome); }
  uint64_t Moment() const { return record.begin_ns + (Allocates() ? record.cost_ns : 0); }
};

std::vector<ThreadRecord> ReadRecords(const TraceChunk* chunks, size_t chunk_count) {
  std::vector<ThreadRecord> records;
  std::unordered_map<uint64_t, unsigned> threads;
  for (size_t i = 1; i < chunk_count; ++i) {
    const TraceChunk& chunk = chunks[i];
    const uint32_t count = std::min(chunk.count, chunk.kRecords);
    if (count == 0) continue;
    const auto next = static_cast<unsigned>(threads.size());
    const unsigned thread = threads.try_emplace(chunk.thread, next).first->second;
    for (uint32_t j = 0; j < count; ++j) {
      if (chunk.records[j].page_locked != 0) continue;  // not of the device
      records.push_back({thread, records.size(), chunk.records[j]});
    }
  }
  return records;
}

}  // namespace

Wrong ReadTrace(const void* data, size_t size, Trace* trace) {
  const auto* header = static_cast<const TraceHeader*>(data);
  if (size < kTraceChunkBytes ||
      std::memcmp(header->magic, kTraceMagic, sizeof(header->magic)) != 0) {
    return {"not a trace"};
  }
  if (header->schema < kOldestTraceSchema || header->schema > kTraceSchema) {
    Wrong wrong;
    std::snprintf(wrong.text, sizeof(wrong.text), "a trace of format %u; this cmp-replay reads %u",
                  unsigned{header->schema}, unsigned{kTraceSchema});
    return wrong;
  }
  if (header->chunk_bytes != kTraceChunkBytes || header->record_bytes != sizeof(TraceRecord)) {
    return {"the file is damaged"};
  }
  std::vector<ThreadRecord> records =
      ReadRecords(static_cast<const TraceChunk*>(data), size / kTraceChunkBytes);
  std::sort(records.begin(), records.end(), [](const auto& left, const auto& right) {
    const uint64_t one = left.Moment();
    const uint64_t other = right.Moment();
    return one != other ? one < other : left.place < right.place;
  });
  trace->objects = std::make_unique<Object[]>(records.size());
  std::unordered_map<uint64_t, uint32_t> live;
  const auto add = [&](const ThreadRecord& from, bool allocates, uint32_t object) {
    if (from.thread >= trace->of_thread.size()) trace->of_thread.resize(from.thread + 1);
    trace->of_thread[from.thread].push_back(static_cast<uint32_t>(trace->calls.size()));
    trace->calls.push_back({from.Moment(), from.thread, allocates, object});
  };
  for (const ThreadRecord& from : records) {
    const auto found = live.find(from.record.address);
    if (from.Is(TraceOutcome::failed) || from.Is(TraceOutcome::double_free) ||
        (!from.Allocates() && found == live.end())) {
      ++trace->skipped;
    } else if (!from.Allocates()) {
      add(from, false, found->second);
      live.erase(found);
    } else {
      // An address that is given again was freed where nobody saw it: a context's end.
      if (found != live.end()) add(from, false, found->second);
      Object& object = trace->objects[trace->object_count];
      object.bytes = from.record.bytes;
      object.device = from.record.device;
      trace->devices = std::max(trace->devices, object.device + 1);
      live[from.record.address] = trace->object_count;
      add(from, true, trace->object_count++);
    }
  }
  return {};
}

}  // namespace cmp::replay
