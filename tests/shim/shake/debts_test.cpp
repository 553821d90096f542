// What a recording makes sites of: debts, and who came after them.
#include "shim/shake/debts.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "shim/shake/streams.h"

namespace cmp {

namespace {

constexpr StreamName kOne = 0xa000;
constexpr StreamName kOther = 0xb000;
constexpr StreamName kBlocking = 0xc000;

class ShakeDebtsTest : public testing::Test {
 protected:
  ShakeDebtsTest() {
    for (const StreamName name : {kOne, kOther}) streams_->Add(name, false, 1);
    streams_->Add(kBlocking, true, 1);
    streams_->Add(kLegacyStream, true, 1);
  }
  // Of the letters each is a place in the program.
  ShakeCall CallAt(char where, uint32_t thread = 1) {
    CallSite& site = places_[static_cast<size_t>(where - 'a')];
    site.hash = static_cast<uint64_t>(where);
    return {"cuLaunchKernel", &site, thread, 0, 5};
  }
  void Submit(StreamName name, char where, bool visible = false, uint32_t thread = 1) {
    debts_->Submit({"cuLaunchKernel", name, true, visible, false}, CallAt(where, thread),
                   *streams_->Find(name));
  }
  void RecordEvent(StreamName name, char where) {
    debts_->Submit({"cuEventRecord", name, false, false, false}, CallAt(where),
                   *streams_->Find(name));
  }
  void Free(size_t bytes = 100) { debts_->Free(&free_where_, 1, bytes); }
  void Wait(StreamName name) { debts_->Waited(name, debts_->number()); }
  // The places of the sites, each with how often it was executed.
  std::string Sites(ShakeKind kind = ShakeKind::kOrder) {
    std::string all;
    for (char where = 'a'; where <= 'z'; ++where) {
      const ShakeSite* site = SiteAt(where, kind);
      if (site != nullptr) all += where + std::to_string(site->count);
    }
    return all;
  }
  const ShakeSite* SiteAt(char where, ShakeKind kind = ShakeKind::kOrder) {
    return sites_->Find(ShakeSites::IdOf(kind, CallAt(where)));
  }
  char LaterOf(char where, ShakeKind kind = ShakeKind::kOrder) {
    return static_cast<char>(SiteAt(where, kind)->later.where->hash);
  }

