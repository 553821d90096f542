#!/usr/bin/env python3
"""Counts what the library's usual paths execute, and compares with the budget in budget.txt.

Counted, exactly and whatever else the machine does (valgrind's callgrind, the simulated CUDA):
    instructions  inside our own library, none of what it calls
    atomics       of these, the ones that lock a cache line
    calls         from our library to any other, by name

A path that needs more than its budget fails. One that needs notably less is reported: renew the
file with --write (cmake --build BUILD -t budget-write) and say in the commit why.
"""

import argparse
import collections
import itertools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

SKIPPED = 77  # as tests/budget/CMakeLists.txt tells ctest
BUDGET = pathlib.Path(__file__).with_name("budget.txt")

# The parts of paths.cpp, each with its environment, and whether the preload is there.
PARTS = {
    "hits": (True, {}),
    # Without ticks: each would empty the caches.
    "page_locked": (True, {"CMP_HOST": "on", "CMP_DECAY": "off"}),
    "threads": (True, {}),
    "questions": (True, {}),
    "none": (True, {"CMP_FREE_SYNC": "none"}),
    "order": (True, {"CMP_FREE_SYNC": "order"}),
    "auto": (True, {"CMP_FREE_SYNC": "auto"}),
    "submissions": (True, {"CMP_FREE_SYNC": "order"}),
    "two_contexts": (True, {"CMPSIM_DEVICES": "2"}),
    "library": (False, {}),
    "library_none": (False, {"CMP_FREE_SYNC": "none"}),
}

HEAD = """\
# What each path of paths.cpp may cost: instructions of our own, atomics among them, and the calls
# that leave the library. budget.py compares; budget.py --write makes this file.
"""

Cost = collections.namedtuple("Cost", "instructions atomics calls")  # calls: a Counter


def margin(instructions, same_compiler):
    """By how much a path may exceed its budget before that counts."""
    return max(3, instructions // 20) if same_compiler else max(16, instructions // 4)


# ---- Counting


def locked_instructions(library):
    """The addresses of the instructions that lock a cache line."""
    listing = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", library],
        check=True, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"},
    ).stdout
    locked = re.compile(r"^ *([0-9a-f]+):\s+(?:lock |xchg .*\()", re.MULTILINE)
    return {int(address, 16) for address in locked.findall(listing)}


def plain_name(function):
    """A function's name without symbol version, and without the prefixes of libc's internals."""
    name = re.sub(r"['@].*", "", function).lstrip("_")
    return re.sub(r"_(avx|avx512|evex|sse2|sse4|ssse3)_.*", "", name)


def read_part(text, library, locked):
    """What was executed in one part of a profile."""
    instructions = atomics = 0
    calls = collections.Counter()
    inside = False  # the function of these lines is ours
    callee = callee_object = None
    of_call = False  # the next line is what a callee cost
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and name == "ob":
            inside = value == library
            this_object = value
            callee_object = None
        elif equals and name == "cob":
            callee_object = value
        elif equals and name == "cfn":
            callee = value
        elif equals and name == "calls":
            if inside and callee_object not in (None, this_object):
                calls[plain_name(callee)] += int(value.split()[0])
            callee_object = None
            of_call = True
        elif line.startswith("0x"):
            if inside and not of_call:
                address, cost = line.split()
                instructions += int(cost)
                atomics += int(cost) if int(address, 16) in locked else 0
            of_call = False
    return Cost(instructions, atomics, calls)


def count_part(options, part, library, locked):
    """The costs of the paths of one part, by name, in their order."""
    preloaded, settings = PARTS[part]
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CMP_", "CMPSIM_", "LD_"))
    }
    environment.update(settings, LD_LIBRARY_PATH=options.sim, LD_BIND_NOW="1")
    environment["CMP_DECAY"] = "off"  # a tick, of the pool's thread or in a free, is no part of a path
    if preloaded:
        environment["LD_PRELOAD"] = options.preload
    with tempfile.TemporaryDirectory(prefix="cmp-budget-") as folder:
        finished = subprocess.run(
            ["valgrind", "--tool=callgrind", "--error-exitcode=99",
             f"--callgrind-out-file={folder}/profile", "--dump-before=path_*",
             "--dump-instr=yes", "--dump-line=no", "--compress-strings=no", "--compress-pos=no",
             options.program, part],
            env=environment, capture_output=True, text=True, timeout=120, check=False,
        )
        if finished.returncode != 0:
            sys.exit(f"paths {part}: exit code {finished.returncode}\n"
                     f"{finished.stdout}{finished.stderr}")
        # A part ends where a path begins, the next one at path_done: that one is the path.
        costs = {}
        path = None
        for number in itertools.count(1):
            profile = pathlib.Path(folder, f"profile.{number}")
            if not profile.exists():
                return costs
            text = profile.read_text()
            ended_by = re.search(r"^desc: Trigger: .*path_(\w+)", text, re.MULTILINE).group(1)
            if ended_by == "done":
                costs[path] = read_part(text, library, locked)
            path = ended_by


