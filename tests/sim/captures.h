// Stream capture: which calls a capture forbids, and what kills it.
//
// The rules are those that probe.cpp measured. A capture that
// a forbidden call met is invalidated: it stays on its streams, and every use of them fails, until
// cuStreamEndCapture. Invariant: a stream has `capture` exactly while the capture has it in
// `streams`, and Simulation::captures holds those between begin and end. The caller holds the lock.
#ifndef CMP_TESTS_SIM_CAPTURES_H_
#define CMP_TESTS_SIM_CAPTURES_H_

#include "simulation.h"

namespace cmp::sim {

// A call that may implicitly synchronise (cudaMalloc, cudaFree, cuEventQuery, …): judged by the
// thread's mode and the captures' modes.
CUresult CheckUnsafeCall(Simulation& sim);
// A call on a whole context (synchronisation, context events): forbidden in every mode and from
// every thread.
CUresult CheckContextCall(Simulation& sim, const Context& context);
// A use of the legacy stream while a blocking stream of the context captures, in any mode.
// `only_asked`: the same error, and the capture lives (cuStreamIsCapturing).
CUresult CheckLegacyUse(Simulation& sim, const Context& context, bool only_asked = false);
// A synchronising or querying call on a stream: forbidden on a capturing one in every mode, on
// another one like any unsafe call.
CUresult CheckStreamCall(Simulation& sim, Stream& stream);

CUstreamCaptureMode ExchangeThreadMode(CUstreamCaptureMode mode);

CUresult BeginCapture(Simulation& sim, Stream& stream, CUstreamCaptureMode mode, CUgraph graph);
CUresult EndCapture(Simulation& sim, Stream& stream, CUgraph* graph);
CUresult AddToCapture(Stream& stream, Work work);
// The stream waits for an event recorded in a capture, and joins it when it has not yet.
CUresult JoinCapture(Stream& stream, const Event& event);
void LeaveCapture(Simulation& sim, Stream& stream);
CUresult Invalidate(Capture& capture);  // always CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED

}  // namespace cmp::sim

#endif  // CMP_TESTS_SIM_CAPTURES_H_
