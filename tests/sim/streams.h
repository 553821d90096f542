// Streams, and how a submission to one becomes an item of the scheduler or a node of a capture.
//
// The order that an item gets: after the last item of its stream; after what the context was told
// to wait for; an item of the legacy stream after the last items of all blocking streams, and an
// item of a blocking stream (the per-thread ones among them) after the legacy stream's last item.
// The caller holds the lock.
#ifndef CMP_TESTS_SIM_STREAMS_H_
#define CMP_TESTS_SIM_STREAMS_H_

#include "simulation.h"

namespace cmp::sim {

Stream* CreateStream(Simulation& sim, Context& context, unsigned flags, int priority);
// What is pending on it stays pending. A capture that it takes part in is invalidated.
void RemoveStream(Simulation& sim, Stream& stream);

enum class DefaultStream { kLegacy, kPerThread };  // what the handle 0 means to this entry point
inline constexpr auto kLegacy = DefaultStream::kLegacy;
inline constexpr auto kPerThread = DefaultStream::kPerThread;

// The stream that a handle means, or why it means none; an unknown handle is counted as misuse.
CUresult RequireStream(Simulation& sim, CUstream handle, DefaultStream null_means, Stream** stream);
Stream& LegacyStream(Simulation& sim, Context& context);
Stream& PerThreadStream(Simulation& sim, Context& context);

// Into the stream's capture when it is capturing; `item` is then null. Another thread's waiting
// free holds it up.
CUresult SubmitWork(Simulation& sim, Stream& stream, Work work, ItemPtr* item = nullptr,
                    const ItemPtr& after = nullptr, const std::vector<Context*>& runs_in = {});
// The same, but for what is not held up.
CUresult SubmitAtOnce(Simulation& sim, Stream& stream, Work work, ItemPtr* item = nullptr,
                      const ItemPtr& after = nullptr, const std::vector<Context*>& runs_in = {});
// The last items that run in the context: of all streams that it includes, of those gone as well,
// and of others.
std::vector<ItemPtr> AllTails(Simulation& sim, Context& context);
// What synchronising with the stream has to wait for.
std::vector<ItemPtr> TailsToWaitFor(Stream& stream);

}  // namespace cmp::sim

#endif  // CMP_TESTS_SIM_STREAMS_H_
