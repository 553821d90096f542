#include "shim/shake/report.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <string>

namespace cmp {

namespace {

TEST(ShakeReportTest, IsWrittenWhereSomethingHasChangedAndAtTheEnd) {
  const std::string path = testing::TempDir() + "cmp-report-" + std::to_string(getpid());
  const auto sites = std::make_unique<ShakeSites>();
  Mutex lock;
  const auto report = std::make_unique<ShakeReport>(*sites, lock);
  const auto is_there = [&] { return unlink(path.c_str()) == 0; };
  static constexpr Writer kOnce = {"cmp-once", [](bool*) { return false; }};
  report->Begin(path.c_str(), kOnce);
  EXPECT_TRUE(is_there());
  EXPECT_TRUE(report->Write(false));
  EXPECT_FALSE(is_there());
  const CallSite where;
  sites->Later(*sites->Get(ShakeKind::kOrder, {"cuLaunchKernel", &where}), {});
  EXPECT_TRUE(report->Write(false));
  EXPECT_TRUE(is_there());
  EXPECT_TRUE(report->Write(true));
  EXPECT_TRUE(is_there());
  EXPECT_FALSE(report->Write(true)) << "that was the last time";
  EXPECT_FALSE(is_there());
}

}  // namespace

}  // namespace cmp
