// The table in shim/work/work_state.h, row by row, in every state that there is: the state before,
// what happens, the state after.
#include "shim/work/work_state.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

namespace cmp {
namespace {

constexpr StreamName kNone = kNoStream;
constexpr StreamName kStreamA = 0xa000;
constexpr StreamName kStreamB = 0xb000;
constexpr StreamName kSeveral = kSeveralStreams;

constexpr uint64_t kOlderFence = 40;  // the one that began last before what happens
constexpr uint64_t kFence = 50;       // the one that begins
constexpr uint64_t kDebt = 30;

std::string NameOf(StreamName streams) {
  if (streams == kNone) return "-";
  if (streams == kSeveral) return "several";
  return streams == kStreamA ? "a" : streams == kStreamB ? "b" : "another";
}

std::string InWords(const WorkState& state) {
  return "since " + NameOf(state.since) + ", unfinished " + NameOf(state.unfinished) + ", debt " +
         std::to_string(state.debt) + " of " + NameOf(state.debt_of) +
         (state.unnoted ? ", unnoted" : "");
}

// What stands in a column of the table.
using Streams = std::function<StreamName(const WorkState& before)>;
using Debt = std::function<uint64_t(const WorkState& before)>;
using Unnoted = std::function<bool(const WorkState& before)>;

StreamName Plus(StreamName some, StreamName more) {
  if (some == kNone || some == more) return more;
  return more == kNone ? some : kSeveral;
}
Streams Always(StreamName streams) {
  return [=](const WorkState&) { return streams; };
}
Streams Same(StreamName WorkState::*column) {
  return [=](const WorkState& before) { return before.*column; };
}
Streams And(StreamName WorkState::*column, StreamName stream) {
  return [=](const WorkState& before) { return Plus(before.*column, stream); };
}
StreamName AfterEnd(StreamName streams, StreamName ended) {
  const bool may_be_it = ended == kSeveral ? streams != kNone : streams == ended;
  return may_be_it ? kSeveral : streams;
}
Streams Ended(StreamName WorkState::*column, StreamName ended) {
  return [=](const WorkState& before) { return AfterEnd(before.*column, ended); };
}

const Streams kSameSince = Same(&WorkState::since);
const Streams kSameUnfinished = Same(&WorkState::unfinished);
const Streams kSameDebtOf = Same(&WorkState::debt_of);
const Debt kSameDebt = [](const WorkState& before) { return before.debt; };
const Debt kNoDebt = [](const WorkState&) { return uint64_t{0}; };
const Unnoted kSameUnnoted = [](const WorkState& before) { return before.unnoted; };
const Unnoted kNo = [](const WorkState&) { return false; };
const Unnoted kYes = [](const WorkState&) { return true; };

struct Row {
  std::string what;
  std::function<void(WorkState&)> happens;
  Streams since;
  Streams unfinished;
  Debt debt;
  Streams debt_of;
  Unnoted unnoted;
};

// What the fences have passed when something happens: the fence that began last, or less.
struct Passed {
  uint64_t number;
  // The column "=".
  Streams unfinished() const { return number >= kOlderFence ? kSameSince : kSameUnfinished; }
};

std::vector<Row> RowsOf(Passed passed) {
  const WorkState::Beginning fence{kFence, kFence, passed.number};
  const Streams is = passed.unfinished();
  const bool is_passed = passed.number >= kOlderFence;
  std::vector<Row> rows = {
      {"Begin", [](WorkState& s) { s.Begin(); },  //
       Always(kSeveral), Always(kSeveral), kNoDebt, Always(kNone), kNo},
      {"End", [](WorkState& s) { s.End(); },  //
       kSameSince, kSameUnfinished, kNoDebt, Always(kNone), kSameUnnoted},
      {"FenceForOrderBegins", [=](WorkState& s) { s.FenceForOrderBegins(fence); },  //
       Always(kNone), is,
       [](const WorkState& before) { return before.since == kNone ? before.debt : kFence; },
       [](const WorkState& before) { return Plus(before.debt_of, before.since); }, kSameUnnoted},
      {"FenceForReuseBegins in the only context",
       [=](WorkState& s) { s.FenceForReuseBegins(fence, false); },  //
       kSameSince, is, kSameDebt, kSameDebtOf, kSameUnnoted},
      {"FenceForReuseBegins in one of several",
       [=](WorkState& s) { s.FenceForReuseBegins(fence, true); },  //
       kSameSince, is, kSameDebt, kSameDebtOf, kYes},
      {"FenceOwingNothingBegins", [=](WorkState& s) { s.FenceOwingNothingBegins(fence); },  //
       Always(kNone), is, kSameDebt, kSameDebtOf, kSameUnnoted},
      {"Paid", [](WorkState& s) { s.Paid(kDebt); },  //
       kSameSince, kSameUnfinished, kNoDebt, Always(kNone), kSameUnnoted},
      {"Paid, but it is another debt by now", [](WorkState& s) { s.Paid(kDebt - 1); },  //
       kSameSince, kSameUnfinished, kSameDebt, kSameDebtOf, kSameUnnoted},
      {"WaitBegins", [=](WorkState& s) { s.WaitBegins(passed.number); },  //
       kSameSince, is, kSameDebt, kSameDebtOf, kSameUnnoted},
      {"AllFinished", [](WorkState& s) { s.AllFinished(); },  //
       Always(kNone), Always(kNone), kNoDebt, Always(kNone), kSameUnnoted},
      {"AnyStreamEnds", [](WorkState& s) { s.AnyStreamEnds(); },  //
       Ended(&WorkState::since, kSeveral), Ended(&WorkState::unfinished, kSeveral), kSameDebt,
       Ended(&WorkState::debt_of, kSeveral), kSameUnnoted},
  };
  for (const StreamName stream : {kStreamA, kStreamB, kSeveral}) {
    rows.push_back({"Submitted to " + NameOf(stream), [=](WorkState& s) { s.Submitted(stream); },
                    And(&WorkState::since, stream), And(&WorkState::unfinished, stream), kSameDebt,
                    kSameDebtOf, kNo});
  }
  for (const StreamName stream : {kStreamA, kStreamB}) {
    rows.push_back({"StreamEnds: " + NameOf(stream), [=](WorkState& s) { s.StreamEnds(stream); },
                    Ended(&WorkState::since, stream), Ended(&WorkState::unfinished, stream),
                    kSameDebt, Ended(&WorkState::debt_of, stream), kSameUnnoted});
  }
  const std::function<void(WorkState&)> beginnings[] = {
      [=](WorkState& s) { s.FenceForOrderBegins(fence); },
      [=](WorkState& s) { s.FenceForReuseBegins(fence, false); },
      [=](WorkState& s) { s.FenceForReuseBegins(fence, true); },
      [=](WorkState& s) { s.FenceOwingNothingBegins(fence); },
  };
  for (const auto& begins : beginnings) {
    rows.push_back({is_passed ? "FenceFailed (=)" : "FenceFailed",
                    [=](WorkState& s) {
                      begins(s);
                      s.FenceFailed();
                    },
                    Always(kSeveral), Always(kSeveral), kSameDebt,
                    [](const WorkState& before) { return before.debt == 0 ? kNone : kSeveral; },
                    kNo});
  }
  return rows;
}

// What is in `since` is in `unfinished`, too.
bool Holds(StreamName unfinished, StreamName since) {
  return since == kNone || unfinished == since || unfinished == kSeveral;
}

std::vector<WorkState> AllStates() {
  std::vector<WorkState> states;
  const StreamName sets[] = {kNone, kStreamA, kStreamB, kSeveral};
  for (const StreamName since : sets) {
    for (const StreamName unfinished : sets) {
      if (!Holds(unfinished, since)) continue;
      for (const StreamName debt_of : sets) {
        for (const bool unnoted : {false, true}) {
          WorkState state;
          state.since = since;
          state.unfinished = unfinished;
          state.debt = debt_of == kNone ? 0 : kDebt;
          state.debt_of = debt_of;
          state.unnoted = unnoted;
          state.begun = kOlderFence;
          states.push_back(state);
        }
      }
    }
  }
  return states;
}

TEST(WorkStateTest, EveryRowOfTheTableInEveryState) {
  const std::vector<WorkState> states = AllStates();
  EXPECT_EQ(states.size(), 72u);
  for (const Passed passed : {Passed{kOlderFence - 1}, Passed{kOlderFence}}) {
    for (const Row& row : RowsOf(passed)) {
      for (const WorkState& before : states) {
        WorkState after = before;
        row.happens(after);
        WorkState wanted = before;
        wanted.since = row.since(before);
        wanted.unfinished = row.unfinished(before);
        wanted.debt = row.debt(before);
        wanted.debt_of = row.debt_of(before);
        wanted.unnoted = row.unnoted(before);
        EXPECT_EQ(InWords(after), InWords(wanted)) << row.what << " in: " << InWords(before);
        EXPECT_TRUE(Holds(after.unfinished, after.since)) << row.what << " in: " << InWords(before);
        EXPECT_EQ(after.debt == 0, after.debt_of == kNone)
            << row.what << " in: " << InWords(before);
      }
    }
  }
}

TEST(WorkStateTest, ANewOneKnowsNothing) {
  WorkState begun;
  begun.Begin();
  EXPECT_EQ(InWords(WorkState{}), InWords(begun));
}

// The fence of a free that failed leaves the debt from before, also if others began since: it is
// the newest that failed.
TEST(WorkStateTest, TheNewestFenceIsTheOneThatFailed) {
  WorkState state;
  state.FenceForOrderBegins({kFence, kFence, 0});
  state.Submitted(kStreamB);
  state.FenceForOrderBegins({kFence + 1, kFence + 1, 0});
  EXPECT_EQ(state.debt, kFence + 1);
  state.FenceFailed();
  EXPECT_EQ(state.debt, kFence);
}

// ---- What follows from a state

WorkState With(StreamName since, StreamName debt_of, bool unnoted) {
  WorkState state;
  state.since = since;
  state.debt_of = debt_of;
  state.debt = debt_of == kNone ? 0 : kDebt;
  state.unnoted = unnoted;
  return state;
}

TEST(WorkStateTest, QuietAreTheStreamsToWhichASubmissionChangesNothing) {
  EXPECT_EQ(With(kNone, kNone, false).Quiet(), kNone);
  EXPECT_EQ(With(kStreamA, kNone, false).Quiet(), kStreamA);
  EXPECT_EQ(With(kSeveral, kNone, false).Quiet(), kSeveral);
  EXPECT_EQ(With(kStreamA, kStreamA, false).Quiet(), kStreamA);
  EXPECT_EQ(With(kStreamA, kStreamB, false).Quiet(), kNone);
  EXPECT_EQ(With(kSeveral, kStreamA, false).Quiet(), kNone);
  EXPECT_EQ(With(kSeveral, kSeveral, false).Quiet(), kNone);
  EXPECT_EQ(With(kStreamA, kNone, true).Quiet(), kNone);
  EXPECT_EQ(With(kSeveral, kNone, true).Quiet(), kNone);
}

// And so it owes nothing.
TEST(WorkStateTest, ASubmissionToAQuietStreamChangesNothing) {
  for (const WorkState& state : AllStates()) {
    for (const StreamName stream : {kStreamA, kStreamB}) {
      if (state.Quiet() != stream && state.Quiet() != kSeveral) continue;
      WorkState after = state;
      after.Submitted(stream);
      EXPECT_EQ(InWords(after), InWords(state)) << "to " << NameOf(stream);
      EXPECT_FALSE(state.Owes(stream, false)) << InWords(state) << " to " << NameOf(stream);
    }
  }
}

TEST(WorkStateTest, WhoOwes) {
  EXPECT_FALSE(With(kStreamA, kNone, false).Owes(kStreamB, false));
  EXPECT_FALSE(With(kStreamA, kNone, false).Owes(kStreamA, true));
  EXPECT_FALSE(With(kNone, kStreamA, false).Owes(kStreamA, false));
  EXPECT_TRUE(With(kNone, kStreamA, false).Owes(kStreamA, true)) << "it may overtake its own";
  EXPECT_TRUE(With(kNone, kStreamA, false).Owes(kStreamB, false));
  EXPECT_TRUE(With(kNone, kSeveral, false).Owes(kStreamA, false));
}

}  // namespace
}  // namespace cmp