  std::vector<CallSite> places_ = std::vector<CallSite>(26);
  CallSite free_where_;
  // They are large.
  std::unique_ptr<ShakeStreams> streams_ = std::make_unique<ShakeStreams>();
  std::unique_ptr<ShakeSites> sites_ = std::make_unique<ShakeSites>();
  std::unique_ptr<ShakeDebts> debts_ = std::make_unique<ShakeDebts>(*streams_, *sites_);
};

TEST_F(ShakeDebtsTest, AreOfTheFirstWorkBeforeAFreeAndTheLast) {
  for (const char where : {'a', 'b', 'c'}) Submit(kOne, where);
  Free(7);
  EXPECT_EQ(Sites(), "") << "nobody came after it";
  Submit(kOther, 'd');
  EXPECT_EQ(Sites(), "a1c1");
  EXPECT_EQ(SiteAt('a')->free_bytes, 7u);
  EXPECT_EQ(LaterOf('a'), 'd');
  Submit(kOther, 'e');
  EXPECT_EQ(Sites(), "a1c1") << "once";
  EXPECT_EQ(LaterOf('a'), 'd');
}

TEST_F(ShakeDebtsTest, AreExecutionsOfOneSiteWhereFirstAndLastAreOne) {
  Submit(kOne, 'a');
  Submit(kOne, 'a');
  Free();
  Submit(kOther, 'b');
  EXPECT_EQ(Sites(), "a1");
}

TEST_F(ShakeDebtsTest, AreOwedToOtherStreamsThatDoNotOrderThemselves) {
  Submit(kOne, 'a');
  Submit(kBlocking, 'b');
  Free();
  Submit(kOne, 'c');
  EXPECT_EQ(Sites(), "b1");
  Submit(kBlocking, 'd');
  EXPECT_EQ(Sites(), "a1b1");
  Submit(kBlocking, 'e');
  Free();
  Submit(kLegacyStream, 'f');
  EXPECT_EQ(Sites(), "a1b1c1");
  Free();
  Submit(kBlocking, 'g');
  EXPECT_EQ(Sites(), "a1b1c1");
}

TEST_F(ShakeDebtsTest, AreOfWorkAlone) {
  RecordEvent(kOne, 'a');
  Free();
  Submit(kOther, 'b');
  EXPECT_EQ(Sites(), "");
  Submit(kOne, 'c');
  Free();
  RecordEvent(kOther, 'd');
  EXPECT_EQ(Sites(), "");
  Submit(kOther, 'e');
  EXPECT_EQ(Sites(), "c1");
  EXPECT_EQ(LaterOf('c'), 'e');
}

TEST_F(ShakeDebtsTest, StayWhereAnotherFreeFindsNothingNew) {
  Submit(kOne, 'a');
  Free(1);
  Free(2);
  Submit(kOther, 'b');
  EXPECT_EQ(Sites(), "a1");
  EXPECT_EQ(SiteAt('a')->free_bytes, 1u);
  Wait(kSeveralStreams);
  Free(3);
  Submit(kOther, 'c');
  EXPECT_EQ(Sites(), "a1") << "the work before a free is not before the next one";
}

TEST_F(ShakeDebtsTest, AreForgottenWhereTheHostWaited) {
  for (const bool before : {true, false}) {
    for (const StreamName waited : {kOne, kSeveralStreams}) {
      Submit(kOne, 'a');
      if (before) Wait(waited);
      Free();
      if (!before) Wait(waited);
      Submit(kOther, 'b');
      Wait(kSeveralStreams);
      EXPECT_EQ(Sites(), "");
    }
  }
  Submit(kOne, 'a');
  Wait(kOther);
  Wait(kLegacyStream);
  Free();
  Submit(kOther, 'b');
  EXPECT_EQ(Sites(), "a1") << "another stream";
  Wait(kSeveralStreams);
  Submit(kBlocking, 'c');
  Wait(kLegacyStream);
  Free();
  Submit(kOther, 'd');
  EXPECT_EQ(Sites(), "a1") << "that blocks with the legacy one";
}

// What came while it waited may still run; what came before is over.
TEST_F(ShakeDebtsTest, AreOfWhatCameAfterTheWaitBegan) {
  Submit(kOne, 'a');
  const uint64_t begun = debts_->number();
  Submit(kOne, 'b');
  debts_->Waited(kOne, begun);
  Free();
  Submit(kOther, 'c');
  EXPECT_EQ(Sites(), "b1");
}

TEST_F(ShakeDebtsTest, EndWithTheirStream) {
  Submit(kOne, 'a');
  Free();
  Submit(kOne, 'b');
  debts_->StreamEnds(*streams_->Find(kOne));
  Submit(kOther, 'c');
  Free();
  EXPECT_EQ(Sites(), "");
}

TEST_F(ShakeDebtsTest, AreExecutedByTheFreeWhereTheHostCouldSeeTheWork) {
  Submit(kOne, 'a');
  Submit(kOne, 'b', true);
  Free(7);
  EXPECT_EQ(Sites(ShakeKind::kHost), "b1");
  EXPECT_EQ(SiteAt('b', ShakeKind::kHost)->free_bytes, 7u);
  Free();
  EXPECT_EQ(Sites(ShakeKind::kHost), "b1") << "it is not before that";
  // What comes then is what the thread does that freed.
  Submit(kOne, 'c', false, 2);
  EXPECT_EQ(SiteAt('b', ShakeKind::kHost)->later.name, nullptr);
  Submit(kOne, 'd');
  Submit(kOne, 'e');
  EXPECT_EQ(LaterOf('b', ShakeKind::kHost), 'd');
}

TEST_F(ShakeDebtsTest, AreNotFollowedByAnotherThreadOfTheSameNumber) {
  Submit(kOne, 'a', true);
  Free();
  debts_->ThreadEnds(1);
  Submit(kOne, 'b');
  EXPECT_EQ(SiteAt('a', ShakeKind::kHost)->later.name, nullptr);
}

// ---- Streams

TEST(ShakeStreamsTest, HaveNumbersThatGoToTheNext) {
  const auto streams = std::make_unique<ShakeStreams>();
  ShakeStream* a = streams->Add(kOne, false, 1);
  ShakeStream* b = streams->Add(kOther, false, 1);
  EXPECT_EQ(streams->Add(kOne, false, 1), a);
  EXPECT_EQ(a->ordinal, 0);
  EXPECT_EQ(b->ordinal, 1);
  EXPECT_NE(a->who, b->who);
  const uint64_t who = a->who;
  *a = {};
  EXPECT_EQ(streams->Find(kOne), nullptr);
  EXPECT_EQ(streams->Add(kBlocking, true, 1), a);
  EXPECT_EQ(a->ordinal, 0);
  EXPECT_EQ(a->who, who);
}

TEST(ShakeStreamsTest, OfAContextAreWhoTheyAreForEveryThread) {
  const auto streams = std::make_unique<ShakeStreams>();
  const ShakeStream* legacy = streams->Add(kLegacyStream, true, 1);
  const ShakeStream* one = streams->Add(3, false, 1);
  const ShakeStream* other = streams->Add(5, false, 2);
  EXPECT_EQ(legacy->ordinal, kOrdinalLegacy);
  EXPECT_EQ(one->ordinal, kOrdinalPerThread);
  EXPECT_EQ(one->who, other->who);
  EXPECT_NE(one->who, legacy->who);
  EXPECT_NE(one, other);
}

TEST(ShakeStreamsTest, AreTooManyAtSomeTime) {
  const auto streams = std::make_unique<ShakeStreams>();
  for (StreamName i = 0; i < ShakeStreams::kMost; ++i) {
    ASSERT_NE(streams->Add(kOne + 16 * i, false, 1), nullptr);
  }
  EXPECT_EQ(streams->Add(kOne - 16, false, 1), nullptr);
  *streams->Find(kOne + 16) = {};
  EXPECT_NE(streams->Add(kOne - 16, false, 1), nullptr);
}

}  // namespace

}  // namespace cmp
