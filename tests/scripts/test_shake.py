"""cmp-preload shake: what it makes of invented runs, and what it says of programs that behave as if
they were shaken. (What the pool does under CMP_SHAKE: tests/preload.)"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest

from command import BUILD, PROGRAMS, SOURCE, TestCase, main, run, start
from cmp_preload.measuring import evidence, shaking
from cmp_preload.measuring.narrowing import TRIES, Narrowing, most_tests
from cmp_preload.measuring.shaking import Found, Outcome, Shaken, Tried
from cmp_preload.pool.symbols import Symbols
from cmp_preload.records import sites as records
from cmp_preload.records.sites import Site
from cmp_preload.reporters import shaken

try:
    from jsonschema import Draft202012Validator
except ImportError:  # or one from before that draft
    Draft202012Validator = None

SCHEMA = json.loads((SOURCE / "scripts/docs/formats/shake.schema.json").read_text())
EVERY = 10_000  # executions of each invented site


def site(number, kind="order", **more):
    fields = {
        "id": f"{number:016x}", "kind": kind, "thread": 1, "count": EVERY, "holds": 0, "effective": 0,
        "earlier_call": "cuLaunchKernel", "earlier_where": f"app+0x{number:x}", "earlier_stream": "2",
        "free_where": f"app+0x{4096 + number:x}", "free_thread": 1, "free_bytes": 4096,
        "later_call": "cuMemcpyDtoHAsync_v2", "later_where": "libwork.so+0x20", "later_stream": "3",
    }  # fmt: skip
    return Site(**{**fields, **more})


class Invented:
    """A program with races: a run differs if all of a race's sites are held, and chance is with it;
    by itself it differs as often as `noise` says."""

    def __init__(self, races, chance=1.0, noise=0.0, effective=True, seed=0):
        self.races = [{f"{one:016x}" for one in race} for race in races]
        self.chance, self.noise, self.effective = chance, noise, effective
        self.random = random.Random(seed)
        self.runs = 0
        self.stop_after = None

    def shake(self, kind, seed, sites, _what):
        self.runs += 1
        if self.runs == self.stop_after:
            raise KeyboardInterrupt
        held = {one.id for one in sites}
        raced = [race for race in self.races if race <= held and self.random.random() < self.chance]
        different = f"race {min(raced[0], default='everywhere')}" if raced else None
        if self.random.random() < self.noise:
            different = "noise"
        did = [one._replace(holds=5, effective=5 if self.effective else 0) for one in sites]
        return Shaken(seed, different, did)


def shake_program(program, sites, runs=8, kind="order"):
    tried = Tried(kind, sites)
    shaking.shake(tried, range(1, 1 + runs), program, narrow=True)
    found = Found()
    found.unshaken = 4
    found.tried = [tried]
    return found


def numbers(sites):
    return sorted(int(one.id, 16) for one in sites)


class Search(unittest.TestCase):
    """The binary search by itself."""

    def search(self, count, needed, rng, chance=1.0, tries=1):
        """What it found, and in how many answers."""
        asked = []

        def differs(part):
            asked.append(part)
            return needed <= set(part) and any(rng.random() < chance for _ in range(tries))

        candidates = list(range(count))
        rng.shuffle(candidates)
        narrowing = Narrowing(candidates, differs)
        narrowing.search()
        self.assertLessEqual(len(asked), most_tests(count))
        self.assertLessEqual(needed, set(narrowing.within))  # it never loses what is needed
        return narrowing, len(asked)

    def test_what_is_needed_is_found_in_few_answers(self):
        rng = random.Random(1)
        for count in (1, 2, 3, 7, 64, 65, 1000, 5000):
            for together in (1, 2, 3):
                for _ in range(10):
                    needed = set(rng.sample(range(count), min(count, together)))
                    narrowing, asked = self.search(count, needed, rng)
                    self.assertEqual(set(narrowing.within), needed)
                    self.assertTrue(narrowing.complete)
                    self.assertLessEqual(asked, len(needed) * (count.bit_length() + 2))

    def test_wrong_answers_cost_answers(self):
        """And rarely more: with a chance of a half and four tries 1 of 16 answers is wrong."""
        rng = random.Random(2)
        exact = 0
        for _ in range(300):
            count = rng.randrange(2, 200)
            needed = set(rng.sample(range(count), rng.choice((1, 1, 1, 2))))
            narrowing, _ = self.search(count, needed, rng, 0.5, TRIES)
            exact += set(narrowing.within) == needed
        self.assertGreater(exact, 270)

    def test_what_never_comes_again_ends(self):
        """And says that it was not narrowed down."""
        for count in (3, 100, 3000):
            narrowing, _ = self.search(count, set(range(count)), random.Random(3), chance=0.0)
            self.assertEqual(narrowing.complete, count == 3)  # all of them together, for all it knows

    def test_stopped_half_way(self):
        """What is known by then is kept."""
        answers = iter((True, False, True))
        narrowing = Narrowing(list(range(64)), lambda part: next(answers))
        with self.assertRaises(StopIteration):
            narrowing.search()
        self.assertEqual(narrowing.within, list(range(24)))
        self.assertFalse(narrowing.complete)


class Invention(TestCase):
    """From runs that are made up."""

    def test_a_race_among_many_sites(self):
        for count in (1, 10, 100, 1000):
            sites = [site(i) for i in range(count)]
            for planted in {0, count // 3, count - 1}:
                program = Invented([{planted}])
                found = shake_program(program, sites)
                self.assertIs(found.outcome, Outcome.RACE)
                (race,) = found.races
                self.assertEqual(numbers(race.sites), [planted])
                self.assertTrue(race.complete)
                self.assertEqual((race.again, race.tries), (2, 2))
                # Seen, again, not without holds; half and half; confirmed; there is no other.
                most = 2 + shaking.CONTROLS + TRIES * (count.bit_length() + 1) + 2 + TRIES
                self.assertLessEqual(program.runs, most)

    def test_a_race_that_comes_rarely(self):
        right = wrong = missed = 0
        for seed in range(100):
            sites = [site(i) for i in range(40)]
            program = Invented([{seed % 40}], chance=0.5, seed=seed)
            found = shake_program(program, sites)
            right += [numbers(race.sites) for race in found.races] == [[seed % 40]]
            wrong += any(seed % 40 not in numbers(race.sites) for race in found.races)
            missed += not found.races
            self.assertLess(program.runs, 8 + 2 * TRIES * most_tests(40))
        self.assertGreater(right, 80)
        self.assertLess(missed, 3)
        self.assertEqual(wrong, 0)

    def test_several_races(self):
        sites = [site(i) for i in range(50)]
        found = shake_program(Invented([{3}, {17}, {20, 44}]), sites)
        self.assertEqual(
            sorted(numbers(race.sites) for race in found.races), [[3], [17], [20, 44]]
        )
        self.assertEqual({race.different for race in found.races},
                         {f"race {one:016x}" for one in (3, 17, 20)})
        many = shake_program(Invented([{i} for i in range(0, 50, 5)]), sites)
        self.assertEqual(len(many.races), shaking.MOST_RACES)

    def test_no_race(self):
        program = Invented([])
        found = shake_program(program, [site(i) for i in range(20)])
        self.assertIs(found.outcome, Outcome.AGREE)
        self.assertEqual(program.runs, 8)
        self.assertEqual((found.tried[0].holds, found.tried[0].effective), (800, 800))

    def test_no_effective_hold_says_nothing(self):
        found = shake_program(Invented([], effective=False), [site(1)])
        self.assertIs(found.outcome, Outcome.NONE)
        self.assertIn("no hold was effective (order)", found.why_none())
        self.assertIsNotNone(shaking.why_nothing(found.tried))
        # Nor is it evidence of one kind that the other had some.
        found.tried.append(shake_program(Invented([]), [site(2, "host")], kind="host").tried[0])
        self.assertIs(found.outcome, Outcome.NONE)
        self.assertIsNotNone(shaking.why_nothing(found.tried))
        # A kind without sites needs none.
        found.tried[0] = Tried("order", [])
        self.assertIs(found.outcome, Outcome.AGREE)
        self.assertIsNone(shaking.why_nothing(found.tried))

    def test_no_site_says_nothing(self):
        program = Invented([])
        found = shake_program(program, [])
        self.assertEqual(program.runs, 0)
        self.assertIs(found.outcome, Outcome.NONE)
        self.assertEqual("no free of the program had earlier work of kind order to wait for", found.why_none())
        self.assertIn("\nWhat that can mean: ", shaken.text(found, ["app"], Symbols(["app"], {})))
        found.tried.append(Tried("host", []))
        self.assertEqual("no free of the program had earlier work to wait for", found.why_none())
        self.assertIsNotNone(shaking.why_nothing(found.tried))

    def test_noise_is_no_race(self):
        """A program that differs by itself, so rarely that unshaken runs did not show it."""
        outcomes = []
        for seed in range(1000):
            found = shake_program(Invented([], noise=0.05, seed=seed), [site(i) for i in range(30)])
            outcomes.append((found.outcome, found.tried[0].different is None))
        self.assertLess(outcomes.count((Outcome.RACE, False)), 10)
        self.assertEqual(outcomes.count((Outcome.AGREE, False)), 0)
        self.assertGreater(outcomes.count((Outcome.AGREE, True)), 600)  # nothing was seen of it

    def test_it_differs_without_holds(self):
        """No site is named."""
        found = shake_program(Invented([set()]), [site(i) for i in range(30)])
        self.assertEqual([race.sites for race in found.races], [[]])
        said = shaken.text(found, ["app"], Symbols(["app"], {}))
        self.assertIn("It differs without any hold, too, as soon as work is not ordered", said)

    def test_interrupted_while_it_narrows_down(self):
        program = Invented([{7}])
        whole = shake_program(program, [site(i) for i in range(64)])
        self.assertEqual(numbers(whole.races[0].sites), [7])
        for stop in range(1, program.runs + 1):
            again = Invented([{7}])
            again.stop_after = stop
            tried = Tried("order", [site(i) for i in range(64)])
            with self.assertRaises(KeyboardInterrupt):
                shaking.shake(tried, range(1, 9), again, narrow=True)
            for race in tried.races:
                self.assertIn(7, numbers(race.sites))
            self.assertEqual(len(tried.races), int(stop > 2))

    def test_interrupted_at_the_only_site(self):
        """What was not looked at is not said."""
        program = Invented([{0}])
        program.stop_after = 4
        tried = Tried("order", [site(0)])
        with self.assertRaises(KeyboardInterrupt):
            shaking.shake(tried, range(1, 9), program, narrow=True)
        found = Found()
        found.tried, found.interrupted = [tried], True
        said = shaken.text(found, ["app"], Symbols(["app"], {}))
        self.assertIn("  Whether it comes without a hold, too, is not known.\n", said)
        self.assertNotIn("without holds in none", said)

    def test_without_narrowing(self):
        tried = Tried("order", [site(i) for i in range(9)])
        program = Invented([{4}])
        shaking.shake(tried, range(1, 9), program, narrow=False)
        self.assertEqual((program.runs, tried.different.seed), (1, 1))


    def test_the_same_call_on_other_streams_is_the_same_race(self):
        sites = [site(i, earlier_where="app+0x1", earlier_stream=str(i)) for i in range(4)]
        sites += [site(i, free_where=f"app+0x{i:x}") for i in range(4, 9)]
        found = shake_program(Invented([{i} for i in range(6)]), sites)
        self.assertEqual([race.others for race in found.races], [3, 0, 0])
        # And so is other work of one stream before one free.
        sites = [site(i, free_where="app+0x77" if i < 2 else "-") for i in range(4)]
        found = shake_program(Invented([{i} for i in range(4)]), sites)
        self.assertEqual([race.others for race in found.races], [1, 0, 0])
        found.races[0].others = 3
        said = shaken.text(found, ["app"], Symbols(["app"], {}))
        self.assertIn("  3 other sites of the same call, or of the same work before that free.\n", said)


class Words(TestCase):
    def text(self, found):
        return shaken.text(found, ["app"], Symbols(["app"], {}))

    def test_a_race_between_streams(self):
        said = self.text(shake_program(Invented([{2}]), [site(i) for i in range(5)]))
        self.assertIn(
            "Race 1 (order), seed 1: race 0000000000000002.\n"
            "  earlier  cuLaunchKernel on stream 2, thread 1  app+0x2\n"
            "  free     cudaFree of 4 KiB, thread 1           app+0x1002\n"
            "  later    cuMemcpyDtoHAsync_v2 on stream 3      libwork.so+0x20\n"
            "  Nothing but the free puts the later work after the earlier, or what follows that on its "
            "stream up to the free: record an event",
            said,
        )
        self.assertIn("With holds at this site alone results differed in 2 of 2 runs, without holds in none.\n", said)

    def test_a_host_read(self):
        only = site(1, "host", earlier_stream="legacy", later_call="-", later_where="-",
                    later_stream="-", earlier_where="-")
        said = self.text(shake_program(Invented([{1}]), [only], kind="host"))
        self.assertIn("  earlier  cuLaunchKernel on the legacy stream, thread 1\n", said)
        self.assertNotIn("  later", said)
        self.assertIn("Nothing but the free makes the host wait", said)

    def test_evidence(self):
        said = self.text(shake_program(Invented([]), [site(i) for i in range(20)]))
        self.assertIn("No race found: 8 shaken runs and 4 unshaken runs agree.", said)
        self.assertIn(
            "order: 8 shaken runs, 800 holds, during 800 of which later work ran first, at 20 of 20 "
            "sites.\nThat is evidence, no proof.", said)  # fmt: skip
        found = shake_program(Invented([], effective=False), [site(1)])
        said = self.text(found)
        self.assertIn("No verdict: no hold was effective (order), and a run without says nothing.", said)
        self.assertNotIn("evidence", said)
        self.assertEqual(evidence.of([Tried("host", [])]), "host: no free had such work to wait for")

    def test_many_sites_of_one_race(self):
        found = shake_program(Invented([set(range(20))]), [site(i) for i in range(20)])
        said = self.text(found)
        self.assertEqual(said.count("  earlier "), shaken.SITES)
        self.assertIn("… 15 more sites (--json has all)", said)


class Files(TestCase):
    def test_written_and_read(self):
        path = self.folder() / "sites"
        sites = [site(1), site(2, "host", later_call="-", count=7)]
        records.write(path, sites)
        self.assertEqual(records.read(path), sites)

    def test_processes_add_up(self):
        folder = self.folder()
        records.write(folder / "1.sites", [site(1, count=3, holds=1), site(2, count=9)])
        records.write(folder / "2.sites", [site(1, count=4, holds=2, effective=1)])
        (folder / "3.sites.new").write_text("#cmp-sha")  # killed while it wrote
        both = [site(2, count=9), site(1, count=7, holds=3, effective=1)]
        self.assertEqual(records.read_folder(folder), (both, 2, 0))
        whole = (folder / "2.sites").read_text()
        (folder / "2.sites").write_text(whole.removesuffix("#end\n"))
        self.assertEqual(records.read_folder(folder), (both, 2, 1))

    def test_what_cannot_be_right(self):
        good = "\t".join(map(str, site(1)))
        for text, said in (
            ("", "not a file of sites"),
            ("#cmp-shake-sites 2\n", "sites of format 2; this cmp-preload reads 1"),
            (f"#cmp-shake-sites 1\n{good[:30]}", ":2: has too few columns"),
            (f"#cmp-shake-sites 1\n{good.replace('order', 'odd')}", ":2: has the kind 'odd'"),
            (f"#cmp-shake-sites 1\n{good.replace('10000', '-1')}", ":2: counts less than nothing"),
            (f"#cmp-shake-sites 1\n{good.replace('10000', 'x')}", ":2: invalid literal"),
        ):
            path = self.folder() / "sites"
            path.write_text(text)
            with self.assertRaisesRegex(Exception, re.escape(said)):
                records.read(path)
        path.write_text(f"#cmp-shake-sites 1\n#id\n\n{good}\tmore\n")  # of a later library
        self.assertEqual(records.read(path), [site(1)])


# Behaves as a program under CMP_SHAKE: the sites of PLAN, and what goes wrong where they are held.
STAND_IN = """#!{python} -IS
import json, os, sys
sys.path.insert(0, {scripts!r})
from cmp_preload.records import sites
plan = json.load(open({plan!r}))
with open({plan!r} + ".runs", "a+") as runs:
    runs.write("x")
    runs.flush()
    number = runs.tell()
