#include "shim/state/programs.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace cmp {
namespace {

// As a process with these arguments has them; "none" where no script runs.
std::string Script(const char* program, const std::vector<std::string>& arguments,
                   size_t missing = 0) {
  std::string line(program);
  line += '\0';
  for (const std::string& argument : arguments) line += argument + '\0';
  const char* script = ScriptOf(program, line.data(), line.size() - missing);
  return script == nullptr ? "none" : script;
}

TEST(ProgramsTest, TheScriptOfAnInterpreter) {
  EXPECT_EQ(Script("python3", {"train.py", "-c", "5"}), "train.py");
  EXPECT_EQ(Script("python3.12", {"-u", "-B", "src/train.py"}), "src/train.py");
  EXPECT_EQ(Script("python", {"-W", "ignore", "-X", "dev", "train.py"}), "train.py");
  EXPECT_EQ(Script("python", {"-Wignore", "-Xdev", "train.py"}), "train.py");
  EXPECT_EQ(Script("python", {"--check-hash-based-pycs", "train.py"}), "train.py");
  EXPECT_EQ(Script("python3", {"-m", "app.train", "x"}), "app.train");
  EXPECT_EQ(Script("python3", {"-um", "app.train"}), "app.train");
  EXPECT_EQ(Script("python3", {"-mapp.train"}), "app.train");
  EXPECT_EQ(Script("python3", {"--", "-odd.py"}), "-odd.py");
  EXPECT_EQ(Script("perl", {"-w", "-I", "lib", "run.pl"}), "run.pl");
  EXPECT_EQ(Script("bash", {"-e", "-o", "pipefail", "run.sh"}), "run.sh");
  EXPECT_EQ(Script("sh", {"-eu", "run.sh"}), "run.sh");
}

TEST(ProgramsTest, WhereThereIsNone) {
  EXPECT_EQ(Script("python3", {}), "none");
  EXPECT_EQ(Script("python3", {"-"}), "none");
  EXPECT_EQ(Script("python3", {"-c", "pass", "train.py"}), "none");
  EXPECT_EQ(Script("python3", {"-uc", "pass", "train.py"}), "none");
  EXPECT_EQ(Script("python3", {"-m"}), "none");
  EXPECT_EQ(Script("perl", {"-ne", "print", "input"}), "none");
  EXPECT_EQ(Script("bash", {"-c", "./app", "train"}), "none");
  EXPECT_EQ(Script("app", {"train.py"}), "none") << "an argument as any";
  EXPECT_EQ(Script("python-config", {"train.py"}), "none");
}

TEST(ProgramsTest, ArgumentsThatAreCutOff) {
  EXPECT_EQ(Script("python3", {"train.py"}, 1), "none");
  EXPECT_EQ(Script("python3", {"-m", "train"}, 1), "none");
  EXPECT_EQ(Script("python3", {"-W", "ignore"}, 1), "none");
}

TEST(ProgramsTest, AGlobMatchesTheProgramOrItsScript) {
  EXPECT_TRUE(IsServed("train*", "python3", "train.py"));
  EXPECT_TRUE(IsServed("python*", "python3", "train.py"));
  EXPECT_FALSE(IsServed("other", "python3", "train.py"));
  EXPECT_FALSE(IsServed("!train*", "python3", "train.py"));
  EXPECT_FALSE(IsServed("!python3", "python3", "train.py"));
  EXPECT_TRUE(IsServed("!other", "python3", "train.py"));
  EXPECT_FALSE(IsServed("train*", "python3", nullptr));
  EXPECT_TRUE(IsServed("all", "app"));
}

}  // namespace
}  // namespace cmp
