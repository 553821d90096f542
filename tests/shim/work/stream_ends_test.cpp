// Streams that end: their handles may mean others from then on.
#include <gtest/gtest.h>

#include "work_fixture.h"

namespace cmp {
namespace {

TEST_F(WorkTest, ADestroyedStreamsHandleIsAnotherStream) {
  Synchronize();
  Submit(kA);
  Free();
  StreamEnds(reinterpret_cast<CUstream>(kA));
  Submit(kA);
  EXPECT_EQ(driver_.orders, 1u);
}

// Found by reading: the older debt's stream was destroyed while the record was on its way.
TEST_F(WorkTest, AfterAFailedRecordAStreamThatEndedMeanwhileIsOrdered) {
  Synchronize();
  Submit(kA);
  Free();
  driver_.on_record = [&] { StreamEnds(reinterpret_cast<CUstream>(kA)); };
  driver_.record_status = CUDA_ERROR_NOT_PERMITTED;
  Submit(kA);
  EXPECT_FALSE(Free().pooled());
  driver_.on_record = [] {};
  driver_.record_status = CUDA_SUCCESS;
  Submit(kA);
  EXPECT_EQ(driver_.orders, 1u);
}

// Found by reading: the end of another stream made this one quiet while a wait was on its way, so
// that work was not noted which the wait did not cover.
TEST_F(WorkTest, WorkAfterAnotherStreamEndedDuringAWaitIsUnfinished) {
  Synchronize();
  Submit(kA);
  Synchronize(kSeveralStreams, [] {
    StreamEnds(reinterpret_cast<CUstream>(kB));
    Submit(kA);
  });
  EXPECT_FALSE(NothingIsUnfinished());
}

}  // namespace
}  // namespace cmp
