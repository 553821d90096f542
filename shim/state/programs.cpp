#include "shim/state/programs.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base/lock.h"
#include "core/pool/pool_instance.h"

namespace cmp {

namespace {

// How interpreters read their options.
struct Interpreter {
  const char* name;          // a digit or dot may follow: python3.12
  const char* no_script;     // letters of options after which there is none: -c, -e
  const char* with_value;    // of options that take the next argument, where nothing follows them
  const char* names_module;  // of an option whose value is what runs: -m
};
constexpr Interpreter kInterpreters[] = {
    {"python", "c", "WX", "m"},  {"pypy", "c", "WX", "m"}, {"perl", "eE", "I", ""},
    {"bash", "c", "oO", ""},     {"dash", "c", "o", ""},   {"sh", "c", "oO", ""},
    {"zsh", "c", "o", ""},       {"ksh", "c", "o", ""},    {"ruby", "e", "Ir", ""},
    {"julia", "eE", "JptL", ""}, {"Rscript", "e", "", ""}, {"node", "ep", "r", ""},
    {"lua", "e", "l", ""},
};

const Interpreter* InterpreterOf(const char* program) {
  for (const Interpreter& one : kInterpreters) {
    const size_t length = strlen(one.name);
    if (strncmp(program, one.name, length) != 0) continue;
    if (program[length + strspn(program + length, "0123456789.")] == '\0') return &one;
  }
  return nullptr;
}

}  // namespace

const char* ScriptOf(const char* program, const char* arguments, size_t bytes) {
  const Interpreter* interpreter = InterpreterOf(program);
  if (interpreter == nullptr) return nullptr;
  const char* const end = arguments + bytes;
  // The next argument; nullptr: there is none that is whole.
  const char* at = arguments;
  const auto next = [&]() -> const char* {
    const char* argument = at;
    const void* zero = at < end ? memchr(at, '\0', static_cast<size_t>(end - at)) : nullptr;
    if (zero == nullptr) return nullptr;
    at = static_cast<const char*>(zero) + 1;
    return argument;
  };
  next();  // its own name
  for (const char* argument = next(); argument != nullptr; argument = next()) {
    if (argument[0] != '-') return argument[0] == '\0' ? nullptr : argument;
    if (argument[1] == '\0') return nullptr;  // stdin
    if (strcmp(argument, "--") == 0) return next();
    if (argument[1] == '-') continue;
    for (const char* letter = argument + 1; *letter != '\0'; ++letter) {
      if (strchr(interpreter->no_script, *letter) != nullptr) return nullptr;
      const bool is_module = strchr(interpreter->names_module, *letter) != nullptr;
      if (is_module || strchr(interpreter->with_value, *letter) != nullptr) {
        const char* value = letter[1] != '\0' ? letter + 1 : next();
        if (is_module) return value;
        break;
      }
    }
  }
  return nullptr;
}

const char* OwnScript(char (&script)[256]) {
  char arguments[4096];
  const Uncancelled uncancelled;
  const int file = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
  if (file < 0) return nullptr;
  const ssize_t bytes = read(file, arguments, sizeof(arguments));
  close(file);
  const char* found =
      bytes > 0 ? ScriptOf(ProgramName(), arguments, static_cast<size_t>(bytes)) : nullptr;
  if (found == nullptr) return nullptr;
  const char* slash = strrchr(found, '/');
  snprintf(script, sizeof(script), "%s", slash != nullptr ? slash + 1 : found);
  return script;
}

bool IsServed(const char* globs, const char* program, const char* script) {
  bool served = true;
  bool any_inclusion = false;
  bool included = false;
  for (const char* at = globs; *at != '\0';) {
    const size_t length = strcspn(at, ",");
    const bool excludes = *at == '!';
    char glob[kLongestGlob];
    const bool is_whole = length < sizeof(glob);
    snprintf(glob, sizeof(glob), "%.*s", static_cast<int>(is_whole ? length : 0), at);
    const char* pattern = glob + (excludes ? 1 : 0);
    const bool matches = is_whole && (fnmatch(pattern, program, 0) == 0 ||
                                      (script != nullptr && fnmatch(pattern, script, 0) == 0));
    if (excludes) {
      served &= !matches;
    } else if (length != 0) {
      any_inclusion = true;
      included |= matches || strcmp(glob, "all") == 0;
    }
    at += length;
    if (*at == ',') ++at;
  }
  return served && (included || !any_inclusion);
}

}  // namespace cmp
