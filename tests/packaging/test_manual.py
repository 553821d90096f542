"""The manual page and the completions: as the command line is, and understood by those who read them.

    test_manual.py PROJECT BUILD
"""

import os
import pathlib
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(sys.argv.pop(1))
BUILD = pathlib.Path(sys.argv.pop(1))
MANUAL = ROOT / "scripts" / "manual"
PAGE = BUILD / "cmp-preload.1"
BASH_COMPLETION = pathlib.Path("/usr/share/bash-completion/bash_completion")
COMMANDS = {"run", "trial", "shake", "doctor", "report", "replay", "tune"}
MODES = {"wait", "auto", "order", "none"}


def output(*command, **more):
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=60, check=False, **more)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    assert done.stderr == "", f"{command}\n{done.stderr}"
    return done.stdout


class TestCase(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory(prefix="cmp-manual-")
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)


class Written(TestCase):
    def test_all_is_up_to_date(self):
        output(ROOT / "scripts/generate-manual", BUILD, self.folder)
        for written in self.folder.iterdir():
            there = (MANUAL / written.name).read_text(encoding="utf-8")
            self.assertEqual(there, written.read_text(encoding="utf-8"),
                             f"{written.name}: run scripts/generate-manual {BUILD.name}")


class Page(TestCase):
    def rendered(self):
        for command in (["man", "--warnings", "-E", "UTF-8", "-l"], ["groff", "-man", "-ww", "-Tutf8"]):
            if shutil.which(command[0]):
                printed = output(*command, PAGE, env={**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8"})
                if "system has been minimized" in printed:  # what a container has in man's place
                    continue
                return re.sub(r"\x1b\[\d*m|.\x08", "", printed)
        return self.skipTest("neither man nor groff")

    def test_it_renders_and_has_every_option(self):
        """Without a warning; by what --help says."""
        page = self.rendered()
        version = re.search(r"cmp VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())[1]
        self.assertIn(f"cmp {version}", page)
        shown = re.split(r"^   (\w+): ", page, flags=re.M)
        parts = dict(zip(shown[1::2], shown[2::2]))
        self.assertEqual(set(parts), COMMANDS)
        count = 0
        for name in COMMANDS:
            own, _, settings = output(BUILD / "cmp-preload", name, "--help").partition("settings of the pool")
            for option in set(re.findall(r"^  .*?(--[a-z-]+)", own, re.M)) - {"--help"}:
                self.assertIn(option, parts[name])
                count += 1
            for option in re.findall(r"^  (--[a-z-]+)", settings, re.M):
                self.assertRegex(page, rf"\n *{option} VALUE, CMP_\w+\n")
                count += 1
        self.assertGreater(count, 60)


class Bash(TestCase):
    def offered(self, *words, first=""):
        """For the last word, as bash takes the line apart."""
        script = f"""
            {first}
            . {MANUAL}/cmp-preload.bash
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${{#COMP_LINE}}
            COMP_TYPE=9
            _cmp_preload
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        printed = output("bash", "--norc", "-c", script, "bash", "cmp-preload", *words, cwd=self.folder)
        return set(printed.split("\n")) - {""}

    def test_commands_and_options(self):
        self.assertEqual(self.offered(""), COMMANDS | {"--library", "--version", "--help"})
        self.assertEqual(self.offered("tr"), {"trial"})
        self.assertEqual(self.offered("run", "--free"), {"--free-sync"})
        self.assertEqual(self.offered("--library", "x.so", "rep"), {"report", "replay"})
        self.assertEqual(self.offered("run", "--stats", "on", "--sett"), {"--settings"})

    def test_values(self):
        (self.folder / "reports").mkdir()
        (self.folder / "other.json").touch()
        self.assertEqual(self.offered("run", "--free-sync", ""), MODES)
        self.assertEqual(self.offered("run", "--free-sync", "=", "o"), {"order"})
        self.assertEqual(self.offered("run", "--free-sync", "="), MODES)
        self.assertEqual(self.offered("replay", "--backend", "p"), {"pool"})
        self.assertEqual(self.offered("run", "--reports", ""), {"reports"})
        self.assertEqual(self.offered("run", "--stats", "o"), {"off", "on", "other.json"})
        self.assertEqual(self.offered("run", "--slack", ""), set())
        self.assertEqual(self.offered("report", "--json", "oth"), {"other.json"})

    def test_programs(self):
        (self.folder / "apple").touch(0o755)
        self.assertIn("sleep", self.offered("run", "--mode", "pool", "slee"))
        self.assertEqual(self.offered("run", "--", "./app"), {"./apple"})
        self.assertEqual(self.offered("trial", "sleep", "--free", "app"), {"apple"})
        self.assertEqual(self.offered("run", "sleep", "--free"), set())

    @unittest.skipUnless(BASH_COMPLETION.exists(), "no bash-completion")
    def test_arguments_of_the_program(self):
        """Where bash-completion is there, its own completion takes over."""
        first = f". {BASH_COMPLETION}\n_app() {{ COMPREPLY=(of-the-program); }}; complete -F _app app"
        self.assertEqual(self.offered("run", "--", "app", "", first=first), {"of-the-program"})


@unittest.skipUnless(shutil.which("zsh"), "no zsh")
class Zsh(TestCase):
    def completed(self, typed):
        """What a terminal's line becomes."""
        (self.folder / "_own-app").write_text("#compdef own-app\n_arguments '1:what:(of-the-program)'\n")
        (self.folder / "bin").mkdir(exist_ok=True)
        (self.folder / "bin" / "own-app").touch(0o755)
        setup = (f"fpath=({MANUAL} {self.folder} $fpath) path=({self.folder}/bin $path); autoload -U compinit; "
                 "compinit -u -D; unsetopt autolist; bindkey '^I' complete-word; PS1=; RPS1=; "
                 "cmp-preload() { print -r -- G''OT:${(j:|:)@}:END }\n")
        child, terminal = pty.fork()
        if child == 0:
            os.chdir(self.folder)
            os.environ.update(TERM="dumb", LC_ALL="C.UTF-8")
            os.execvp("zsh", ["zsh", "-f", "-i"])
        try:
            os.write(terminal, setup.encode() + f"cmp-preload {typed}\n".encode())
            seen, limit = b"", time.monotonic() + 60
            while not (found := re.search(rb"\nGOT:(.*?):END", seen)):
                self.assertLess(time.monotonic(), limit, seen)
                if select.select([terminal], [], [], 1)[0]:
                    seen += os.read(terminal, 4096)
            return found[1].decode().split("|")
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)
            os.close(terminal)

    def test_it_completes(self):
        self.assertEqual(self.completed("tri\t"), ["trial"])
        self.assertEqual(self.completed("run --free-s\to\t"), ["run", "--free-sync=order"])
        self.assertEqual(self.completed("replay --backend as\t"), ["replay", "--backend", "async"])
        self.assertEqual(self.completed("run --mode obs\town-a\t"), ["run", "--mode", "observe", "own-app"])
        self.assertEqual(self.completed("run -- own-app of\t"), ["run", "--", "own-app", "of-the-program"])
        self.assertEqual(self.completed("trial --tee own-app of\t"), ["trial", "--tee", "own-app", "of-the-program"])
        (self.folder / "some.json").touch()
        self.assertEqual(self.completed("report --json some\t"), ["report", "--json", "some.json"])


@unittest.skipUnless(shutil.which("fish"), "no fish")
class Fish(TestCase):
    def offered(self, line):
        (self.folder / "bin").mkdir(exist_ok=True)
        (self.folder / "bin" / "own-app").touch(0o755)
        script = (f"source {MANUAL}/cmp-preload.fish; complete -c own-app -f -a of-the-program; "
                  f"complete -C 'cmp-preload {line}'")
        home = {"HOME": str(self.folder), "PATH": f"{self.folder}/bin:{os.environ['PATH']}"}
        printed = output("fish", "--no-config", "-c", script, cwd=self.folder, env={**os.environ, **home})
        return {found.split("\t")[0] for found in printed.splitlines()}

    def test_it_completes(self):
        self.assertEqual(self.offered(""), COMMANDS)
        self.assertEqual(self.offered("tri"), {"trial"})
        self.assertIn("--free-sync", self.offered("run --fr"))
        self.assertEqual(self.offered("run --free-sync "), MODES)
        self.assertEqual(self.offered("--library x.so replay --backend as"), {"async"})
        self.assertIn("own-app", self.offered("run --mode pool own"))
        self.assertEqual(self.offered("run -- own-app "), {"of-the-program"})
        self.assertEqual(self.offered("run --mode pool own-app "), {"of-the-program"})
        (self.folder / "some.json").touch()
        self.assertEqual(self.offered("report --json some"), {"some.json"})


if __name__ == "__main__":
    unittest.main(verbosity=2)
