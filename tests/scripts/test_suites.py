"""scripts/suites.py, which scripts/test ends in: goes on after failures, a verdict in every case."""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time

from command import SOURCE, TestCase, main
import suites

NINJA = "echo '[1/2] one'; echo '[2/2] two'"
CTEST = """
echo '      Start 1: good'
echo '1/3 Test #1: good .............   Passed    0.01 sec'
echo '2/3 Test #2: gpu.all ..........***Skipped   0.01 sec'
echo '3/3 Test #3: bad.one ..........***Failed    0.02 sec'
echo 'what bad.one printed'
"""


class Suites(TestCase):
    def setUp(self):
        self.place = str(self.folder())

    def step(self, word, script):
        return suites.Step(word, ["sh", "-c", script], f"{self.place}/{word}.log")

    def suite(self, name, build, check):
        """Of scripts for sh."""
        checks = [self.step("tested", check)] if check else []
        return suites.Suite(name, [self.step("built", build)], checks)

    def run_suites(self, *all_suites):
        """What is printed; whether all is well."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            runner = suites.Runner(list(all_suites))
            runner.run()
            good = suites.print_verdict(runner.suites, runner.progress)
        return printed.getvalue(), good

    def test_all_pass(self):
        printed, good = self.run_suites(
            self.suite("one", NINJA, CTEST.replace("***Failed ", "   Passed ")),
            self.suite("two", NINJA, None),
        )
        self.assertTrue(good)
        self.assertRegex(printed, r"\none +passed +0:00  2 of 3 tests passed, 1 skipped\n")
        self.assertRegex(printed, r"\ntwo +passed +0:00\n")
        self.assertRegex(printed, r"\nverdict: passed: 2 passed, in 0:\d\d\n$")

    def test_goes_on_after_failures(self):
        printed, good = self.run_suites(
            self.suite("one", "echo 'x.cpp:1: error: what is wrong'; exit 1", CTEST),
            self.suite("two", NINJA, CTEST + "exit 8"),
            suites.Suite("three", [], [suites.Step("run", ["/nowhere"], f"{self.place}/log")]),
            self.suite("four", NINJA, "true"),
        )
        self.assertFalse(good)
        self.assertIn("x.cpp:1: error: what is wrong", printed)
        self.assertIn("two: FAILED bad.one Failed    0.02 sec", printed)
        self.assertIn("what bad.one printed", printed)
        self.assertNotIn("\n      Start 1: good", printed)
        verdicts = re.findall(r"^(one|two|three|four) +(\S+)", printed, re.MULTILINE)
        expected = [("one", "FAILED"), ("two", "FAILED"), ("three", "FAILED"), ("four", "passed")]
        self.assertEqual(verdicts, expected)
        self.assertIn("1 of 3 tests passed, 1 skipped, bad.one failed", printed)
        self.assertIn("verdict: FAILED: 1 passed, 3 failed, in", printed)

    def test_builds_once_what_several_ask_for(self):
        """A build that failed is tried again."""
        for code, expected in (("0", "x"), ("1", "xx")):
            script = f"printf x >> {self.place}/built{code}; exit {code}"
            self.run_suites(self.suite("one", script, None), self.suite("two", script, None))
            with open(f"{self.place}/built{code}", encoding="ascii") as file:
                self.assertEqual(file.read(), expected)

    def test_interrupted(self):
        """What runs is ended, what was done keeps its verdict."""
        program = f"""
import sys
sys.path.insert(0, {str(SOURCE / "scripts")!r})
import suites
def suite_of(name, *_):
    script = {{"one": "true", "two": "echo $$ > {self.place}/new; mv {self.place}/new {self.place}/pid; sleep 1000", "three": "true"}}[name]
    return suites.Suite(name, [], [suites.Step("tested", ["sh", "-c", script], "{self.place}/log")])
suites.suite_of = suite_of
sys.exit(suites.main(["", "", "one", "two", "three"]))
"""
        for number in (signal.SIGINT, signal.SIGTERM):
            running = subprocess.Popen(
                [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
            )
            pid_file = f"{self.place}/pid"
            while not os.path.exists(pid_file):
                time.sleep(0.01)
            running.send_signal(number)
            printed = running.communicate()[0]
            self.assertEqual(running.returncode, 130, printed)
            verdicts = re.findall(r"^(one|two|three) +(passed|not run)", printed, re.MULTILINE)
            self.assertEqual(
                verdicts, [("one", "passed"), ("two", "not run"), ("three", "not run")]
            )
            self.assertIn("verdict: FAILED: 1 passed, 2 not run, in", printed)
            with open(pid_file, encoding="ascii") as file:
                self.assertRaises(ProcessLookupError, os.kill, int(file.read()), 0)
            os.unlink(pid_file)

    def test_every_suite_has_a_place(self):
        """Those that scripts/test names are those that are known here."""
        with open(SOURCE / "scripts/test", encoding="utf-8") as file:
            names = re.search(r"suites=\(([a-z0-9 ]+)\)", file.read())[1].split()
        for name in names:
            suite = suites.suite_of(name, "/include", "/old")
            self.assertTrue(suite.builds + suite.checks)
        self.assertEqual(len(names), 7)


if __name__ == "__main__":
    main()
