// The rules on which correctness rests, by name, so that a test build can switch one off and show
// that the tests notice. In every other build a rule is the constant true and costs nothing.
#ifndef CMP_CORE_BASE_RULES_H_
#define CMP_CORE_BASE_RULES_H_

namespace cmp {

enum class Rule {
  kFenceBeforeReuse,            // a block is handed out only once its fence has passed
  kFenceInEveryContext,         // and so have those of the process's other contexts
  kOrderOnSecondStream,         // a submission to another stream waits for the fence that is owed
  kOrderBeforeSynchronousCopy,  // so does a synchronous copy or set
  kOrderAcrossContexts,         // so does the freeing thread's next submission to another context
  kCopiesInEveryContext,        // a copy is noted in the contexts of both sides
  kStampProtocol,               // a free is covered by a fence that was begun after it
  kEventReuse,                  // an event is recorded again only once its fence has passed
  kCapture,                     // nothing is recorded while a capture is under way
  // CMP_FREE_SYNC=auto: a free waits while one of these is pending, or exists
  kVisibleCopies,
  kVisibleHostFunctions,
  kVisibleGraphs,
  kVisibleStreamMemory,
  kVisibleManaged,
  kVisibleMapped,
  kVisiblePageableAccess,
  kVisibleExports,
  kVisibleImports,
  kVisibleAttributes,
  kPayBeforeQueries,      // a query does not say "not ready" because of a wait that was skipped
  kWatchedFreesWait,      // a free waits while another thread asks (shim/work/watch.h)
  kWatchAfterSkip,        // which it looks for once more when it has published what it skips
  kSkipEndsWatch,         // who skips a wait looks at that when it asks next
  kAskAgain,              // what was skipped may have ended after the question was answered
  kPayBeforeDestruction,  // nothing is destroyed under work that a free would have waited for
  kPayAtExit,             // what was skipped is waited for before the process ends
  kFinishedIfBegunAfter,  // a synchronisation finishes only what was submitted before it began
  // CMP_HOST
  kPageLockedInEveryContext,  // a block is handed out once no context's work can touch it
  kPageLockedNewRange,        // what kernels use of it ends with its free
  kPageLockedQuietly,         // none is freed unasked while work is unfinished
  kPageLockedBound,           // no more is idle than CMP_HOST says
  // CMP_SHAKE
  kHoldsInVainBecomeFewer,
  kExitEndsHolds,
  kFreesThatMayWaitEndHolds,  // those during a capture
  kNoHoldOfWhatWaits,         // the host would wait for the hold itself
};

#ifdef CMP_TEST_RULES
bool RuleIsOn(Rule rule);  // core/base/rules.cpp: CMP_TEST_RULES_OFF=name,name
inline constexpr bool kRulesMayBeOff = true;
#else
constexpr bool RuleIsOn(Rule) { return true; }
inline constexpr bool kRulesMayBeOff = false;
#endif

}  // namespace cmp

#endif  // CMP_CORE_BASE_RULES_H_
