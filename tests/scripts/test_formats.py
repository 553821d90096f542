"""The formats of scripts/docs/formats against files that the library writes: every field is in the
schema, and what is said to add up does."""

import datetime
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import unittest

from command import BUILD, LIBRARY, PLAIN, PROGRAMS, SOURCE, TestCase, environment, main, run

try:
    from jsonschema import Draft202012Validator
except ImportError:  # or one from before that draft
    Draft202012Validator = None

FORMATS = SOURCE / "scripts" / "docs" / "formats"
SCHEMA = json.loads((FORMATS / "statistics.schema.json").read_text())
REPORT_SCHEMA = json.loads((FORMATS / "report.schema.json").read_text())
SAMPLE = json.loads((FORMATS / "statistics.sample.json").read_text())
OPENS = "import ctypes; ctypes.CDLL('libcuda.so.1').cuInit(0)"

RUNS = {
    "one thread": ([PLAIN, "10"], {}),
    "threads": ([PROGRAMS / "work", "4", "400", "1"], {}),
    "threads, order": ([PROGRAMS / "work", "4", "400", "1"], {"CMP_FREE_SYNC": "order"}),
    "threads, wait": ([PROGRAMS / "work", "4", "400", "1"], {"CMP_FREE_SYNC": "wait"}),
    "observed": ([PROGRAMS / "work", "2", "50", "1"], {"CMP_MODE": "observe"}),
    "off": ([PLAIN, "10"], {"CMP_MODE": "off"}),
    "oversized": ([PROGRAMS / "work", "2", "50", "1"], {"CMP_MAX_BLOCK": "64K"}),
    "kernels and copies": ([BUILD / "churn", "2", "60"], {}),
    "two devices": ([PROGRAMS / "devices", "stays"], {"CMPSIM_DEVICES": "2"}),
    "contexts": ([PROGRAMS / "contexts", "devices"], {"CMPSIM_DEVICES": "2"}),
    "shaken": ([BUILD / "churn", "2", "60"], {"CMP_FREE_SYNC": "none", "CMP_SHAKE": "record"}),
    "a memory limit": ([PROGRAMS / "memory", "rounds"], {}),
    "stream order": ([PROGRAMS / "async_keep", "rounds"], {}),
    "aside": ([PLAIN, "10"], {"LD_PRELOAD": PROGRAMS / "wrapper.so"}),
    "a later CUDA": ([PROGRAMS / "driver_opened", "later"], {"CMPSIM_DRIVER_VERSION": "98000"}),
    "not reached": ([sys.executable, "-c", OPENS], {}),
}


def names_in(definition):
    """The fields of a part of the schema."""
    part = SCHEMA["$defs"][definition]
    found = set(part["properties"])
    return found | names_in(part["$ref"].rpartition("/")[2]) if "$ref" in part else found


