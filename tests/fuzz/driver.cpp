// In place of libFuzzer where that is not linked: every input of a corpus, then mutations of them.
//
//   TARGET [--inputs N] [--seed S] CORPUS...      files, and folders of files
//
// The same seed gives the same inputs. An input that fails, crashes or takes longer than
// kMostSeconds is left in a file, whose name is said; TARGET FILE runs it alone.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <utility>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
// A sanitizer that reports something calls this before it ends the process.
extern "C" [[gnu::weak]] void __sanitizer_set_death_callback(void (*callback)());

namespace {

namespace files = std::filesystem;
using Bytes = std::vector<uint8_t>;

constexpr unsigned kMostSeconds = 30;  // for one input, on a busy machine
constexpr size_t kMostBytes = 64 * 1024;
constexpr size_t kPage = 4096;

// ---- The input that runs, for whoever finds the process failing.

std::string g_name;  // where it would be left
std::string g_what;  // which one it is
const Bytes* g_input = nullptr;

void Leave() {
  const Bytes* input = std::exchange(g_input, nullptr);
  if (input == nullptr) return;
  const int file = open(g_name.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  const bool left =
      file >= 0 && write(file, input->data(), input->size()) == static_cast<ssize_t>(input->size());
  std::fprintf(stderr, "%s failed; it is %s %s\n", g_what.c_str(),
               left ? "left in" : "lost, for nothing could be written to", g_name.c_str());
}

void OnSignal(int number) {
  if (number == SIGALRM) std::fprintf(stderr, "found: it takes more than %u s\n", kMostSeconds);
  Leave();
  signal(number, SIG_DFL);
  raise(number);
}

void Run(const Bytes& input, const std::string& what) {
  g_what = what;
  g_input = &input;
  alarm(kMostSeconds);
  // A copy without spare room, so that a sanitizer sees the end.
  const Bytes exact(input.begin(), input.end());
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
  g_input = nullptr;
}

// ---- Mutations

class Mutator {
 public:
  Mutator(uint64_t seed, const std::vector<Bytes>& corpus) : random_(seed), corpus_(corpus) {}

  Bytes Next() {
    // Mostly afresh, sometimes further on from the last one.
    Bytes input = last_.empty() || Below(4) != 0 ? Any() : last_;
    for (size_t i = 1 + Below(Below(8) + 1); i != 0; --i) Mutate(input);
    if (input.size() > kMostBytes) input.resize(kMostBytes);
    last_ = input;
    return input;
  }

 private:
  size_t Below(size_t end) { return random_() % end; }
  const Bytes& Any() { return corpus_[Below(corpus_.size())]; }
  struct Part {
    size_t begin;
    size_t end;
  };
  // Mostly near a beginning: the file's, or a page's.
  size_t Place(const Bytes& bytes) {
    const size_t page = Below(2) == 0 ? 0 : Below(1 + bytes.size() / kPage) * kPage;
    return std::min(bytes.size(), page + Below(size_t{1} << Below(14)));
  }
  // Mostly a short one.
  Part PartOf(const Bytes& bytes) {
    const size_t begin = Place(bytes);
    const size_t most = Below(4) == 0 ? bytes.size() : 16;
    return {begin, std::min(bytes.size(), begin + Below(most + 1))};
  }
  static void Insert(Bytes& into, size_t at, const Bytes& from, Part part) {
    const Bytes copy(from.begin() + static_cast<ptrdiff_t>(part.begin),
                     from.begin() + static_cast<ptrdiff_t>(part.end));
    into.insert(into.begin() + static_cast<ptrdiff_t>(at), copy.begin(), copy.end());
  }
  static void Erase(Bytes& bytes, Part part) {
    bytes.erase(bytes.begin() + static_cast<ptrdiff_t>(part.begin),
                bytes.begin() + static_cast<ptrdiff_t>(part.end));
  }
  // A number of a width of 1, 2, 4 or 8 bytes that lies at an edge, or next to what is there.
  void ChangeNumber(Bytes& bytes) {
    const size_t width = size_t{1} << Below(4);
    if (bytes.size() < width) return;
    uint8_t* at = &bytes[std::min(Place(bytes), bytes.size() - width)];
    uint64_t number = 0;
    std::memcpy(&number, at, width);
    const uint64_t edge = uint64_t{1} << Below(64);
    const std::array<uint64_t, 6> numbers = {
        edge, edge - 1, ~edge, number + Below(16) + 1, number - Below(16) - 1, uint64_t{0}};
    number = numbers[Below(numbers.size())];
    std::memcpy(at, &number, width);
  }
  // The same of one that is written in decimal digits.
  void ChangeDigits(Bytes& bytes) {
    const auto digit = [](uint8_t byte) { return byte >= '0' && byte <= '9'; };
    const auto from = bytes.begin() + static_cast<ptrdiff_t>(Place(bytes));
    const auto begin = std::find_if(from, bytes.end(), digit);
    const auto end = std::find_if_not(begin, bytes.end(), digit);
    if (begin == end) return;
    const std::string text = std::to_string((uint64_t{1} << Below(64)) - Below(2));
    const auto at = bytes.erase(begin, end);
    bytes.insert(at, text.begin(), text.end());
  }
  void Mutate(Bytes& bytes) {
    const size_t kind = Below(10);
    if (kind == 0) {
      const Bytes& other = Any();
      Insert(bytes, Place(bytes), other, PartOf(other));
    } else if (kind == 1) {
      Erase(bytes, PartOf(bytes));
    } else if (kind == 2) {
      const Bytes same = bytes;
      Insert(bytes, Place(bytes), same, PartOf(same));
    } else if (kind == 3) {
      for (size_t i = 1 + Below(8); i != 0; --i) {
        const auto at = static_cast<ptrdiff_t>(Place(bytes));
        bytes.insert(bytes.begin() + at, static_cast<uint8_t>(random_()));
      }
    } else if (kind == 4 && Below(4) == 0) {
      bytes.resize(Below(bytes.size() + 1));
    } else if (kind == 5 && Below(4) == 0) {  // the beginning of the one, the end of another
      const Bytes& other = Any();
      bytes.resize(Place(bytes));
      Insert(bytes, bytes.size(), other, {Place(other), other.size()});
    } else if (kind == 6) {
      ChangeDigits(bytes);
    } else if (kind == 7) {
      ChangeNumber(bytes);
    } else if (!bytes.empty()) {
      uint8_t& byte = bytes[std::min(Place(bytes), bytes.size() - 1)];
      byte = static_cast<uint8_t>(kind == 8 ? byte ^ 1 << Below(8) : random_());
    }
  }

  std::mt19937_64 random_;
  const std::vector<Bytes>& corpus_;
  Bytes last_;
};

// ---- The corpus

Bytes Read(const files::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    std::fprintf(stderr, "%s cannot be read\n", path.c_str());
    std::exit(2);
  }
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::vector<files::path> FilesOf(const std::vector<files::path>& paths) {
  std::vector<files::path> found;
  for (const files::path& path : paths) {
    if (!files::is_directory(path)) {
      found.push_back(path);
      continue;
    }
    std::vector<files::path> inside;
    for (const auto& entry : files::directory_iterator(path)) inside.push_back(entry.path());
    std::sort(inside.begin(), inside.end());
    found.insert(found.end(), inside.begin(), inside.end());
  }
  return found;
}

}  // namespace

int main(int count, char** arguments) {
  uint64_t inputs = 0;
  uint64_t seed = 1;
  std::vector<files::path> paths;
  for (int i = 1; i < count; ++i) {
    const std::string argument = arguments[i];
    const bool has_value = i + 1 < count;
    if (argument == "--inputs" && has_value) {
      inputs = std::strtoull(arguments[++i], nullptr, 0);
    } else if (argument == "--seed" && has_value) {
      seed = std::strtoull(arguments[++i], nullptr, 0);
    } else {
      paths.emplace_back(argument);
    }
  }
  const std::vector<files::path> found = FilesOf(paths);
  if (found.empty()) {
    std::fprintf(stderr, "usage: %s [--inputs N] [--seed S] CORPUS...\n", arguments[0]);
    return 2;
  }
  for (const int number : {SIGABRT, SIGALRM}) signal(number, &OnSignal);
  if (__sanitizer_set_death_callback != nullptr) {
    __sanitizer_set_death_callback(&Leave);  // it shows where a signal came from
  } else {
    for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) signal(number, &OnSignal);
  }
  const std::string program = files::path(arguments[0]).filename();
  g_name = program + "-corpus.input";
  std::vector<Bytes> corpus;
  for (const files::path& path : found) {
    corpus.push_back(Read(path));
    Run(corpus.back(), path.string());
  }
  std::printf("%zu inputs of the corpus; then %llu with --seed %llu\n", corpus.size(),
              static_cast<unsigned long long>(inputs), static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  g_name = program + "-seed" + std::to_string(seed) + ".input";
  Mutator mutator(seed, corpus);
  for (uint64_t i = 0; i < inputs; ++i) {
    const Bytes input = mutator.Next();
    Run(input, "input " + std::to_string(i) + " of --seed " + std::to_string(seed));
  }
  return 0;
}
