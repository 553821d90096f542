"""cmp-preload trial: what it measures, compares and says."""

import contextlib
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import types
import unittest.mock

from command import BUILD, COMMAND, LIBRARY, PLAIN, PROGRAMS
from command import TestCase, environment, main, measured, run, start
from cmp_preload.commands import trial
from cmp_preload.console.arguments import own_command
from cmp_preload.console.errors import Interrupted
from cmp_preload.measuring import shaking, verdict
from cmp_preload.measuring.measurer import Measurer
from cmp_preload.measuring.series import async_keep_series, page_locked_series, series_of
from cmp_preload.pool import preloading
from cmp_preload.records.sites import Reports, Site

COSTS = {"CMPSIM_COSTS": "h200"}


def one_site(number, kind):
    call = "cuLaunchKernel", f"app+0x{number}", "1"
    return Site(str(number), kind, 1, 100, 0, 0, *call, "app+0x9", 1, 4096, *call)


def rows(result):
    """The table: name of the variant to its cells."""
    lines = result.stdout.split("\n\n")[0].splitlines()
    return {line.split()[0]: re.split(r"  +", line.strip()) for line in lines[1:]}


def words_of(result):
    return result.stdout.split("\n\n", 1)[1]


class Trials(TestCase):
    def trial(self, *arguments, env=None, code=0):
        result = run("trial", *arguments, env=env)
        self.assert_ok(result, code)
        return result

    def timed_trial(self, *arguments, code=0):
        """A trial of a program whose runs take a made-up time: those of a busy machine say
        anything. Its calls cost what the real ones do."""
        really = Measurer.run

        def timed(measurer, its_environment, *more):
            result = really(measurer, its_environment, *more)
            pooled = its_environment.get("CMP_MODE") == "pool"
            result.seconds = 0.02 if pooled else 0.2
            for one in result.statistics:  # of a busy machine, too
                one["process"]["allocating_ns"] = 0 if pooled else 180_000_000
            return result

        printed, shown = io.StringIO(), io.StringIO()
        with (
            unittest.mock.patch.object(Measurer, "run", timed),
            unittest.mock.patch.object(preloading, "own_environment", lambda: environment(COSTS)),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(shown),
        ):
            ended = trial.main([*map(str, arguments)], lambda: LIBRARY)
        self.assertEqual(ended, code, printed.getvalue() + shown.getvalue())
        return types.SimpleNamespace(stdout=printed.getvalue(), stderr=shown.getvalue())

    def test_json(self):
        path = self.folder() / "settings"
        said = self.timed_trial(
            "--json", "--save", path, "--modes", "wait", "--", PLAIN, "400"
        )
        found = json.loads(said.stdout)
        self.assertEqual(found["cmp_trial"], 1)
        self.assertEqual(found["command"], [str(PLAIN), "400"])
        self.assertTrue(found["simulated"] and found["same"])
        self.assertEqual(found["gain"]["outcome"], "faster")
        self.assertAlmostEqual(found["gain"]["ratio"], 10)
        self.assertIn("10 times faster with wait", " ".join(found["verdict"]))
        self.assertEqual(found["recommended"], {"CMP_FREE_SYNC": "wait"})
        self.assertIn("Written to", said.stderr)
        variants = {one["name"]: one for one in found["variants"]}
        self.assertEqual(list(variants), ["without", "observed", "wait", "filled"])
        self.assertEqual(variants["without"]["process"], {})
        self.assertEqual(variants["wait"]["seconds"], [0.02] * 6)
        self.assertEqual(variants["wait"]["different"], [])
        self.assertEqual(variants["wait"]["totals"]["requests"], 400)

    def test_json_of_a_program_of_which_nothing_is_told(self):
        found = json.loads(self.trial("-n", "1", "--json", "--", "true").stdout)
        self.assertIsNone(found["gain"])
        self.assertIn("made a CUDA call", " ".join(found["verdict"]))

    def test_a_program_that_gains(self):
        path = self.folder() / "settings"
        result = self.timed_trial(
            "-n", "6", "--modes", "wait,order", "--save", path, "--", PLAIN, "1000"
        )
        table = rows(result)
        self.assertEqual(list(table), ["without", "observed", "wait", "order", "filled"])
        self.assertEqual(table["observed"][4], "2,000")
        self.assertEqual(table["order"][5], "99.9%")
        self.assertEqual(table["order"][6], "4 KiB")
        self.assertRegex(
            words_of(result),
            r"^These runs were on the simulated CUDA: their times say nothing about a GPU\.\n"
            r"10 times faster with wait; allocation was 90% of the run[^;]*; results identical in 19 "
            r"runs\.\nIn 6 runs of each, a difference of 3.0% or more shows\.\n",
        )
        self.assertIn(
            f"Recommended: {own_command()} run --free-sync wait -- {PLAIN} 1000\n"
            "    Gain: 10 times faster with wait; price: no memory.\n"
            "    Tried, not recommended: order (not shown to be faster than wait).\n",
            words_of(result),
        )
        self.assertNotIn("SLOWER", words_of(result))
        self.assertIn("\nfilled (check)  ", result.stdout)
        # Progress: a line for each run, on stderr.
        self.assertEqual(len(result.stderr.splitlines()), 26, result.stderr)
        self.assertIn("run 26 of 26: ", result.stderr)
        # What it saved is what run uses.
        self.assertIn("\nCMP_FREE_SYNC=wait\n", path.read_text())
        self.assertIn(f"Written to {path}: {own_command()} run --settings", result.stdout)
        used = run("run", "--settings", path, "--", "env")
        self.assertIn("\nCMP_FREE_SYNC=wait\n", used.stdout)
        self.assertIn("to warm up", result.stderr.splitlines()[0])

    def page_locked_trial(self, seconds, *arguments, name="page_locked", code=0):
        """Runs take a made-up time, by CMP_HOST; so do the real calls for page-locked memory."""
        really = Measurer.run

        def timed(measurer, its_environment, *more):
            result = really(measurer, its_environment, *more)
            kept = its_environment.get("CMP_HOST") == "on"
            result.seconds = seconds if kept else 0.2
            for one in result.statistics:
                one["process"]["host_real_malloc_ns"] = 0 if kept else 170_000_000
                one["process"]["allocating_ns"] = 0
            return result

        printed = io.StringIO()
        with (
            unittest.mock.patch.object(Measurer, "run", timed),
            unittest.mock.patch.object(preloading, "own_environment", environment),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            ended = trial.main(
                ["-n", "6", "--modes", "auto", *arguments, "--", str(PROGRAMS / "page_locked"),
                 name, "runtime", "30"],
                lambda: LIBRARY,
            )
        self.assertEqual(ended, code, printed.getvalue())
        return types.SimpleNamespace(stdout=printed.getvalue())

    def test_page_locked_memory(self):
        """CMP_HOST is tried where a program allocates page-locked memory in a loop, and recommended
        where that gains."""
        result = self.page_locked_trial(0.04, name="loop")
        self.assertIn("CMP_HOST=on", rows(result))
        self.assertIn("5.0 times faster than auto", result.stdout)
        self.assertRegex(result.stdout, r"Recommended: .* run --host on -- ")
        for what, seconds, more, name in (("no gain", 0.2, (), "loop"), ("given", 0.2, ("--host", "off"), "loop"),
                                          ("no loop", 0.2, (), "exit")):
            with self.subTest(what=what):
                result = self.page_locked_trial(seconds, *more, name=name)
                self.assertEqual("CMP_HOST=on" in rows(result), what == "no gain")
                self.assertNotIn("Recommended", result.stdout)
        self.assertNotIn("CMP_HOST", self.trial("-n", "2", "--", PLAIN, "10").stdout)

    def shaken_trial(self, *arguments, races=(), effective=4, sites=("order", "host"), really=None, ends=None):
        """Of a program that gains 2 times by auto and 10 times by none, in made-up time. It is
        shaken in invention, too, unless it is to be `really`: `races`: kinds that differ in the
        second run; `ends`: the kind with which Ctrl-C comes, in the fifth."""

        class Invented:
            def __init__(self, start, difference, folder):
                self.start, self.difference = start, difference

            def record(self):
                run = self.start({"CMP_FREE_SYNC": "order"}, "recorded")
                return run, Reports([one_site(i, kind) for i, kind in enumerate(sites)], 1, 0)

            def shake(self, kind, seed, sites, what):
                if kind == ends and seed == 5:
                    raise Interrupted(signal.SIGINT)
                self.start({"CMP_FREE_SYNC": shaking.MODE_OF[kind]}, what)
                did = [one._replace(holds=9, effective=effective) for one in sites]
                return shaking.Shaken(seed, "sum 4" if kind in races and seed == 2 else None, did)

        run_of = Measurer.run
        seconds = {"auto": 0.1, "order": 0.1, "none": 0.02}

        def timed(measurer, its_environment, *more):
            result = run_of(measurer, its_environment, *more)
            pooled = its_environment.get("CMP_MODE") == "pool"
            result.seconds = seconds[its_environment["CMP_FREE_SYNC"]] if pooled else 0.2
            for one in result.statistics:
                one["process"]["allocating_ns"] = 0 if pooled else 190_000_000
            return result

        printed, shown = io.StringIO(), io.StringIO()
        with (
            unittest.mock.patch.object(Measurer, "run", timed),
            unittest.mock.patch.object(trial, "Starter", shaking.Starter if really else Invented),
            unittest.mock.patch.object(preloading, "own_environment", lambda: environment(COSTS)),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(shown),
        ):
            program = really or (PLAIN, "20")
            ended = trial.main(["-n", "6", "--no-fill", *arguments, "--", *program], lambda: LIBRARY)
        self.assertEqual(ended, 130 if ends else 0, printed.getvalue() + shown.getvalue())
        return printed.getvalue(), shown.getvalue()

    RECOMMENDS_NONE = f"Recommended: {own_command()} run --free-sync none -- {PLAIN} 20\n"
    RECOMMENDS_AUTO = f"Recommended: {own_command()} run -- {PLAIN} 20\n"

    def test_a_faster_mode_that_withstands_shaking(self):
        said, progress = self.shaken_trial()
        self.assertIn(
            "\nnone was shaken (earlier work held back where only cudaFree orders it): results are the "
            "same. order: 8 shaken runs, 72 holds, during 32 of which later work ran first, at 1 of 1 "
            "site; host: 8 shaken runs, 72 holds, during 32 of which the host went on first, at 1 of 1 "
            "site. That is evidence, no proof. What it cannot find: ",
            said,
        )
        self.assertNotIn("order was shaken", said)  # it gains nothing
        self.assertIn(self.RECOMMENDS_NONE, said)
        self.assertIn(
            "which shaken runs did not miss.\n    Tried, not recommended: auto (slower than none), ",
            said,
        )
        told = progress.splitlines()
        self.assertEqual(len(told), 31 + 1 + 16)
        self.assertIn("run 31 of 31: ", told[30])
        self.assertIn("run 32 of 48: recorded ", told[31])
        self.assertIn("run 33 of 48: shaken, order, seed 1 ", told[32])
        self.assertIn("run 48 of 48: shaken, host, seed 8 ", told[47])
        path = self.folder() / "settings"
        self.shaken_trial("--shake", "1", "--save", str(path))
        self.assertIn("CMP_FREE_SYNC=none\n", path.read_text())

    def test_a_faster_mode_that_does_not(self):
        for kind in ("order", "host"):
            said, _ = self.shaken_trial(races=(kind,))
            self.assertIn(
                f"results differ ({kind}, seed 2: sum 4), so it is not recommended. Where: "
                f"{own_command()} shake --kind {kind} -- {PLAIN} 20\n",
                said,
            )
            self.assertIn(self.RECOMMENDS_AUTO, said)
            self.assertRegex(said, r"none \([\d.]+ times faster than auto, but results differ when")
            self.assertNotIn("evidence", said)

    def test_a_faster_mode_of_which_shaking_says_nothing(self):
        for more, why in (
            ({"effective": 0}, "no hold was effective (order), and a run without says nothing"),
            ({"sites": ()}, "no free of the program had earlier work to wait for"),
        ):
            said, _ = self.shaken_trial(**more)
            self.assertIn(f"results are the same, but {why}, so it is not recommended. order: ", said)
            self.assertIn(self.RECOMMENDS_AUTO, said)
            self.assertIn(f"times faster than auto, but {why})", said)
            self.assertNotIn("evidence", said)

    def test_shaken_on_the_simulated_cuda(self):
        app = self.script(
            "unset CMPSIM_COSTS\nexport CMPSIM_HOLD_NS=5000000 "
            f"LD_PRELOAD={PROGRAMS}/virtual_clock.so${{LD_PRELOAD:+:$LD_PRELOAD}}\n"
            f"exec {BUILD}/races $1\n"
        )
        said, _ = self.shaken_trial(really=(app, "right-event"))
        self.assertRegex(said, r"results are the same\. order: 8 shaken runs, [\d,]+ holds, ")
        self.assertIn(f"Recommended: {own_command()} run --free-sync none -- {app} right-event\n", said)
        said, _ = self.shaken_trial(really=(app, "free-alone-kernels"))
        self.assertRegex(said, r"results differ \(order, seed \d+: stdout line 1: 'free-alone-kernels:")
        self.assertIn(f"Recommended: {own_command()} run -- {app} free-alone-kernels\n", said)

    def test_interrupted_while_it_is_shaken(self):
        said, _ = self.shaken_trial(ends="order")
        self.assertIn("Interrupted: this is what the runs until then show.\n", said)
        self.assertIn("the same, but no run of this kind ended (host), and a run without says", said)
        self.assertIn(self.RECOMMENDS_AUTO, said)
        said, _ = self.shaken_trial(ends="host")
        self.assertIn("host: 4 shaken runs, 36 holds, ", said)
        self.assertIn(self.RECOMMENDS_NONE, said)

    def test_without_shaking(self):
        """Named, not recommended; a mode that was asked for as the first is."""
        said, progress = self.shaken_trial("--shake", "0")
        self.assertEqual(len(progress.splitlines()), 31)
        self.assertNotIn("shaken", said)
        self.assertIn(self.RECOMMENDS_AUTO, said)
        self.assertIn("times faster than auto, but it keeps less)", said)
        said, _ = self.shaken_trial("--shake", "0", "--modes", "none")
        self.assertIn(self.RECOMMENDS_NONE, said)
        said, _ = self.shaken_trial("--modes", "none", races=("host",))
        self.assertNotIn("Recommended", said)
        self.assertIn("results differ (host, seed 2: sum 4), so it is not recommended", said)

    def test_settings_are_passed_on(self):
        """And the values of CMP_FREE_SYNC that are tried come from the library's table."""
        result = self.trial("-n", "1", "--max-block", "1K", "--", PLAIN, "2000", env=COSTS)
        help_text = " ".join(run("run", "--help").stdout.split())
        values, default = re.search(
            r"--free-sync VALUE (\w[\w, ]*);.*?\(default: (\w+)\) --", help_text
        ).groups()
        tried = [default] + [v for v in values.split(", ") if v not in (default, "wait")]
        self.assertEqual(list(rows(result)), ["without", "observed", *tried, "filled"])
        self.assertEqual(rows(result)[default][4], "0.0%")
        self.assertIn("2,000 requests went past the pool because of their size", words_of(result))
        zero = self.trial("-n", "1", "--fill", "zero", "--modes", "wait", "--", PLAIN, "10")
        self.assertEqual(list(rows(zero)), ["without", "observed", "wait"])

    def test_modes_in_any_case_once(self):
        result = self.trial("-n", "1", "--modes", "Wait, AUTO,wait", "--no-fill", "--", PLAIN, "10")
        self.assertEqual(list(rows(result)), ["without", "observed", "wait", "auto"])

    def test_a_program_of_stream_ordered_allocations(self):
        """What its pools keep is tried; of a program that has none, or that is told, it is not."""
        program = (BUILD / "programs" / "async_keep", "loop", "20")
        tried = ["CMP_ASYNC_KEEP=off", "CMP_ASYNC_KEEP=1T"]
        result = self.trial("-n", "2", "--modes", "wait", "--", *program, env=COSTS)
        self.assertEqual(list(rows(result)), ["without", "observed", "wait", *tried, "filled"])
        self.assertIn("results identical in 9 runs", words_of(result))
        self.assertIn("run 12 of 12: ", result.stderr)
        result = self.trial(
            "-n", "1", "--modes", "wait", "--async-keep", "8M", "--", *program, env=COSTS
        )
        self.assertEqual(list(rows(result)), ["without", "observed", "wait", "filled"])

    def test_several_processes_are_added_up(self):
        script = self.script(f"{PLAIN} 300 & {PLAIN} 200; wait")
        result = self.trial("-n", "1", "--modes", "wait", "--", script, env=COSTS)
        self.assertEqual(rows(result)["observed"][3], "1,000")

    def test_terminal_of_another_character_set(self):
        python = [sys.executable, str(COMMAND)]  # not isolated: it is told how by PYTHONIOENCODING
        result = subprocess.run(
            [*python, "trial", "-n", "1", "--modes", "wait", "--", PLAIN, "10"],
            env=environment({"PYTHONIOENCODING": "ascii"}),
            capture_output=True,
            text=True,
            check=False,
        )
        self.assert_ok(result)
        self.assertIn("\\xb5s", result.stdout)

    def test_without_cuda(self):
        result = self.trial("-n", "2", "--", "echo", "hello")
        self.assertIn("Nothing to gain: no process of it made a CUDA call", words_of(result))
        self.assertNotIn("Recommended", words_of(result))
        self.assertNotIn("SLOWER", words_of(result))

    def test_cuda_without_allocations_says_why(self):
        opens = "import ctypes; ctypes.CDLL('libcuda.so.1').cuInit(0)"
        result = self.trial("-n", "1", "--modes", "wait", "--", sys.executable, "-c", opens)
        self.assertIn(
            "Nothing to gain: the pool served nothing: it allocated nothing with", words_of(result)
        )

    def test_other_results(self):
        script = self.script(f'[ "$CMP_FREE_SYNC" = none ] && echo wrong; {PLAIN} 300')
        result = self.timed_trial("-n", "6", "--modes", "wait,none", "--", script)
        self.assertIn(
            "Results differ with none in 6 of 6 runs: stdout line 1: 'failed 0, last error 0', "
            "then 'wrong'.",
            words_of(result),
        )
        self.assertIn("results identical in 13 of 19 runs", words_of(result))
        self.assertIn(
            f"Recommended: {own_command()} run --free-sync wait -- {script}", words_of(result)
        )
        self.assertIn("Tried, not recommended: none (other results).\n", words_of(result))
        # The first mode's results decide, and the recommendation follows.
        result = self.timed_trial("-n", "6", "--modes", "none,wait", "--", script, code=1)
        self.assertIn(f"Recommended: {own_command()} run --free-sync wait -- {script}", words_of(result))
        path = self.folder() / "settings"
        result = self.timed_trial(
            "-n", "1", "--modes", "none", "--save", path, "--", script, code=1
        )
        self.assertIn("Run this program without the pool.", words_of(result))
        self.assertIn("Nothing is recommended, so nothing was written", words_of(result))
        self.assertFalse(path.exists())
        self.assertNotIn("Recommended", words_of(result))

    def test_other_endings(self):
        for ending, words in (("exit 3", "exit code 3: last words"), ("kill -SEGV $$", "SIGSEGV")):
            script = self.script(
                f'[ "$CMP_FREE_SYNC" = none ] || exit 0; echo last words >&2; {ending}'
            )
            result = self.trial("-n", "1", "--modes", "wait,none", "--", script)
            self.assertIn("Results differ with none in 1 of 1 run: ", words_of(result))
            self.assertIn(words, words_of(result))

    def test_reads_of_memory_that_was_never_written(self):
        """It is exposed by the fill, and zeros are tried and recommended."""
        result = self.trial(
            "-n", "1", "--modes", "wait", "--", PROGRAMS / "contents", env=COSTS, code=1
        )
        self.assertIn("zeroed", rows(result))
        self.assertIn("It reads memory before it writes there", words_of(result))
        self.assertIn("With zeros there the results are as without the pool", words_of(result))
        script = self.script(f'[ "$CMP_FILL" = 0xFF ] && echo NaN; {PLAIN} 3000')
        result = self.timed_trial("-n", "1", "--modes", "wait", "--", script)
        self.assertIn("With new memory filled with 0xFF: stdout line 1:", words_of(result))
        self.assertIn(
            f"What that costs and gains: {own_command()} trial --fill zero -- {script}\n",
            words_of(result),
        )
        self.assertNotIn("Recommended", words_of(result))  # its gain was not measured

    def test_results_that_depend_on_time(self):
        """A fill takes time: what it changes, or happens to mend, tells nothing of memory."""
        seen = self.folder() / "seen"
        for case, line, says in (
            # what helps, and what is said
            ("any fill helps", '[ -n "$CMP_FILL" ]', None),
            ("zeros help once", f'[ "$CMP_FILL" = zero ] && mkdir {seen}', None),
            ("all help once", f'[ -n "$CMP_FILL" ] && mkdir {seen}.$CMP_FILL', None),
            ("zeros help", '[ "$CMP_FILL" = zero ]', "as without the pool, in 2 runs."),
            ("fills spoil", '[ -z "$CMP_FILL" ]', "or its results depend on time"),
        ):
            with self.subTest(case):
                script = self.script(f'[ "$CMP_FREE_SYNC" != wait ] || {{ {line}; }} || echo other')
                code = 0 if case == "fills spoil" else 1
                result = self.trial("-n", "2", "--modes", "wait", "--", script, code=code)
                if says is None:
                    self.assertNotIn("It reads memory", words_of(result))
                else:
                    self.assertIn(says, words_of(result))


class Verdicts(TestCase):
    """From times and counters that are made up."""

    def verdict(self, runs, modes=("auto",), allocation_s=0.5, **usual):
        """`runs`: the times of each variant, each twice. Allocation takes so long without the pool,
        nothing with it. `usual`: counters of the first mode."""
        compared = series_of(list(modes), 6, False)
        for series, seconds in zip(compared, runs, strict=True):
            inside = allocation_s if series.name == "observed" else 0
            counters = usual if series.name == modes[0] else {}
            series.runs = [measured(one, inside, **counters) for one in seconds * 2]
        return "\n".join(verdict.of(compared, [], {}, ["app"], "auto").lines)

    SECOND = (1.00, 1.01, 1.02)
    HALF = (0.50, 0.51, 0.52)

    def test_faster(self):
        told = self.verdict([self.SECOND, self.SECOND, self.HALF])
        self.assertIn("1.9 times faster with auto; allocation was 50% of the run;", told)
        self.assertIn(f"Recommended: {own_command()} run -- app", told)

    def test_no_more_is_gained_than_allocation_takes(self):
        """A difference that it cannot make is chance, however clear it is."""
        told = self.verdict([self.SECOND, self.SECOND, self.HALF], allocation_s=29e-6)
        self.assertIn("No faster with auto than without; allocation was 0.0% of the run", told)
        self.assertIn("Nothing to gain: its 100 allocations took 29.00 µs of 1.010 s.", told)
        self.assertNotIn("Recommended", told)
        told = self.verdict([self.SECOND, self.SECOND, self.HALF], allocation_s=0.2)
        self.assertIn(
            "1.2 times faster with auto, all that its time in allocation can explain; allocation "
            "was 20% of the run;",
            told,
        )
        self.assertIn(f"Recommended: {own_command()} run -- app", told)

    def test_threads_count_once(self):
        """Eight threads that are inside at once are inside for an eighth of the sum."""
        compared = series_of(["auto"], 6, False)
        for series, seconds in zip(compared, (1.0, 1.0, 0.5), strict=True):
            counters = {}
            if series.name == "observed":
                counters = {"allocating_ns": 1e8, "held_up_ns": 3e8}
            series.runs = [measured(seconds, 0.8, **counters) for _ in range(6)]
        told = "\n".join(verdict.of(compared, [], {}, ["app"], "auto").lines)
        self.assertIn(
            "1.11 times faster with auto, all that its time in allocation can explain; allocation "
            "was 10% of the run (800.0 ms, summed over all threads) and kept other threads' "
            "submissions waiting for 300.0 ms;",
            told,
        )

    def test_too_few_runs_and_too_much_noise(self):
        compared = series_of(["auto"], 3, False)
        for series, seconds in zip(compared, (1.0, 1.0, 0.1), strict=True):
            series.runs = [measured(seconds, 0.95) for _ in range(3)]
        told = "\n".join(verdict.of(compared, [], {}, ["app"], "auto").lines)
        self.assertIn("Too few runs to say whether it is faster with auto; allocation was 95%", told)
        self.assertIn("any difference may be chance: -n 6.", told)
        self.assertNotIn("Recommended", told)
        told = self.verdict([(1.0, 3.0, 1.4), (1.5, 1.0, 2.5), (0.8, 2.0, 1.1)])
        self.assertIn("Too noisy to say whether it is faster with auto;", told)
        self.assertNotIn("times faster", told)
        self.assertNotIn("Recommended", told)
        some = [(1.00, 1.09, 1.02), (1.05, 1.02, 1.10), (0.90, 1.02, 0.96)]
        self.assertRegex(self.verdict(some), r"\. (\d+) would tell: -n \1\.")

    def test_runs_that_are_too_short(self):
        """No number of runs is asked for, and a quiet machine would not help either."""
        told = self.verdict([(0.020, 0.021, 0.020), (0.020, 0.020, 0.021), (0.018, 0.018, 0.017)])
        self.assertIn("Runs are too short to say whether it is faster with auto; allocation", told)
        self.assertIn(
            "They take 20.00 ms, and starts of a process alone differ by 5.000 ms: no number of runs "
            "would tell. Give it more work.",
            told,
        )
        for words in ("-n", "noisy", "Try again", "times faster", "The time of allocation is saved"):
            self.assertNotIn(words, told)

    def test_more_runs_than_are_asked_for(self):
        told = self.verdict([(1.0, 3.0, 1.4) * 8, (1.5, 1.0, 2.5) * 8, (1.4, 2.0, 1.2) * 8])
        self.assertIn("does not show in 48 of each. Try again when", told)

    def test_another_mode_saves_no_more_than_was_there(self):
        both = ("auto", "order")
        runs = [self.SECOND, self.SECOND, self.HALF, (0.30, 0.31, 0.32)]
        told = self.verdict(runs, both, allocation_s=0.9)
        self.assertIn("--free-sync order is 1.6 times faster than auto, with the same", told)
        self.assertIn("order (1.6 times faster than auto, but it keeps less)", told)
        self.assertIn("order is 1.2 times faster", self.verdict(runs, both, allocation_s=0.6))
        self.assertNotIn("--free-sync", self.verdict(runs, both, allocation_s=0.5))

    def test_what_was_kept_and_why(self):
        runs = [self.SECOND, self.SECOND, self.HALF]
        self.assertNotIn("Memory:", self.verdict(runs))
        held = {"live_peak_bytes": 8 << 30, "reserved_peak_bytes": 8 << 30}
        self.assertNotIn("Memory:", self.verdict(runs, **held))
        held["reserved_peak_bytes"] = 13 << 30
        said = "Memory: the program held up to 8 GiB, 13 GiB with what the pool kept idle"
        self.assertIn(f"{said}.\n", self.verdict(runs, **held))
        held["regretted_releases"] = 37
        because = "37 of the blocks that were released for it had to be allocated again"
        self.assertIn(
            f"{said}; the memory limit had no room to rise, although {because}.\n",
            self.verdict(runs, **held),
        )
        held["reserve_extra_peak_bytes"] = 4 << 30
        told = self.verdict(runs, **held)
        self.assertIn(f"{said}; the memory limit rose by up to 4 GiB, because {because}.\n", told)
        self.assertNotIn("--reserve", told)

    def test_frees_that_wait_for_memory(self):
        """More memory is no advice: whether it helps is measured, by another command."""
        runs = [self.SECOND, self.SECOND, self.HALF]
        told = self.verdict(runs, wait_calls=100, bound_waits=90, wait_ns=50_000_000)
        self.assertIn(
            "90 frees waited because the pool had reached its memory limit (CMP_RESERVE); "
            "cmp-preload tune measures whether a larger one gains anything.\n",
            told,
        )
        self.assertIn(f"Recommended: {own_command()} run -- app", told)
        few = self.verdict(runs, wait_calls=100, bound_waits=10, wait_ns=50_000_000)
        self.assertNotIn("limit", few)

    def in_order(self, *runs):
        """Of a program that calls cudaMallocAsync: nearly none of its time is in real calls."""
        compared = series_of(["auto"], 6, False)
        compared += async_keep_series(compared[2])
        for series, seconds in zip(compared, runs, strict=True):
            series.runs = [measured(one, 1e-6, async_allocations=9) for one in seconds * 2]
        return "\n".join(verdict.of(compared, [], {}, ["app"], "auto").lines)

    def test_stream_ordered_allocations(self):
        third = (0.33, 0.34, 0.35)
        second, half = self.SECOND, self.HALF
        told = self.in_order(second, second, half, second, half)
        self.assertIn("1.9 times faster with auto; allocation was 0.0% of the run;", told)
        self.assertIn("CMP_ASYNC_KEEP=off and CMP_ASYNC_KEEP=1T gain nothing.", told)
        self.assertIn(f"Recommended: {own_command()} run -- app", told)
        told = self.in_order(second, second, half, second, third)
        self.assertIn("CMP_ASYNC_KEEP=1T is 1.5 times faster than auto without it.", told)
        self.assertIn(f"Recommended: {own_command()} run --async-keep 1T -- app", told)
        told = self.in_order(half, half, second, half, second)
        self.assertIn("1.9 times SLOWER with auto", told)
        self.assertIn("CMP_ASYNC_KEEP=off is 1.9 times faster than auto without it.", told)
        self.assertNotIn("Recommended", told)
        told = self.in_order(second, second, second, second, second)
        self.assertIn("No faster with auto than without", told)
        self.assertNotIn("Nothing to gain: its", told)
        # Found in the gallery: of a program without any other allocation, too.
        self.assertNotIn("The time of allocation is saved", told)
        self.assertIn("Its 9 stream-ordered allocations come from the driver's own pool", told)

    def test_stream_ordered_and_page_locked(self):
        """Of a program that has both, each is judged by itself, and both are recommended."""
        third = (0.33, 0.34, 0.35)
        compared = series_of(["auto"], 6, False)
        compared += [*async_keep_series(compared[2]), page_locked_series(compared[2])]
        calls = {"async_allocations": 9, "host_real_malloc_calls": 90, "host_real_free_calls": 90}

        def told(*runs):
            for series, seconds in zip(compared, runs, strict=True):
                ns = int(0.3e9) if "CMP_HOST" not in (series.settings or {}) else 0
                counted = {**calls, "host_real_malloc_ns": ns, "host_reserved_peak_bytes": 1 << 20}
                series.runs = [measured(one, 1e-6, **counted) for one in seconds * 2]
            return "\n".join(verdict.of(compared, [], {}, ["app"], "auto").lines)

        second, half = self.SECOND, self.HALF
        said = told(second, second, half, half, third, third)
        self.assertIn("CMP_ASYNC_KEEP=1T is 1.5 times faster than auto without it.", said)
        self.assertIn("90 real allocations a run; CMP_HOST=on is 1.5 times faster than auto.", said)
        self.assertIn(f"Recommended: {own_command()} run --async-keep 1T --host on -- app", said)
        said = told(second, second, half, half, half, third)
        self.assertIn("CMP_ASYNC_KEEP=off and CMP_ASYNC_KEEP=1T gain nothing.", said)
        self.assertIn(f"Recommended: {own_command()} run --host on -- app", said)
        said = told(second, second, half, half, third, half)
        self.assertIn("CMP_HOST=on was tried: not shown to be faster.", said)
        self.assertIn(f"Recommended: {own_command()} run --async-keep 1T -- app", said)

    def test_few_runs_of_page_locked_memory(self):
        """Twice as fast in three runs (H200): it said that nothing showed, as if that were known."""
        compared = [*series_of(["auto"], 3, False)]
        compared.append(page_locked_series(compared[2]))
        for series, seconds in zip(compared, (self.SECOND,) * 3 + (self.HALF,), strict=True):
            counted = {"host_real_malloc_calls": 90, "host_real_malloc_ns": int(0.3e9),
                       "host_real_free_calls": 90, "host_reserved_peak_bytes": 1 << 20}
            series.runs = [measured(one, 1e-6, **counted) for one in seconds]
        said = "\n".join(verdict.of(compared, [], {}, ["app"], "auto").lines)
        self.assertIn("CMP_HOST=on was tried: too few runs to say whether it is faster; "
                      "-n 6 would tell.", said)

    def test_slower(self):
        told = self.verdict([self.HALF, self.HALF, self.SECOND])
        self.assertIn("1.9 times SLOWER with auto", told)
        self.assertNotIn("Recommended", told)


class Noise(TestCase):
    def compared(self, text, *options, code=0):
        """A trial of a script that writes other things when it runs under the pool ($POOL)."""
        script = self.script(f'[ "$CMP_MODE" = pool ] && POOL=1\n{text}')
        result = run("trial", "-n", "2", "--modes", "wait", "--no-fill", *options, "--", script)
        self.assert_ok(result, code)
        return words_of(result)

    def test_numbers_that_vary_by_themselves(self):
        said = self.compared("echo took $(date +%N) ns; echo result 7")
        self.assertIn("Numbers in 1 line of stdout vary without the pool", said)
        self.assertIn("identical in 4 runs", said)
        # What stands still without the pool must do so with it.
        self.assertIn(
            "stdout line 2", self.compared("echo took $(date +%N) ns; echo result 7$POOL", code=1)
        )
        self.assertIn("stdout line 1", self.compared("echo took $(date +%N) ${POOL:+m}s", code=1))

    def test_times_and_rates(self):
        """A time that stands still without the pool, coarse as it is, is no result."""
        text = 'echo "Elapsed: 2$POOL s, sum 7"; echo "Throughput = 3$POOL.5 GB/s"'
        said = self.compared(text)
        self.assertIn("identical in 4 runs", said)
        self.assertIn("Times and rates in 2 lines of stdout differ, as they may (line 1).", said)
        self.assertIn(
            "stdout line 1", self.compared('echo "Elapsed: 2$POOL s, sum 7$POOL"', code=1)
        )

    def test_lines_in_another_order(self):
        """Of each two runs in turn one has the other order: those without the pool have both."""
        runs = self.folder() / "runs"
        text = (
            f"echo >> {runs}; if [ $(($(wc -l < {runs}) % 2)) = 0 ]; "
            "then echo a; echo b; else echo b; echo a; fi"
        )
        self.assertIn("identical", self.compared(text))

    def test_output_that_varies_all_over(self):
        said = self.compared("head -c 8 /dev/urandom | od -An -c; echo")
        self.assertIn("stdout was not compared: it varies without the pool", said)
        self.assertIn("--ignore", said)

    def test_rules(self):
        self.assertIn(
            "identical", self.compared("echo in ${POOL:-no} pool", "--ignore", "in .* pool")
        )
        self.assertIn("differ", self.compared("echo in ${POOL:-no} pool", "--ignore", "IN", code=1))
        loss = "if [ $POOL ]; then echo loss 0.1000001; else echo loss 1e-1; fi"
        self.assertIn("identical", self.compared(loss, "--tolerance", "1e-5"))
        self.assertIn("differ", self.compared(loss, "--tolerance", "1e-7", code=1))
        self.assertIn("differ", self.compared(loss, code=1))

    def test_stderr_and_files(self):
        path = self.folder() / "result"
        self.assertIn("Exit codes (it wrote nothing", self.compared("echo $POOL >&2"))
        self.assertIn("stderr line 1", self.compared("echo $POOL >&2", "--stderr", code=1))
        self.assertIn(
            "result line 1", self.compared(f"echo 1$POOL > {path}", "--file", path, code=1)
        )
        self.assertIn("identical", self.compared(f"echo 1 > {path}", "--file", path))
        result = run("trial", "--file", f"{path}-wrong", "--", PLAIN, "10")
        self.assertEqual(result.returncode, 1)
        self.assertIn("the program did not write", result.stderr)
        # A file that is only there from an earlier run is not this one's.
        self.assertIn(
            "result line 1", self.compared(f"[ $POOL ] || echo 1 > {path}", "--file", path, code=1)
        )


class Edges(TestCase):
    def test_wrong_options(self):
        for words, said in (
            (["--modes", "wait,later", "true"], "later"),
            (["--ignore", "(", "true"], "--ignore"),
            (["-n", "0", "true"], "-n '0' is not understood; right: a number, 1 or more"),
            (["--limit", "0", "true"], "--limit '0' is not understood; right: a number, more than 0"),
            (["--limit", "nan", "true"], "--limit 'nan'"),
            (["--tolerance", "-1", "true"], "--tolerance '-1' is not understood"),
            (["--tolerance", "inf", "true"], "--tolerance 'inf'"),
            (["--decay", "-1s", "true"], "--decay needs a value"),
            (["--mode", "pool", "true"], "--mode"),
            (["--slack", "1", "true"], "--slack"),
            (["--stdin", "/nowhere", "true"], "/nowhere"),
            (["--save", "/nowhere/settings", "true"], "/nowhere/settings"),
            ([], "which program"),
        ):
            with self.subTest(words=words):
                self.assert_refused(run("trial", *words), said)

    def test_settings_that_are_not_understood_are_told_once(self):
        """Found by a reader: a trial of CMP_RESERVE=abc said nothing of it."""
        wrong = {"CMP_RESERVE": "abc", "CMP_RESERV": "1x"}
        for command in (("trial", "-n", "2", "--no-fill"), ("tune", "-n", "1"), ("shake", "-n", "1")):
            with self.subTest(command=command):
                said = run(*command, "--", PLAIN, "20", env=wrong).stderr
                self.assertEqual(said.count("cmp-preload: CMP_RESERVE=abc is not understood"), 1, said)
                self.assertEqual(said.count("cmp-preload: unknown option CMP_RESERV;"), 1, said)

    def test_no_driver(self):
        """The program takes it that its allocations fail."""
        result = run("trial", "-n", "1", "--", PLAIN, "10", env=self.without_driver())
        self.assert_ok(result)
        self.assertIn(
            "\nNothing to gain: no allocation of it came to a driver with a GPU; ", result.stdout
        )
        self.assertNotIn("faster", result.stdout)

    def test_programs_that_fail_without_the_pool(self):
        result = run("trial", "--", "sh", "-c", "echo no input >&2; exit 4")
        self.assert_ok(result, 1)
        self.assertIn(
            "fails without the pool: exit code 4 (if that is right: --code 4)\n", result.stderr
        )
        self.assertIn("no input", result.stderr)
        self.assertEqual(result.stdout, "")
        self.assert_ok(run("trial", "-n", "1", "--code", "4", "--", "sh", "-c", "exit 4"))
        result = run("trial", "--code", "4", "--", "sh", "-c", "exit 0")
        self.assertIn("fails without the pool: exit code 0, not the 4 of --code\n", result.stderr)
        self.assert_refused(run("trial", "--", "nowhere"), "cannot run nowhere", code=127)
        self.assert_refused(run("trial", "--", "/etc/passwd"), "cannot run /etc/passwd", code=126)

    def test_a_program_that_hangs_in_one_mode(self):
        # Longer than a run of sh may take on a busy machine, less than any patience.
        script = self.script('[ "$CMP_FREE_SYNC" = none ] && sleep 1000 & wait')
        result = run("trial", "-n", "2", "--modes", "wait,none", "--limit", "10", "--", script)
        self.assertIn(
            "Results differ with none in 1 of 1 run: did not end in time", words_of(result)
        )

    def test_standard_input_and_tee(self):
        path = self.folder() / "in"
        path.write_text("from the file\n")
        result = run(
            "trial",
            "-n",
            "1",
            "--modes",
            "wait",
            "--no-fill",
            "--stdin",
            path,
            "--tee",
            "--",
            "cat",
        )
        self.assertEqual(result.stderr.count("from the file"), 4)
        self.assertNotIn("from the file", result.stdout)
        result = run("trial", "-n", "1", "--modes", "wait", "--tee", "--", "cat", input="not this")
        self.assertNotIn("not this", result.stderr)

    def test_interrupted_after_some_runs(self):
        """They are kept, and it says what they show."""
        folder = self.folder()
        script = self.script(
            f"echo >> {folder}/runs; [ $(wc -l < {folder}/runs) -lt 9 ] || sleep 1000; {PLAIN} 20"
        )
        running = start("trial", "--modes", "auto", "--no-fill", "--", script, env=COSTS)
        seen = folder / "runs"
        while not seen.exists() or len(seen.read_text()) < 9:
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        said, _ = running.communicate(timeout=60)
        self.assertEqual(running.returncode, 130)
        self.assertIn("\nInterrupted: this is what the runs until then show.\n", said)
        self.assertIn("results identical in ", said)
        self.assertRegex(said, r"\nobserved  ")
        self.assertNotIn("Recommended", said)  # of two rounds

    def test_interrupted(self):
        """What runs is ended, what was made is removed."""
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
            folder = self.folder()
            pid_file = folder / "pid"
            script = self.script(
                f"sleep 1000 & echo $! > {pid_file}.new; mv {pid_file}.new {pid_file}; wait"
            )
            temporary = folder / "tmp"
            temporary.mkdir()
            running = start("trial", "--", script, env={"TMPDIR": temporary})
            while not pid_file.exists():
                time.sleep(0.01)
            child = int(pid_file.read_text())
            running.send_signal(number)
            said = running.communicate(timeout=30)[1].splitlines()
            self.assertEqual(running.returncode, code)
            self.assertEqual(said, ["cmp-preload: interrupted, before there was anything to tell"])
            self.assertEqual(list(temporary.iterdir()), [])
            while self.runs(child):  # for ever, if it is not ended: the alarm is the failure
                time.sleep(0.01)

    @staticmethod
    def runs(pid):
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii") as file:
                return file.read().rsplit(")", 1)[1].split()[0] != "Z"
        except OSError:
            return False

    def test_files_are_private_and_gone_afterwards(self):
        temporary = self.folder()
        seen = self.folder() / "seen"
        script = self.script(f"stat -c %a {temporary}/* {temporary}/*/* >> {seen}; {PLAIN} 10; :")
        self.assert_ok(
            run("trial", "-n", "1", "--modes", "wait", "--", script, env={"TMPDIR": temporary})
        )
        self.assertEqual(set(seen.read_text().split()), {"700"})
        self.assertEqual(list(temporary.iterdir()), [])

    def test_no_room_for_statistics(self):
        """Costs a line, not the trial: here the private folder vanishes."""
        temporary = self.folder()
        script = self.script(f"rm -r {temporary}/cmp-preload-*; {PLAIN} 10")
        result = run("trial", "-n", "2", "--modes", "wait", "--", script, env={"TMPDIR": temporary})
        self.assert_ok(result)
        warnings = [line for line in result.stderr.splitlines() if "no statistics" in line]
        self.assertEqual(len(warnings), 1, result.stderr)
        self.assertIn("identical in 5 runs", words_of(result))

    def test_a_library_in_a_path_with_spaces(self):
        """A trial makes the link that LD_PRELOAD needs by itself."""
        folder = self.folder() / "a b"
        folder.mkdir()
        library = shutil.copy(BUILD / "libcmp_preload.so", folder)
        result = run(
            "--library", library, "trial", "-n", "1", "--modes", "wait", "--", PLAIN, "1000"
        )
        self.assert_ok(result)
        self.assertEqual(rows(result)["wait"][4], "99.9%", result.stdout)

    def test_processes_left_behind(self):
        script = self.script("sleep 1000 & echo $!")
        result = run("trial", "-n", "1", "--modes", "wait", "--no-fill", "--", script)
        self.assert_ok(result)
        self.assertIn("left processes behind; they are ended", result.stderr)


if __name__ == "__main__":
    main()