class Statistics(TestCase):
    @classmethod
    def setUpClass(cls):
        cls.written = {"the sample": SAMPLE}

    def of(self, name):
        """What the process of a run left; it is run once."""
        if name not in self.written:
            command, env = RUNS[name]
            path = self.folder() / "statistics.json"
            self.assert_ok(run("run", "--stats", path, "--", *command, env=env))
            self.written[name] = json.loads(path.read_text())
        return self.written[name]

    def check_each(self, check):
        for name in ("the sample", *RUNS):
            with self.subTest(run=name):
                check(self.of(name))

    @unittest.skipUnless(Draft202012Validator, "needs Python's jsonschema, 4 or later")
    def test_as_the_schema_says(self):
        Draft202012Validator.check_schema(SCHEMA)
        validator = Draft202012Validator(SCHEMA)
        self.check_each(
            lambda found: self.assertEqual([e.message for e in validator.iter_errors(found)], [])
        )

    @unittest.skipUnless(Draft202012Validator, "needs Python's jsonschema, 4 or later")
    def test_another_field_is_refused(self):
        """In every part of the file; and so is one that is missing."""
        validator = Draft202012Validator(SCHEMA)

        def parts(value):
            if isinstance(value, dict):
                yield value
            for one in value.values() if isinstance(value, dict) else value:
                if isinstance(one, (dict, list)):
                    yield from parts(one)

        for found in (json.loads(json.dumps(SAMPLE)), self.of("not reached")):
            self.assertTrue(validator.is_valid(found))
            for part in parts(found):
                part["new"] = 0
                self.assertFalse(validator.is_valid(found), part)
                del part["new"]
                for name in list(part):
                    value = part.pop(name)
                    self.assertFalse(validator.is_valid(found), name)
                    part[name] = value
            self.assertTrue(validator.is_valid(found))

    def test_every_field_is_described(self):
        for name, part in SCHEMA["$defs"].items():
            for field, about in part.get("properties", {}).items():
                if about != {"const": name == "reached"}:  # which of the two kinds it is
                    self.assertRegex(about.get("description", ""), r"\w.*\.$", f"{name}.{field}")

    def test_counters_are_those_of_the_library(self):
        derived = {"requests", "live_blocks"}
        self.assertEqual(names_in("counters"), {*LIBRARY.counters("tier"), *derived})
        self.assertEqual(names_in("process"), set(LIBRARY.counters("process")))

    def test_what_adds_up(self):
        self.check_each(lambda found: found["reached"] and self.assert_adds_up(found))

    def assert_adds_up(self, found):
        totals, process, devices = found["totals"], found["process"], found["devices"]
        for row in (totals, *found["tiers"]):
            hits = row["thread_cache_hits"] + row["global_pool_hits"]
            self.assertEqual(row["requests"], hits + row["refills"] + row["real"])
            freed = row["frees"] + row["real_frees"]
            self.assertEqual(row["live_blocks"], row["requests"] - freed)
        for name in names_in("counters"):
            self.assertEqual(totals[name], sum(tier[name] for tier in found["tiers"]), name)
        hits = totals["thread_cache_hits"] + totals["global_pool_hits"]
        self.assertAlmostEqual(totals["hit_rate"], hits / max(1, totals["requests"]), 5)
        for kind in ("requested", "block"):
            live = totals[f"{kind}_bytes"] - totals[f"{kind}_freed_bytes"]
            self.assertEqual(totals[f"live_{kind}_bytes"], live)
        called = totals["requests"] + totals["frees"] + totals["real_frees"]
        called += process["foreign_frees"]
        really = process["real_malloc_calls"] + process["real_free_calls"]
        self.assertEqual(totals["real_calls_avoided"], max(0, called - really))
        for reserved, row in (
            (process["reserved_bytes"], totals),
            *((device["reserved_bytes"], device) for device in devices),
        ):
            parts = ("live_block_bytes", "ready_bytes", "retired_bytes")
            self.assertEqual(reserved, sum(row[name] for name in parts))
        together = sum(device["reserved_bytes"] for device in devices)
        self.assertEqual(process["reserved_bytes"], together)
        reasons = sum(
            process[name]
            for name in process
            if name.startswith("wait_") and name not in ("wait_calls", "wait_ns")
        )
        self.assertLessEqual(reasons + process["bound_waits"], process["wait_calls"])
        self.assertLessEqual(process["bound_wait_ns"], process["wait_ns"])
        self.assertEqual(process["bound_wait_ns"] > 0, process["bound_waits"] > 0)

    def test_the_runs_are_what_they_are_called(self):
        self.assertEqual(self.of("observed")["mode"], "observe")
        self.assertEqual(self.of("off")["totals"]["requests"], 0)
        self.assertGreater(self.of("oversized")["totals"]["real"], 0)
        self.assertEqual(len(self.of("two devices")["devices"]), 2)
        self.assertGreater(self.of("contexts")["process"]["contexts_dropped"], 0)
        self.assertGreater(self.of("a memory limit")["process"]["regretted_releases"], 0)
        self.assertGreater(self.of("stream order")["process"]["kept_released_bytes"], 0)
        self.assertIn("shake", self.of("shaken"))
        self.assertIn("wrapper.so", self.of("aside")["aside"])
        self.assertEqual(self.of("a later CUDA")["later_functions"], ["cuOfALaterCuda"])
        self.assertFalse(self.of("not reached")["reached"])

    def test_the_sample_is_worth_a_look(self):
        self.assertEqual([device["device"] for device in SAMPLE["devices"]], [0, 1])
        self.assertGreater(len(SAMPLE["tiers"]), 1)
        self.assertGreater(SAMPLE["totals"]["hit_rate"], 0)

    def test_the_run(self):
        """What it was, in the statistics of every kind of process."""
        for name, (command, env) in RUNS.items():
            with self.subTest(run=name):
                run_of_it = self.of(name)["run"]
                self.assertEqual(shlex.split(run_of_it["command"]), [str(word) for word in command])
                self.assertEqual(run_of_it["host"], os.uname().nodename)
                self.assertIsNone(run_of_it["rank"])
                begin = datetime.datetime.strptime(run_of_it["begin"], "%Y-%m-%dT%H:%M:%SZ")
                begin = begin.replace(tzinfo=datetime.timezone.utc).timestamp()
                now = begin + run_of_it["nanoseconds"] / 1e9
                self.assertLess(abs(time.time() - now), 3600)
                settings = dict(line.split("=", 1) for line in run_of_it["settings"])
                given = {key: str(value) for key, value in env.items() if key.startswith("CMP_")}
                self.assertEqual(settings, {**given, "CMP_STATS": settings["CMP_STATS"]})
                if self.of(name)["reached"] and name != "off":
                    devices = int(env.get("CMPSIM_DEVICES", 1))
                    self.assertEqual(run_of_it["gpus"], ["Simulated CUDA device"] * devices)
                    self.assertRegex(run_of_it["cuda"], r"^\d+\.\d$")

    def run_of(self, *command, env=None):
        path = self.folder() / "statistics.json"
        self.assert_ok(run("run", "--stats", path, "--", *command, env=env))
        return json.loads(path.read_text())["run"]

    def test_ranks(self):
        """Of each launcher; what is no number is no rank."""
        for name in ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID", "RANK"):
            self.assertEqual(self.run_of(PLAIN, "1", env={name: "17"})["rank"], 17)
        self.assertEqual(
            self.run_of(PLAIN, "1", env={"OMPI_COMM_WORLD_RANK": "3", "RANK": "4"})["rank"], 3
        )
        for odd in ("", "-1", "one", "1.5", "12345678901234567890"):
            self.assertIsNone(self.run_of(PLAIN, "1", env={"RANK": odd})["rank"])

    def test_odd_commands(self):
        """Spaces, quotes and what is not UTF-8 in it; one that is too long says so."""
        words = ["1", "two words", "it's", "", "$x;", "\u00fc\u20ac\U0001f600", "tab\tline\nend"]
        self.assertEqual(shlex.split(self.run_of(PLAIN, *words)["command"]), [PLAIN, *words])
        said = self.run_of("sh", "-c", f"exec {PLAIN} 1 \"$(printf 'a\\377\\303(b')\"")
        self.assertTrue(said["command"].endswith(" 'a\ufffd\ufffd(b'"), said["command"])
        said = self.run_of(PLAIN, "1", *["word"] * 1000)["command"]
        self.assertLess(len(said), 1024)
        self.assertTrue(said.endswith("..."), said)
        many = {f"CMP_PROGRAMS_{i}": "x" * 200 for i in range(9)}
        self.assertEqual(self.run_of(PLAIN, "1", env=many)["settings"][-1], "...")

    def test_a_process_without_cuda_leaves_nothing(self):
        path = self.folder() / "statistics.json"
        self.assert_ok(run("run", "--stats", path, "--", "true"))
        self.assertEqual(list(path.parent.iterdir()), [])

    def test_a_process_that_was_killed(self):
        """Its counters have the names of the JSON; what only the end tells is missing."""
        path = self.folder() / "statistics.json"
        result = run("run", "--stats", path, "--", PROGRAMS / "endings", "kill")
        self.assert_ok(result, -signal.SIGKILL)
        said = run("report", "--json", f"{path}.live")
        (found,) = json.loads(said.stdout)["processes"]
        missing = {"version", "mode", "aside", "later_functions", "shake", "devices"}
        self.assertEqual(set(found), names_in("reached") - missing | {"file", "live"})
        self.assertEqual(set(found["totals"]), names_in("counters") | {"hit_rate"})
        self.assertEqual(set(found["process"]), names_in("process"))
        for tier in found["tiers"]:
            self.assertEqual(set(tier), names_in("tier"))