shake, mode = os.environ.get("CMP_SHAKE", "off"), os.environ.get("CMP_FREE_SYNC")
shake = None if shake == "off" else shake
all_sites = [sites.Site(*one) for one in plan["sites"]]
answer, code = 5, 0
if shake == "record":
    assert mode == "order" and os.environ["CMP_MODE"] == "pool"
    seen = all_sites
elif shake:
    seen = sites.read(os.environ["CMP_SHAKE_SITES"])
    kind = {{"none": "order", "order": "host"}}[mode]
    assert all(one.kind == kind for one in seen)
    seen = [one._replace(holds=9, effective=plan.get("effective", 4)) for one in seen]
    if {{one.id for one in seen}} & set(plan.get("races", [])):
        answer = 4
        code = plan.get("code", 0)
if shake not in (None, "record") and plan.get("refused"):
    print("cmp: CMP_SHAKE does nothing: the driver has no waits for values", file=sys.stderr)
if shake:
    path = os.environ["CMP_SHAKE_REPORT"].replace("%p", str(os.getpid())).replace("%%", "%")
    sites.write(path, seen)
    if plan.get("killed"):
        with open(path, "r+") as report:
            report.truncate(os.path.getsize(path) - len("#end\\n"))
if plan.get("recording") and shake == "record":
    answer = 3
