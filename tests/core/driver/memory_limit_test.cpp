#include "core/driver/memory_limit.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cstdio>
#include <string>

#include "core/base/types.h"

namespace cmp {
namespace {

// A file system with control groups, in a folder of its own.
class ControlGroups : public testing::Test {
 protected:
  ControlGroups() {
    char name[] = "/tmp/cmp-groups-XXXXXX";
    root_ = mkdtemp(name);
  }
  ~ControlGroups() override { EXPECT_EQ(system(("rm -r " + root_).c_str()), 0); }
  void Write(const std::string& path, const std::string& text) {
    for (size_t at = path.find('/'); at != std::string::npos; at = path.find('/', at + 1)) {
      mkdir((root_ + "/" + path.substr(0, at)).c_str(), 0700);
    }
    FILE* file = fopen((root_ + "/" + path).c_str(), "w");
    ASSERT_NE(file, nullptr);
    fputs(text.c_str(), file);
    fclose(file);
  }
  size_t Limit(const std::string& groups) {
    Write("groups", groups);
    return ControlGroupLimit((root_ + "/groups").c_str(), (root_ + "/mount").c_str());
  }

  std::string root_;
};

TEST_F(ControlGroups, None) {
  EXPECT_EQ(Limit(""), kNoMemoryLimit);
  EXPECT_EQ(Limit("0::/\n"), kNoMemoryLimit);
  EXPECT_EQ(ControlGroupLimit((root_ + "/nothing").c_str()), kNoMemoryLimit);
}

TEST_F(ControlGroups, OfVersionTwo) {
  Write("mount/a/memory.max", "max\n");
  Write("mount/a/b/memory.max", "1073741824\n");
  Write("mount/a/b/c/memory.max", "max\n");
  EXPECT_EQ(Limit("0::/a/b/c\n"), kGiB);
  EXPECT_EQ(Limit("0::/a/b\n"), kGiB);
  EXPECT_EQ(Limit("0::/a\n"), kNoMemoryLimit);
  Write("mount/memory.max", "4096\n");  // what a container sees
  EXPECT_EQ(Limit("0::/\n"), 4096U);
  EXPECT_EQ(Limit("0::/a/b/c\n"), 4096U);
  EXPECT_EQ(Limit("0::/elsewhere/x\n"), 4096U);
}

TEST_F(ControlGroups, OfVersionOne) {
  Write("mount/memory/job/memory.limit_in_bytes", "2097152\n");
  Write("mount/memory/memory.limit_in_bytes", "9223372036854771712\n");  // none
  EXPECT_EQ(Limit("12:cpu,cpuacct:/job\n5:memory:/job/step\n1:name=systemd:/job\n"), 2 * kMiB);
  EXPECT_EQ(Limit("5:cpuset,memory:/job\n"), 2 * kMiB);
  EXPECT_EQ(Limit("5:memory2:/job\n"), kNoMemoryLimit);
  EXPECT_EQ(Limit("5:memory:/other\n"), kNoMemoryLimit);
}

TEST(LockedMemory, OfThisProcess) {
  EXPECT_GT(LockedMemoryLimit(), 0U);
  EXPECT_LT(LockedMemory(), kGiB);
}

}  // namespace
}  // namespace cmp