class Reports(TestCase):
    """report --json, against its schema."""

    @classmethod
    def setUpClass(cls):
        cls.reports = {}

    def of_each(self):
        if not self.reports:
            folder, others = self.folder(), self.folder()
            two = f"{PLAIN} 10; {BUILD}/churn 2 60"
            self.assert_ok(
                run("run", "--reports", folder, "--trace", folder / "%p.trace", "--", "sh", "-c", two)
            )
            traced, csv, unreached = others / "trace", others / "t.csv", others / "unreached"
            self.assert_ok(run("run", "--trace", traced, "--", PLAIN, "9", env={"RANK": "3"}))
            self.assert_ok(run("replay", "--csv", csv, traced))
            self.assert_ok(run("run", "--stats", unreached, "--", sys.executable, "-c", OPENS))
            killed = others / "killed"
            run("run", "--stats", killed, "--", PROGRAMS / "endings", "kill")
            for name, files in {
                "processes and traces": [folder],
                "a trace": [traced],
                "a CSV": [csv],
                "not reached": [unreached],
                "killed": [f"{killed}.live"],
            }.items():
                said = run("report", "--json", *files)
                self.assert_ok(said)
                self.reports[name] = json.loads(said.stdout)
        return self.reports.items()

    @unittest.skipUnless(Draft202012Validator, "needs Python's jsonschema, 4 or later")
    def test_as_the_schema_says(self):
        Draft202012Validator.check_schema(REPORT_SCHEMA)
        validator = Draft202012Validator(REPORT_SCHEMA)
        for name, found in self.of_each():
            with self.subTest(report=name):
                errors = [f"{e.json_path}: {e.message[:200]}" for e in validator.iter_errors(found)]
                self.assertEqual(errors, [])

    @unittest.skipUnless(Draft202012Validator, "needs Python's jsonschema, 4 or later")
    def test_another_field_is_refused(self):
        validator = Draft202012Validator(REPORT_SCHEMA)
        found = dict(self.of_each())["a trace"]
        (trace,) = found["traces"]
        for part in (found, trace, *trace["outcomes"].values()):
            for name in list(part):
                value = part.pop(name)
                optional = part is found and name == "traces"
                self.assertEqual(validator.is_valid(found), optional, name)
                part[name] = value
            part["new"] = 0
            self.assertFalse(validator.is_valid(found))
            del part["new"]
        self.assertTrue(validator.is_valid(found))

    def test_fields_are_those_of_the_schema(self):
        """And each is described; without Python's jsonschema, too."""
        parts = {"the whole": REPORT_SCHEMA, **REPORT_SCHEMA["$defs"]}
        for name, part in parts.items():
            for field, about in part.get("properties", {}).items():
                self.assertRegex(about.get("description", ""), r"\w.*\.$", f"{name}.{field}")
        for _, found in self.of_each():
            self.assertLessEqual(set(found), set(REPORT_SCHEMA["properties"]))
            for trace in found.get("traces", []):
                self.assertEqual(set(trace), set(REPORT_SCHEMA["$defs"]["trace"]["properties"]))
        found = dict(self.of_each())
        self.assertEqual(len(found["processes and traces"]["processes"]), 2)
        (trace,) = found["a trace"]["traces"]
        self.assertEqual((trace["rank"], trace["host"]), (3, os.uname().nodename))
        self.assertEqual(shlex.split(trace["command"]), [PLAIN, "9"])
        self.assertEqual(found["a CSV"]["traces"][0]["pid"], 0)
        self.assertTrue(found["killed"]["processes"][0]["live"])


