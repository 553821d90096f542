#include "shim/shake/sites.h"

#include <errno.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

namespace cmp {

namespace {

CallSite SiteAt(uintptr_t offset) {
  CallSite site;
  site.hash = MixShake(1, offset);
  site.count = 2;
  site.frames[0] = {"app", offset};
  site.frames[1] = {"app", 0x10};
  return site;
}

class SitesFile : public testing::Test {
 protected:
  SitesFile() : path_(testing::TempDir() + "cmp-sites-" + std::to_string(getpid())) {}
  ~SitesFile() override { unlink(path_.c_str()); }
  void Put(const std::string& text) { std::ofstream(path_) << text; }
  std::string Contents() const {
    std::stringstream text;
    text << std::ifstream(path_).rdbuf();
    return text.str();
  }

  std::string path_;
  // They are large.
  std::unique_ptr<ShakeSites> sites_ = std::make_unique<ShakeSites>();
  std::unique_ptr<ShakeSites> read_ = std::make_unique<ShakeSites>();
};

TEST_F(SitesFile, HasWhatWasSeen) {
  const CallSite earlier = SiteAt(0x100);
  const CallSite later = SiteAt(0x200);
  ShakeSite* site = sites_->Get(ShakeKind::kOrder, {"cuLaunchKernel", &earlier, 3, 7});
  ASSERT_NE(site, nullptr);
  site->count = 11;
  site->holds = 5;
  site->effective = 4;
  site->later = {"cuMemcpyDtoH_v2", &later, 3, kOrdinalLegacy};
  site->free_thread = 2;
  site->free_bytes = 1000;
  ASSERT_TRUE(sites_->Write(path_.c_str(), true));
  char id[32];
  snprintf(id, sizeof(id), "%016llx", static_cast<unsigned long long>(site->id));
  EXPECT_EQ(Contents(),
            "#cmp-shake-sites 1\n"
            "#id\tkind\tthread\tcount\tholds\teffective\tearlier_call\tearlier_where\t"
            "earlier_stream\tfree_where\tfree_thread\tfree_bytes\tlater_call\tlater_where\t"
            "later_stream\n" +
                std::string(id) +
                "\torder\t3\t11\t5\t4\tcuLaunchKernel\tapp+0x100<app+0x10\t7\t-\t2\t1000\t"
                "cuMemcpyDtoH_v2\tapp+0x200<app+0x10\tlegacy\n"
                "#end\n");
}

TEST_F(SitesFile, IsOfACopyThatFollows) {
  const CallSite where = SiteAt(0x100);
  const CallSite other = SiteAt(0x200);
  ShakeSite* site = sites_->Get(ShakeKind::kOrder, {"cuLaunchKernel", &where, 3, 7});
  read_->Follow(*sites_);
  site->count = 11;
  sites_->Get(ShakeKind::kHost, {"cuLaunchKernel", &other, 3, 7});
  read_->Follow(*sites_);
  ASSERT_TRUE(sites_->Write(path_.c_str(), true));
  const std::string original = Contents();
  ASSERT_TRUE(read_->Write(path_.c_str(), true));
  EXPECT_EQ(Contents(), original);
  EXPECT_EQ(read_->count(), 2u);
}

TEST_F(SitesFile, IsReadAgain) {
  // More than one read of the file takes.
  constexpr uintptr_t kCount = 500;
  std::vector<std::unique_ptr<CallSite>> calls;
  for (uintptr_t i = 0; i < kCount; ++i) {
    calls.push_back(std::make_unique<CallSite>(SiteAt(i)));
    const auto kind = i % 2 == 0 ? ShakeKind::kOrder : ShakeKind::kHost;
    ASSERT_NE(sites_->Get(kind, {"cuLaunchKernel", calls.back().get(), 1, 0}), nullptr);
  }
  ASSERT_TRUE(sites_->Write(path_.c_str(), true));
  for (int i = 0; i < 2; ++i) {  // a site that stands there twice is one
    ASSERT_EQ(read_->Read(path_.c_str()), nullptr);
    EXPECT_EQ(read_->count(), kCount);
  }
  for (uintptr_t i = 0; i < kCount; ++i) {
    const auto kind = i % 2 == 0 ? ShakeKind::kOrder : ShakeKind::kHost;
    ShakeSite* site = read_->Find(ShakeSites::IdOf(kind, {nullptr, calls[i].get(), 1, 0}));
    ASSERT_NE(site, nullptr);
    EXPECT_TRUE(site->listed);
    EXPECT_EQ(site->kind, kind);
  }
}

TEST_F(SitesFile, ReplacesNothingThatIsNotOurs) {
  Put("a letter\n");
  EXPECT_FALSE(sites_->Write(path_.c_str(), true));
  EXPECT_EQ(errno, EEXIST);
  EXPECT_EQ(Contents(), "a letter\n");
}

TEST_F(SitesFile, StaysAsItWasWhereThereIsNoRoomForAnother) {
  ASSERT_TRUE(sites_->Write(path_.c_str(), true));
  const std::string before = Contents();
  rlimit limit;
  getrlimit(RLIMIT_FSIZE, &limit);
  const rlimit none = {0, limit.rlim_max};
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &none);
  const bool written = sites_->Write(path_.c_str(), true);
  const int problem = errno;
  setrlimit(RLIMIT_FSIZE, &limit);
  signal(SIGXFSZ, handler);
  EXPECT_FALSE(written);
  EXPECT_EQ(problem, EFBIG);
  EXPECT_EQ(Contents(), before);
  const std::string begun = path_ + "." + std::to_string(getpid()) + ".new";
  EXPECT_NE(access(begun.c_str(), F_OK), 0);
}

TEST_F(SitesFile, IsRefusedWhereItIsNone) {
  for (const char* text :
       {"", "a letter\n", "#cmp-shake-sites 1\nnonsense\n",
        "#cmp-shake-sites 1\n0123456789abcdef\tneither\t1\n", "0123456789abcdef\torder\t1\n"}) {
    Put(text);
    EXPECT_NE(read_->Read(path_.c_str()), nullptr) << text;
  }
  const std::string good = "#cmp-shake-sites 1\n\n# a comment\n0123456789abcdef\torder\t1\n";
  Put(good);
  EXPECT_EQ(read_->Read(path_.c_str()), nullptr);
  Put(good + std::string(10000, 'x') + "\n");
  EXPECT_NE(read_->Read(path_.c_str()), nullptr) << "a line that is too long";
  unlink(path_.c_str());
  EXPECT_NE(read_->Read(path_.c_str()), nullptr);
}

TEST_F(SitesFile, MayEndWithoutANewline) {
  Put("#cmp-shake-sites 1\n0123456789abcdef\torder");
  EXPECT_EQ(read_->Read(path_.c_str()), nullptr);
  EXPECT_EQ(read_->count(), 0u) << "half a line is none";
}

TEST(Sites, AreWhatTellsThemApart) {
  const CallSite one = SiteAt(1);
  const CallSite two = SiteAt(2);
  const ShakeCall call = {"cuLaunchKernel", &one, 1, 0, 5};
  const uint64_t id = ShakeSites::IdOf(ShakeKind::kOrder, call);
  EXPECT_NE(id, ShakeSites::IdOf(ShakeKind::kHost, call));
  EXPECT_NE(id, ShakeSites::IdOf(ShakeKind::kOrder, {"cuLaunchKernel", &two, 1, 0, 5}));
  EXPECT_NE(id, ShakeSites::IdOf(ShakeKind::kOrder, {"cuLaunchKernel", &one, 1, 0, 6}));
  EXPECT_EQ(id, ShakeSites::IdOf(ShakeKind::kOrder, {"cuLaunchKernel", &one, 2, 1, 5}))
      << "in which order threads and streams come is chance";
}

TEST(Sites, AreTooManyAtSomeTime) {
  const auto sites = std::make_unique<ShakeSites>();
  std::vector<std::unique_ptr<CallSite>> calls;
  size_t made = 0;
  for (uintptr_t i = 0; i < 10000; ++i) {
    calls.push_back(std::make_unique<CallSite>(SiteAt(i)));
    made += sites->Get(ShakeKind::kOrder, {"cuLaunchKernel", calls.back().get(), 1, 0}) != nullptr;
  }
  EXPECT_EQ(made, sites->count());
  EXPECT_LT(made, 10000u);
  EXPECT_GE(made, 4000u);
}

}  // namespace

}  // namespace cmp