def count_all(options):
    costs = {}
    locked = {library: locked_instructions(library)
              for library in (options.preload, options.library)}
    for part, (preloaded, _) in PARTS.items():
        library = options.preload if preloaded else options.library
        found = count_part(options, part, library, locked[library])
        if not found:
            sys.exit(f"paths {part}: nothing was counted")
        costs.update(found)
    return costs


# ---- The file


def calls_in_words(calls):
    words = [name if count == 1 else f"{name}*{count}" for name, count in sorted(calls.items())]
    return " ".join(words) or "-"


def read_calls(words):
    calls = collections.Counter()
    for word in words:
        name, _, count = word.partition("*")
        if name != "-":
            calls[name] = int(count or 1)
    return calls


def table(costs):
    width = max(map(len, costs)) + 2
    rows = [f"{'# path':{width}} instructions atomics  calls"]
    for name, cost in costs.items():
        rows.append(f"{name:{width}} {cost.instructions:12} {cost.atomics:7}  "
                    f"{calls_in_words(cost.calls)}")
    return "\n".join(rows) + "\n"


def write(costs, compiler):
    BUDGET.write_text(f"{HEAD}# compiler: {compiler}\n{table(costs)}")


def read():
    """(compiler, costs by name) of the file."""
    text = BUDGET.read_text()
    compiler = re.search(r"^# compiler: (.*)$", text, re.MULTILINE).group(1)
    costs = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, instructions, atomics, *calls = line.split()
            costs[name] = Cost(int(instructions), int(atomics), read_calls(calls))
    return compiler, costs


def major(compiler):
    return compiler.split(".")[0]


# ---- Comparing


def compare(costs, compiler):
    """What is wrong, and what could be lowered, in words."""
    wrong, lower = [], []
    budget_compiler, budget = read()
    same = major(compiler) == major(budget_compiler)
    print(f"compiler: {compiler}; the budget is of {budget_compiler}"
          + ("" if same else ": another one, so with a wider margin"))
    for name in budget.keys() - costs.keys():
        wrong.append(f"{name}: in the budget, but no such path was counted")
    for name, cost in costs.items():
        if name not in budget:
            wrong.append(f"{name}: not in the budget")
            continue
        allowed = budget[name]
        slack = margin(allowed.instructions, same)
        if cost.instructions > allowed.instructions + slack:
            wrong.append(f"{name}: {cost.instructions} instructions, "
                         f"budget {allowed.instructions} + {slack}")
        if cost.instructions < allowed.instructions - slack and same:
            lower.append(f"{name}: {cost.instructions} instructions, "
                         f"budget {allowed.instructions}")
        if cost.atomics > allowed.atomics:
            wrong.append(f"{name}: {cost.atomics} atomics, budget {allowed.atomics}")
        if more := cost.calls - allowed.calls:
            wrong.append(f"{name}: calls beyond the budget: {calls_in_words(more)}")
        if fewer := allowed.calls - cost.calls:
            lower.append(f"{name}: no longer calls {calls_in_words(fewer)}")
        if cost.atomics < allowed.atomics:
            lower.append(f"{name}: {cost.atomics} atomics, budget {allowed.atomics}")
    return wrong, lower


def reason_to_skip(options):
    if options.processor not in ("x86_64", "AMD64"):
        return f"the budget is of x86_64, this is {options.processor}"
    if options.build.strip() != "Release":
        return f"the budget is of a Release build, this is {options.build.strip()}"
    for tool in ("valgrind", "objdump"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("program", "preload", "library", "sim", "compiler", "build", "processor"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--write", action="store_true", help="make budget.txt of what is counted")
    options = parser.parse_args()
    if reason := reason_to_skip(options):
        print(f"skipped: {reason}")
        return 1 if options.write else SKIPPED
    options.preload = os.path.realpath(options.preload)
    options.library = os.path.realpath(options.library)
    costs = count_all(options)
    print(table(costs))
    if options.write:
        write(costs, options.compiler)
        return 0
    wrong, lower = compare(costs, options.compiler)
    for line in lower:
        print(f"could be lowered (budget-write): {line}")
    for line in wrong:
        print(f"over budget: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