class Versions(TestCase):
    """A file of another format is refused in one line, which names both."""

    def test_statistics(self):
        path = self.folder() / "statistics.json"
        path.write_text(json.dumps({**SAMPLE, "cmp_statistics": 2}, indent=2))
        self.assert_refused(run("report", path), "statistics of format 2; this", "reads 1", code=1)

    def test_more_fields_are_no_other_format(self):
        path = self.folder() / "statistics.json"
        more = {**SAMPLE, "new": 1, "process": {**SAMPLE["process"], "new_ns": 1}}
        path.write_text(json.dumps(more, indent=2))
        self.assert_ok(run("report", path))

    def test_traces(self):
        path = self.folder() / "trace"
        self.assert_ok(run("run", "--trace", path, "--", PLAIN, "10"))
        data = bytearray(path.read_bytes())
        # Of before there were host, rank and command.
        data[8:12] = (1).to_bytes(4, "little")
        data[2184:4096] = bytes(4096 - 2184)
        path.write_bytes(data)
        self.assertIn("20 calls", run("report", path).stdout)
        self.assertIn("cuMemAlloc", run("replay", "--backend", "real", path).stdout)
        data[8:12] = (4).to_bytes(4, "little")
        path.write_bytes(data)
        for command in ("report", "replay"):
            words = "a trace of format 4; this", "reads 3"
            self.assert_refused(run(command, path), *words, code=1)
        done = subprocess.run(
            [BUILD / "cmp-replay", path],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        said = f"cmp-replay: {path}: a trace of format 4; this cmp-replay reads 3\n"
        self.assertEqual((done.returncode, done.stdout, done.stderr), (1, "", said))


if __name__ == "__main__":
    main()