if plan.get("unstable") and not shake:
    answer = number
if plan.get("by_mode") and mode == plan["by_mode"]:
    answer = 3
if plan.get("hangs_at") == number:
    open({plan!r} + ".hangs", "w").close()
    import time
    time.sleep(1000)
print("sum", answer)
sys.exit(plan.get("fails", code))
"""


class Command(TestCase):
    def program(self, sites, races=(), **more):
        """A stand-in with these sites, of which `races` make it go wrong."""
        self.plan = self.folder() / "plan"
        ids = [f"{one:016x}" for one in races]
        self.plan.write_text(json.dumps({"sites": sites, "races": ids, **more}))
        path = self.folder() / "app"
        scripts = str(records.__file__).split("/cmp_preload/")[0]
        path.write_text(STAND_IN.format(python=sys.executable, scripts=scripts, plan=str(self.plan)))
        path.chmod(0o755)
        return str(path)

    def shake(self, *arguments, code=0):
        result = run("shake", *arguments, env={"PYTHONDONTWRITEBYTECODE": "1"})
        self.assert_ok(result, code)
        return result

    BOTH = [*(site(i) for i in range(6)), *(site(i, "host") for i in range(6, 9))]

    def test_agree(self):
        result = self.shake("-n", "2", "--", self.program(self.BOTH))
        self.assertIn("No race found: 4 shaken runs and 4 unshaken runs agree.\n", result.stdout)
        self.assertIn("That is evidence, no proof.", result.stdout)
        told = result.stderr.splitlines()
        self.assertEqual(len(told), 9, result.stderr)
        self.assertIn("run 1 of 9: unshaken, without the pool ", told[0])
        self.assertIn("run 2 of 9: unshaken, under the pool ", told[1])
        self.assertIn("run 5 of 9: recorded ", told[4])
        self.assertIn("run 6 of 9: shaken, order, seed 1 ", told[5])
        self.assertIn("run 9 of 9: shaken, host, seed 2 ", told[8])
        result = self.shake("-n", "1", "--seed", "7", "--kind", "host", "--", self.program(self.BOTH))
        self.assertNotIn("order", result.stderr)
        self.assertIn("run 6 of 6: shaken, host, seed 7 ", result.stderr)

    def test_races_of_both_kinds(self):
        result = self.shake("-n", "3", "--", self.program(self.BOTH, [4, 7]), code=1)
        self.assertIn("Race 1 (order), seed 1: stdout line 1: 'sum 5', then 'sum 4'.\n", result.stdout)
        self.assertIn("  earlier  cuLaunchKernel on stream 2, thread 1  app+0x4\n", result.stdout)
        self.assertIn("Race 2 (host), seed 1: ", result.stdout)
        self.assertIn("  earlier  cuLaunchKernel on stream 2, thread 1  app+0x7\n", result.stdout)
        self.assertRegex(result.stdout, r"order +6 +60,000 +1 +54 +24 +differ with seed 1\n")
        self.assertIn("narrowing down, order, seed 1, 3 of 6 sites, try 1", result.stderr)
        self.assertIn("\nrun 12: narrowing down", result.stderr)  # how many there will be is not known

    def test_another_exit_code(self):
        said = self.shake("-n", "1", "--", self.program(self.BOTH, [2], code=3), code=1).stdout
        self.assertIn("Race 1 (order), seed 1: exit code 3.", said)

    def test_as_json(self):
        app = self.program(self.BOTH, [4])
        result = self.shake("-n", "1", "--json", "--", app, code=1)
        found = json.loads(result.stdout)
        self.assert_as_the_schema_says(found)
        self.assertEqual((found["cmp_shake"], found["verdict"], found["why"]), (1, "race", None))
        (race,) = found["races"]
        self.assertEqual([one["id"] for one in race["sites"]], [f"{4:016x}"])
        self.assertEqual(found["kinds"][1]["runs"][0], {"seed": 1, "different": None, "holds": 27, "effective": 12})

    def assert_as_the_schema_says(self, found):
        """Without Python's jsonschema the fields alone."""
        (race,) = found["races"]
        for name, part in (
            (None, found),
            ("kind", found["kinds"][0]),
            ("run", found["kinds"][0]["runs"][0]),
            ("site", found["kinds"][0]["sites"][0]),
            ("race", race),
            ("named_site", race["sites"][0]),
            ("functions", race["sites"][0]["functions"]),
        ):
            fields = (SCHEMA["$defs"][name] if name else SCHEMA)["properties"]
            self.assertEqual(set(part), set(fields), name)
            for field, about in fields.items():
                self.assertRegex(about["description"], r"\w.*\.$", field)
            if Draft202012Validator:
                part["new"] = 0
                self.assertFalse(Draft202012Validator(SCHEMA).is_valid(found))
                del part["new"]
        if Draft202012Validator:
            Draft202012Validator.check_schema(SCHEMA)
            Draft202012Validator(SCHEMA).validate(found)

    def test_no_verdict(self):
        for more, said in (
            ({"unstable": True}, "stdout line 1: 'sum 1' varies"),
            ({"by_mode": "auto"}, "stdout line 1: 'sum 5' varies"),
            ({"effective": 0}, "no hold was effective (order), and a run without says nothing"),
            ({"sites": []}, "no free of the program had earlier work to wait for"),
        ):
            with self.subTest(more=more):
                result = self.shake("-n", "1", "--", self.program(**{"sites": self.BOTH, **more}), code=3)
                self.assertIn("No verdict: ", result.stdout)
                self.assertIn(said, result.stdout)
                self.assertNotIn("evidence", result.stdout)
        # What the user calls noise is none.
        app = self.program(self.BOTH, unstable=True)
        self.shake("-n", "1", "--ignore", "sum .*", "--", app)

    def test_a_recording_that_differs_is_no_agreement(self):
        app = self.program(self.BOTH, recording=True)
        result = self.shake("-n", "1", "--kind", "order", "--", app, code=3)
        self.assertIn(
            "No verdict: the recording differed, in which nothing is held (stdout line 1: 'sum 5', then 'sum 3').\n",
            result.stdout,
        )
        # What is found is found.
        self.shake("-n", "1", "--", self.program(self.BOTH, [4], recording=True), code=1)

    def test_killed_processes(self):
        """They leave what they did until shortly before, and that there is more is said."""
        result = self.shake("-n", "2", "--", self.program(self.BOTH, killed=True))
        self.assertIn("; in 5 runs a process was killed, or ended without its exit handlers (_exit), and what it "
                      "did last is not counted.\n", result.stdout)
        result = self.shake("-n", "2", "--", self.program([], killed=True), code=3)
        self.assertIn("No verdict: no free of the program had earlier work to wait for, before a process was "
                      "killed, or ended without its exit handlers (_exit).\n", result.stdout)

    def test_differs_without_holds(self):
        """Of the mode, not of the program, which runs unshaken again."""
        result = self.shake("-n", "1", "--", self.program(self.BOTH, by_mode="order"), code=1)
        self.assertIn("Race 1 (host), seed 1: stdout line 1: 'sum 5', then 'sum 3'.\n", result.stdout)
        self.assertIn("as soon as cudaFree does not wait for the host: no place can be named", result.stdout)
        self.assertIn("12 runs without holds agree", result.stdout)

    def test_what_the_pool_says_is_no_result(self):
        """But why nothing was held."""
        app = self.program(self.BOTH, refused=True, effective=0)
        result = self.shake("-n", "1", "--stderr", "--", app, code=3)
        self.assertIn(
            "No verdict: no hold was effective: CMP_SHAKE does nothing: the driver has no waits for "
            "values (order), and a run without says nothing.\n",
            result.stdout,
        )

    def test_without_cuda(self):
        result = self.shake("-n", "1", "--", "echo", "hello", code=3)
        self.assertIn("No verdict: no process of it made a CUDA call that reached the pool.\nWhy: ", result.stdout)

    def test_programs_that_fail(self):
        result = self.shake("--", self.program([], fails=4), code=3)
        self.assertEqual(result.stdout, "")
        self.assertIn("fails without the pool: exit code 4 (if that is right: --code 4)\n", result.stderr)
        self.assert_refused(run("shake", "--", "nowhere"), "cannot run nowhere", code=127)

    def test_wrong_options(self):
        for words, said in (
            (["-n", "0", "true"], "-n '0' is not understood"),
            (["--unshaken", "1", "true"], "--unshaken '1' is not understood; right: a number, 2 or more"),
            (["--seed", "0", "true"], "--seed '0' is not understood"),
            (["--seed", "1000000001", "true"], "--seed '1000000001' is not understood; right: a number, 1 to 1000000000"),
            (["--kind", "all", "true"], "--kind"),
            (["--ignore", "(", "true"], "--ignore"),
            (["--shake", "1", "true"], "--shake is not an option"),
            (["--free-sync", "none", "true"], "--free-sync"),
            ([], "which program"),
        ):
            with self.subTest(words=words):
                self.assert_refused(run("shake", *words), said)

    def interrupted_at(self, number):
        running = start(
            "shake", "-n", "4", "--", self.program(self.BOTH, [4], hangs_at=number),
            env={"PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        hangs = self.plan.with_name("plan.hangs")
        while not hangs.exists() and running.poll() is None:
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        said, error = running.communicate(timeout=60)
        self.assertEqual(running.returncode, 130, said + error)
        return said, error

    def test_interrupted(self):
        said, error = self.interrupted_at(3)
        self.assertEqual(said, "")
        self.assertIn("interrupted, before there was anything to tell", error)
        said, _ = self.interrupted_at(17)  # seen, again, not without holds: 6 + 1 + 8, half of them
        self.assertIn("\nInterrupted: this is what the runs until then show.\n", said)
        self.assertIn("Race 1 (order), seed 1: ", said)
        self.assertIn("not narrowed down further", said)


@unittest.skipUnless(shutil.which("addr2line") and shutil.which("cc"), "needs addr2line and cc")
class Functions(TestCase):
    def test_in_files_of_both_kinds(self):
        """Loaded anywhere, and where the file says."""
        folder = self.folder()
        (folder / "app.c").write_text("int here(void) { return 1; }\nint main(void) { return here(); }\n")
        for kind in ("-pie", "-no-pie"):
            app = str(folder / f"app{kind}")
            subprocess.run(["cc", "-g", "-O0", "-fPIE", kind, "-o", app, folder / "app.c"], check=True)
            symbols = subprocess.run(["nm", app], stdout=subprocess.PIPE, text=True, check=True).stdout
            at = {words[-1]: int(words[0], 16) for words in map(str.split, symbols.splitlines()) if len(words) == 3}
            first = 0 if kind == "-pie" else 0x400000
            where = "<".join(f"app{kind}+{at[name] + 1 - first:#x}" for name in ("here", "main"))
            found = Symbols([app], {"PATH": os.environ["PATH"]}).frames(where + "<other+0x1<app+x")
            self.assertEqual(
                [function for _, function in found], ["here at app.c:1", "main at app.c:2", None, None]
            )
        self.assertEqual(Symbols([app], {"PATH": ""}).frames(where)[0][1], None)


class Corpus(TestCase):
    """The real thing, on the simulated CUDA and in its own time: a program of each kind, and one
    without a race. (How often it finds what: tests/preload.)"""

    def shake(self, name, code):
        clock = PROGRAMS / "virtual_clock.so"
        app = self.script(
            f"export CMPSIM_HOLD_NS=5000000 LD_PRELOAD={clock}${{LD_PRELOAD:+:$LD_PRELOAD}}\n"
            f"exec $1 {name}\n"
        )
        result = run("shake", "--", app, BUILD / "races")
        self.assert_ok(result, code)
        return result.stdout

    def test_a_race_between_streams(self):
        said = self.shake("free-alone-synchronous-copy", 1)
        self.assertIn("Race 1 (order), seed ", said)
        self.assertRegex(said, r"\n  earlier  cuLaunchKernel on stream 0, thread 1 +races\+0x\w+")
        self.assertRegex(said, r"\n  free     cudaFree of 1000 B, thread 1 +races\+0x\w+")
        self.assertRegex(said, r"\n  later    cuMemcpy\w+ on the legacy stream +races\+0x\w+")
        if shutil.which("addr2line"):
            self.assertIn("Kernels::WriteLate", said)

    def test_a_race_with_the_host(self):
        said = self.shake("host-reads-copy", 1)
        self.assertIn("Race 1 (host), seed ", said)
        self.assertIn("\n  earlier  cuMemcpyDtoHAsync_v2 on stream 0, thread 1  races+0x", said)
        self.assertNotIn("Race 2", said)

    def test_no_race(self):
        said = self.shake("right-event", 0)
        self.assertIn("No race found: 8 shaken runs and 4 unshaken runs agree.\n", said)
        self.assertRegex(said, r"\norder: 8 shaken runs, [\d,]+ holds, during [\d,]+ of which later work")


if __name__ == "__main__":
    main()
