#include "shim/shake/hold.h"

#include <gtest/gtest.h>

#include <set>

namespace cmp {

namespace {

class ShakeHolds : public testing::Test {
 protected:
  ShakeHolds() {
    driver_.wait_value = [](CUstream, CUdeviceptr, cuuint32_t, unsigned) { return CUDA_SUCCESS; };
    driver_.write_value = driver_.wait_value;
    driver_.host_register = [](void*, size_t, unsigned) { return CUDA_SUCCESS; };
    EXPECT_TRUE(words_.Begin(driver_));
  }
  // As the device sees the word of a hold: greater or equal, cyclic.
  static bool Waits(const HoldTarget& hold) {
    return static_cast<int32_t>(hold.word->load() - hold.value) < 0;
  }
  static void DeviceWrites(const HoldTarget& hold) { hold.word->store(hold.value); }

  Driver driver_;
  HoldWords words_;
};

TEST_F(ShakeHolds, NeedADriverThatWaitsForValues) {
  for (int i = 0; i < 3; ++i) {
    Driver driver = driver_;
    if (i == 0) driver.wait_value = nullptr;
    if (i == 1) driver.write_value = nullptr;
    if (i == 2) driver.host_register = nullptr;
    HoldWords words;
    EXPECT_FALSE(words.Begin(driver));
  }
}

TEST_F(ShakeHolds, LastUntilTheHostLetsGo) {
  for (int i = 0; i < 1000; ++i) {
    const HoldTarget hold = words_.Take();
    ASSERT_NE(hold.word, nullptr);
    ASSERT_TRUE(Waits(hold));
    ASSERT_FALSE(words_.LetGo(hold)) << "the device has written nothing";
    ASSERT_FALSE(Waits(hold));
  }
}

TEST_F(ShakeHolds, TellWhetherTheDeviceCameFirst) {
  const HoldTarget hold = words_.Take();
  words_.DeviceWillWrite(hold, true);
  EXPECT_FALSE(HoldWords::DeviceHasWritten(hold));
  DeviceWrites(hold);
  EXPECT_FALSE(Waits(hold));
  EXPECT_TRUE(HoldWords::DeviceHasWritten(hold));
  EXPECT_TRUE(words_.LetGo(hold));
}

TEST_F(ShakeHolds, LeaveAWordAloneThatTheDeviceWillStillWrite) {
  const HoldTarget late = words_.Take();
  words_.DeviceWillWrite(late, true);
  EXPECT_FALSE(words_.LetGo(late));
  // Round and round: the others are taken, that one is not.
  for (int i = 0; i < 1000; ++i) {
    const HoldTarget hold = words_.Take();
    ASSERT_NE(hold.word, nullptr);
    ASSERT_NE(hold.word, late.word);
    words_.LetGo(hold);
  }
  DeviceWrites(late);
  EXPECT_FALSE(Waits(late));
  std::set<const void*> taken;
  for (int i = 0; i < 1000; ++i) {
    const HoldTarget hold = words_.Take();
    taken.insert(hold.word);
    ASSERT_TRUE(Waits(hold));
    words_.LetGo(hold);
  }
  EXPECT_TRUE(taken.contains(late.word)) << "it is of use again";
}

TEST_F(ShakeHolds, EndWhereTheDeviceHasAllWordsInHand) {
  HoldTarget last;
  for (;;) {
    const HoldTarget hold = words_.Take();
    if (hold.word == nullptr) break;
    words_.DeviceWillWrite(hold, true);
    words_.LetGo(hold);
    last = hold;
  }
  words_.DeviceWillWrite(last, false);  // it was refused
  EXPECT_EQ(words_.Take().word, last.word);
}

}  // namespace

}  // namespace cmp
