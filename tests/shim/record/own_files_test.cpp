// Files of ours that stay open, whatever the program does to its descriptors.
#include "shim/record/own_files.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <string>
#include <thread>

namespace cmp {
namespace {

constexpr int kFirstDescriptor = 1000;  // where they are
constexpr int kLastDescriptor = 1003;

TEST(OpenFileTest, AWriteBesideAThreadThatClosesEveryDescriptor) {
  std::string folder = testing::TempDir() + "cmp-open-file-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::string path = folder + "/file";
  static OpenFile file;
  ASSERT_TRUE(file.Make(path.c_str(), "beginning"));
  std::atomic<bool> over{false};
  std::thread closes([&] {
    while (!over) {  // past ThreadSanitizer, which knows that nobody should
      for (int descriptor = kFirstDescriptor; descriptor <= kLastDescriptor; ++descriptor) {
        syscall(SYS_close, descriptor);
      }
      std::this_thread::yield();
    }
  });
  constexpr size_t kManyWrites = 20'000;
  size_t failed = 0;
  for (size_t i = 0; i < kManyWrites; ++i) {
    if (!file.Write({{i * sizeof(i), &i, sizeof(i)}})) ++failed;
  }
  EXPECT_EQ(failed, 0u) << strerror(errno);
  over = true;
  closes.join();
  struct stat status = {};
  EXPECT_EQ(stat(path.c_str(), &status), 0);
  EXPECT_EQ(static_cast<size_t>(status.st_size), kManyWrites * sizeof(size_t));
  file.Remove();
  EXPECT_EQ(rmdir(folder.c_str()), 0) << "it removed its file";
}

}  // namespace
}  // namespace cmp
