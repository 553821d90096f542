"""cmp-preload report: what it says of statistics files, and the page."""

import json
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import time

from command import COMMAND, PLAIN, PROGRAMS, SOURCE, TestCase, environment, main, run, start

sys.path.insert(0, str(SOURCE / "scripts"))
from cmp_preload.console import words
from cmp_preload.console.errors import Failure
from cmp_preload.records import trace_file, traces
from cmp_preload.records.calls import Call, Trace
from cmp_preload.reporters.files import write_private



def table_of(said, *first):
    """The rows, as cells, of the table that begins with these names."""
    for part in said.split("\n\n"):
        rows = [re.split(r"  +", line.strip()) for line in part.splitlines()]
        if rows[0][: len(first)] == list(first):
            return rows
    raise AssertionError(f"no table with {first} in\n{said}")


class Reports(TestCase):
    def reports(self, text, env=None):
        """A folder with the reports of a script's programs."""
        folder = self.folder()
        self.assert_ok(run("run", "--reports", folder, "--", self.script(text), env=env))
        return folder

    def report(self, *arguments):
        result = run("report", *arguments)
        self.assert_ok(result)
        return result.stdout

    def test_one_process(self):
        folder = self.reports(f"{PLAIN} 1000")
        (path,) = folder.iterdir()
        said = self.report(path)
        _, row = table_of(said, "process", "allocations")
        self.assertRegex(row[0], r"^plain \d+$")
        self.assertEqual(row[1:4], ["1,000", "99.9%", "1"])
        _, row = table_of(said, "process", "program's peak")
        self.assertEqual(row[1:4], ["4 KiB", "4 KiB", "0.0%"])
        _, tier = table_of(said, "block")
        self.assertEqual(tier[:2], ["4 KiB", "1,000"])
        self.assertEqual(tier[3:], ["0", "1", "0", "3.906 MiB", "0.0%", "0.0%"])
        self.assertNotIn("all 1", said)
        self.assertEqual(said, self.report(folder))

    def test_stream_ordered_pools(self):
        loop = f"{PROGRAMS / 'async_keep'} loop 20"
        said = self.report(self.reports(loop))
        self.assertIn(
            "20 stream-ordered allocations and no other; the driver's pools that serve them kept "
            "memory. Nothing to do.\n",
            said,
        )
        self.assertIn("20 stream-ordered allocations; 1 pool of the driver's kept memory", said)
        said = self.report(self.reports(loop, env={"CMP_ASYNC_KEEP": "off"}))
        self.assertIn(
            "20 stream-ordered allocations; the driver's pools that serve them kept no memory", said
        )
        self.assertNotIn("stream-ordered", self.report(self.reports(f"{PLAIN} 10")))
        result = run("run", "--stats", "1", "--", PROGRAMS / "async_keep", "loop", "20")
        self.assertIn(
            "cmp:   stream-ordered allocations: 20; pools of the driver's that kept memory: 1, up to ",
            result.stderr,
        )

    def test_many_processes(self):
        folder = self.reports(f"{PLAIN} 1000; {PLAIN} 200; {PROGRAMS}/work 2 50 1")
        said = self.report(folder)
        rows = table_of(said, "process", "allocations")
        requests = [int(row[1].replace(",", "")) for row in rows[1:]]
        self.assertEqual(len(rows), 5)
        self.assertEqual(rows[4][0], "all 3")
        self.assertEqual(sum(requests[:3]), requests[3])
        self.assertEqual(requests[:3], sorted(requests[:3], reverse=True))
        # Whether all held their most at once is not known.
        rows = table_of(said, "process", "program's peak")
        self.assertNotIn("up to", rows[1][1])
        self.assertEqual(rows[4][:3:2], ["all 3", rows[4][2]])
        self.assertTrue(rows[4][1].startswith("up to ") and rows[4][2].startswith("up to "), rows[4])
        # The sum as JSON adds up, too.
        together = json.loads(self.report("--json", folder))
        self.assertEqual(together["totals"]["requests"], requests[3])
        self.assertEqual(sum(tier["requests"] for tier in together["tiers"]), requests[3])
        self.assertEqual(len(together["processes"]), 3)

    def test_the_busiest_alone(self):
        folder = self.reports(
            f"for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23; "
            f"do {PLAIN} $i; done"
        )
        for first in ("allocations", "program's peak"):
            rows = table_of(self.report(folder), "process", first)
            self.assertEqual(len(rows), 1 + 20 + 1 + 1)
            self.assertEqual(rows[21][0], "… 3 more (--all)")
            self.assertEqual(rows[22][0], "all 23")
            everyone = table_of(self.report("--all", folder), "process", first)
            self.assertEqual(len(everyone), 1 + 23 + 1)

    def test_waits_and_why(self):
        """Every counter wait_REASON is one; those that are not known here as well."""
        (path,) = self.reports(f"{PLAIN} 10").iterdir()
        found = json.loads(path.read_text())
        found["process"].update(
            wait_calls=12, wait_ns=3_400_000, wait_copies=7, wait_full_moon=4, bound_waits=1
        )
        found["process"] = {
            name: value
            for name, value in found["process"].items()
            if name in ("wait_calls", "wait_ns", "wait_copies", "wait_full_moon", "bound_waits")
            or not name.startswith("wait_")
        }
        path.write_text(json.dumps(found, indent=2))
        self.assertIn("12, 3.400 ms (copies 7, full moon 4, bound 1)", self.report(path))
        found["process"].update(wait_graphs=3, wait_mapped=2)
        path.write_text(json.dumps(found, indent=2))
        self.assertIn("(copies 7, full moon 4, graphs 3, other reasons 3)", self.report(path))

    def test_page_locked_memory(self):
        (path,) = self.reports(f"{PLAIN} 10").iterdir()
        found = json.loads(path.read_text())
        found["run"]["nanoseconds"] = 1_000_000_000
        for few, said in ((3, False), (300, True)):
            found["process"].update(
                host_real_malloc_calls=few, host_real_free_calls=few, host_real_malloc_ns=200_000_000
            )
            path.write_text(json.dumps(found, indent=2))
            self.assertEqual("set CMP_HOST=on" in self.report(path), said)
        self.assertIn("200.0 ms in real calls for page-locked memory", self.report(path))

    def test_page_locked_memory_in_traces(self):
        """Beside the calls for device memory, and in no table of that."""
        trace = self.folder() / "trace"
        program = (PROGRAMS / "page_locked", "loop", "runtime", "100")
        env = {"CMP_HOST": "on", "CMP_DECAY": "off"}  # no tick moves what the cache has
        self.assert_ok(run("run", "--trace", trace, "--", *program, env=env))
        said = self.report(trace)
        self.assertRegex(said, r"page-locked memory allocated: thread cache +99 ")
        self.assertIn("200 calls for page-locked memory, none for the device's.", said)
        (one,) = json.loads(self.report("--json", trace))["traces"]
        self.assertEqual((one["calls"], one["outcomes"], one["peak_bytes"]), (0, {}, 0))
        outcomes = one["page_locked_outcomes"]
        freed = [outcomes.get(name, {"calls": 0})["calls"] for name in ("pooled", "waited")]
        self.assertEqual(sum(freed), 100)

    def test_what_was_released_and_is_allocated_again(self):
        (path,) = self.reports(f"{PROGRAMS}/memory rounds").iterdir()
        process = json.loads(path.read_text())["process"]
        self.assertGreater(process["regretted_releases"], 0)
        self.assertIn(
            f"\n- the memory limit rose by up to {words.size(process['reserve_extra_peak_bytes'])}, "
            f"because {process['regretted_releases']} of the blocks that were released for it had to "
            "be allocated again\n",
            self.report(path) + "\n",
        )
        (path,) = self.reports(f"{PLAIN} 10").iterdir()
        self.assertNotIn("limit", self.report(path))

    def test_several_devices(self):
        (path,) = self.reports(f"{PROGRAMS}/devices stays", {"CMPSIM_DEVICES": "2"}).iterdir()
        rows = table_of(self.report(path), "process", "device", "live")
        self.assertEqual([row[1] for row in rows[1:]], ["0", "1"])
        held = json.loads(path.read_text())["devices"]
        self.assertEqual([row[4] for row in rows[1:]],
                         [words.size(device["reserved_bytes"]) for device in held])
        (path,) = self.reports(f"{PLAIN} 10").iterdir()
        self.assertNotIn("held in all", self.report(path))

    def test_not_reached(self):
        opens = "import ctypes; ctypes.CDLL('libcuda.so.1').cuInit(0)"
        folder = self.reports(f'{sys.executable} -c "{opens}"')
        self.assertRegex(
            self.report(folder), r"\n- python\S* used CUDA, but the pool served nothing: it alloc"
        )
        self.assertRegex(
            self.report(folder), "^The pool served nothing. What to do: run cmp-preload doctor -- "
        )

    def test_no_driver(self):
        """The program takes it that its allocations fail; so does one that finds no device."""
        for env in ({"CMPSIM_DEVICES": "0"}, self.without_driver()):
            folder = self.reports(f"{PLAIN} 10", env=env)
            self.assertTrue(self.report(folder).startswith(
                "The pool was asked for nothing. What to do: run cmp-preload doctor -- "
                f"{PLAIN} 10.\n\n- plain asked the pool for nothing: no allocation of it came to a "
                "driver with a GPU\n"), self.report(folder))
        for env in ({}, {"CMP_MODE": "off"}, {"CMP_MODE": "observe"}):
            self.assertNotIn("came to", self.report(self.reports(f"{PLAIN} 10", env=env)))

    def test_a_file_that_is_named_twice_counts_once(self):
        folder = self.reports(f"{PLAIN} 10")
        (path,) = folder.iterdir()
        self.assertEqual(self.report(folder, path, folder / ".." / folder.name), self.report(folder))

    def test_a_process_that_was_killed(self):
        """Its counters live on in FILE.live; names and layout are asked of the library."""
        folder = self.folder()
        running = subprocess.Popen(
            [COMMAND, "run", "--reports", folder, "--", PROGRAMS / "endings", "wait"],
            env=environment(env={"RANK": "5"}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(running.kill)
        while not list(folder.iterdir()):
            self.assertIsNone(running.poll())
            time.sleep(0.01)
        (path,) = folder.iterdir()
        self.assertEqual(path.suffix, ".live")
        while json.loads(self.report("--json", path))["totals"]["frees"] < 11:
            self.assertIsNone(running.poll())
        running.kill()
        self.assertEqual(running.wait(60), -signal.SIGKILL)
        said = self.report(folder)
        self.assertRegex(said, rf"endings {running.pid} \(not ended\)")
        found = json.loads(self.report("--json", path))
        self.assertGreater(found["totals"]["requests"], 0)
        self.assertEqual(found["totals"]["requests"], sum(t["requests"] for t in found["tiers"]))
        self.assertGreater(found["process"]["reserved_peak_bytes"], 0)
        (one,) = found["processes"]
        self.assertEqual(one["run"]["command"], f"{PROGRAMS / 'endings'} wait")
        self.assertEqual((one["run"]["host"], one["run"]["rank"]), (os.uname().nodename, 5))
        self.assertEqual(one["run"]["gpus"], ["Simulated CUDA device"])  # named after the file began
        self.assertIsNotNone(one["run"]["cuda"])

    def test_live_and_final_counters_are_the_same(self):
        """A run is stopped before its end, and then goes on to it."""
        folder = self.folder()
        running = start(
            "run",
            "--decay",  # nothing counts by itself
            "off",
            "--reports",
            folder,
            "--",
            sys.executable,
            "-c",
            "import ctypes, sys\n"
            "c = ctypes.CDLL('libcudart.so.13')\n"
            "p = ctypes.c_void_p()\n"
            "for i in range(300):\n"
            "    c.cudaMalloc(ctypes.byref(p), ctypes.c_size_t(256 * (i % 40 + 1)))\n"
            "    if i % 3: c.cudaFree(p)\n"
            "print('made', flush=True)\n"
            "sys.stdin.read()\n",
            stdin=subprocess.PIPE,
        )
        self.assertEqual(running.stdout.readline(), "made\n")
        (live,) = folder.iterdir()
        while (before := json.loads(self.report("--json", live)))["totals"]["requests"] < 300:
            self.assertIsNone(running.poll())
        running.communicate("")
        (final,) = folder.iterdir()
        after = json.loads(self.report("--json", final))
        self.assertEqual(before["totals"]["requests"], 300)
        (one,), (other,) = (found["processes"] for found in (before, after))
        self.assertIsNone(one["run"].pop("nanoseconds"))
        self.assertGreater(other["run"].pop("nanoseconds"), 0)
        self.assertEqual(one["run"], other["run"])
        self.assertEqual(other["run"]["gpus"], ["Simulated CUDA device"])
        for key in ("process", "tiers"):
            self.assertEqual(before[key], after[key])


class Traces(TestCase):
    def traced(self, *command, **settings):
        """A folder with the report and the trace of a program."""
        folder = self.folder()
        flags = [
            word
            for name, value in settings.items()
            for word in ("--" + name.replace("_", "-"), value)
        ]
        arguments = ("--reports", folder, "--trace", folder / "%p.trace", *flags)
        self.assert_ok(run("run", *arguments, "--", *command))
        return folder

    def json(self, *arguments):
        result = run("report", "--json", *arguments)
        self.assert_ok(result)
        return json.loads(result.stdout)

    def test_as_counted(self):
        """Sizes and tiers are those of the statistics, with any number of steps."""
        for steps in ("1", "4", "16"):
            with self.subTest(steps=steps):
                found = self.json(
                    self.traced(f"{PROGRAMS}/work", "2", "300", "1", tier_steps=steps, slack="0%")
                )
                (one,) = found["traces"]
                names = [name for name in one["tiers"][0] if name in found["tiers"][0]]
                self.assertGreaterEqual(len(names), 8)
                self.assertGreater(max(tier["bytes"] for tier in one["tiers"]), 2 << 20)
                self.assertEqual(
                    [[tier[name] for name in names] for tier in one["tiers"]],
                    [[tier[name] for name in names] for tier in found["tiers"]],
                )
                self.assertEqual(one["calls"], 2 * found["totals"]["requests"])
                self.assertEqual(one["pid"], found["processes"][0]["pid"])

    def test_memory_over_time(self):
        """Three blocks, the second one only for a while; each at a time of its own."""
        calls = [
            (0, "refill", 0x1000, 1000),
            (30, "refill", 0x2000, 5 << 20),
            (31, "thread_cache", 0x3000, 100),
            (32, "pooled", 0x3000, 100),
            (60, "waited", 0x2000, 5 << 20),
            (90, "failed", 0, 1 << 40),
            (91, "double_free", 0x2000, 0),
            (92, "thread_cache", 0x1000, 300),  # its context had ended
            (119, "foreign_free", 0x9000, 0),
        ]
        path = self.folder() / "t"
        trace_file.write(
            Trace(
                [
                    Call.of(time * 10**6, 0, 1, name, pointer, size)
                    for time, name, pointer, size in calls
                ]
            ),
            path,
        )
        (one,) = self.json(path)["traces"]
        self.assertEqual(one["peak_bytes"], 1000 + (5 << 20) + 100)
        self.assertEqual(one["peak_block_bytes"], 1024 + (6 << 20) + 256)
        self.assertEqual(one["live_bytes_at_end"], 300)
        cells = table_of(run("report", path).stdout, "until")
        self.assertEqual([row[0] for row in cells[1:4]], ["9.917 ms", "19.83 ms", "29.75 ms"])
        self.assertEqual([row[1] for row in cells[1:4]], ["1000 B"] * 3)
        self.assertEqual(cells[4][1:], ["5.001 MiB", "6.001 MiB", "3", "1"])
        self.assertEqual([row[1] for row in cells[5:8]], ["5.001 MiB"] * 3)
        self.assertEqual(cells[9][1:], ["1000 B", "1 KiB", "0", "0"])
        self.assertEqual(cells[12][1:], ["300 B", "512 B", "1", "1"])

    def test_peaks_that_were_not_at_once(self):
        """Of several traces, what was live at one time."""
        folder = self.folder()
        for begin, size in ((1, 3 << 20), (5, 2 << 20)):
            calls = [
                Call.of(0, 10, 1, "real", 0x1000, size),
                Call.of(10**9, 10, 1, "real_free", 0x1000, size),
            ]
            trace_file.write(Trace(calls, begin_unix=begin * 10**9), folder / str(begin))
        said = run("report", folder).stdout
        self.assertIn("; the program held 3 MiB at most, in blocks of 3 MiB. ", said)
        self.assertEqual([row[4:6] for row in table_of(said, "trace", "calls")[1:]],
                         [["3 MiB", "3 MiB"], ["2 MiB", "2 MiB"], ["up to 3 MiB", "up to 3 MiB"]])

    def test_peaks_of_csvs_may_have_been_at_once(self):
        """They say when in a day, not when they began: each begins at 0."""
        folder = self.folder()
        for name, seconds in (("one.csv", 8), ("other.csv", 0)):
            (folder / name).write_text(
                "Thread,Time,Action,Pointer,Size,Stream\n"
                "1,10:00:00.000000,allocate,0x9000,256,0x0\n"
                f"1,10:00:0{seconds}.000001,allocate,0x1000,{3 << 20},0x0\n"
                f"1,10:00:0{seconds}.500000,free,0x1000,{3 << 20},0x0\n"
            )
        said = run("report", folder).stdout
        self.assertIn("up to 6", table_of(said, "trace", "calls")[-1][4])

    def test_a_missing_library_is_no_fault_of_the_files(self):
        folder = self.folder()
        for name in ("one", "other"):
            trace_file.write(Trace([Call.of(0, 10, 1, "real", 0x1000, 256)], begin_unix=1), folder / name)
        self.assert_refused(run("--library", "/nope", "report", folder), "/nope is not there")

    def test_what_frees_waited_for_is_in_the_statistics(self):
        path = self.folder() / "t"
        for given, advice in (("0", "run it with CMP_STATS=FILE, too"), ("s.json", "see its statistics")):
            calls = [
                Call.of(0, 10, 1, "refill", 0x1000, 256),
                Call.of(10**6, 10**8, 1, "waited", 0x1000, 256),
            ]
            trace = Trace(calls)
            trace.settings = {"CMP_STATS": given}
            trace_file.write(trace, path)
            self.assertIn(f"  -> {advice}", run("report", path).stdout)

    def test_latencies(self):
        costs = [*range(1, 100), 10_000]
        calls = [
            Call.of(i * 20_000, cost, 1, "refill", 0x1000 * (i + 1), 256)
            for i, cost in enumerate(costs)
        ]
        path = self.folder() / "t"
        trace_file.write(Trace(calls), path)
        (one,) = self.json(path)["traces"]
        found = one["outcomes"]["refill"]
        self.assertEqual((found["calls"], found["ns"]), (100, sum(costs)))
        self.assertEqual((found["p50_ns"], found["max_ns"]), (51, 10_000))
        self.assertAlmostEqual(found["p99_ns"], 10_000, delta=160)

    def test_many_threads_in_order(self):
        """What is read in parts comes in the order in which it happened, all of it."""
        folder = self.traced(f"{PROGRAMS}/work", "8", "20000", "1")
        (path,) = folder.glob("*.trace")
        found = traces.read(str(path))
        count, moments, live, unknown = 0, {}, set(), 0
        last = 0
        for call in found:
            self.assertGreaterEqual(call.moment, last)
            last = call.moment
            self.assertGreaterEqual(call.begin, moments.get(call.thread, 0))
            moments[call.thread] = call.begin
            count += 1
            if call.allocates:
                unknown += call.pointer in live
                live.add(call.pointer)
            else:
                live.remove(call.pointer)
        self.assertEqual((count, unknown, live), (len(found), 0, set()))
        self.assertGreater(count, trace_file.CHUNKS_AT_ONCE * trace_file.CHUNK_RECORDS * 4)

    def test_several_and_mixed(self):
        """Traces of several processes, and statistics beside them."""
        folder = self.folder()
        script = self.script(f"{PLAIN} 300; {PLAIN} 200")
        arguments = ("--reports", folder, "--trace", folder / "t.%p")
        self.assert_ok(run("run", *arguments, "--", script))
        found = self.json(folder)
        self.assertEqual(sorted(one["calls"] for one in found["traces"]), [400, 600])
        self.assertEqual(len(found["processes"]), 2)
        result = run("report", folder)
        self.assert_ok(result)
        self.assertRegex(result.stdout, r"\nplain \d+ +600 +1 ")
        self.assertRegex(result.stdout, r"\nall 2 +1,000 +2 ")
        self.assertIn("allocated: thread cache", result.stdout)
        # They ran one after the other, and each has one block at a time.
        times = result.stdout.split("until")[1].split("\n\n")[0].splitlines()[1:]
        blocks = {re.split(r"  +", line.strip())[2] for line in times}
        self.assertEqual(blocks - {"0 B"}, {"4 KiB"})
        csv = folder / "rmm.csv"
        first, *_ = folder.glob("t.*")
        self.assert_ok(run("replay", "--csv", csv, first))
        said = run("report", csv)
        self.assert_ok(said)
        self.assertRegex(said.stdout, r"\nCSV +[46]00 +1 ")

    def test_a_process_that_was_killed(self):
        path = self.folder() / "t"
        result = run("run", "--trace", path, "--", PROGRAMS / "endings", "kill")
        self.assert_ok(result, -signal.SIGKILL)
        said = run("report", path)
        self.assert_ok(said)
        self.assertRegex(said.stdout, r"\nendings \d+ \(not ended\) ")

    def test_empty_and_wrong(self):
        folder = self.folder()
        trace_file.write(Trace([]), folder / "empty")
        result = run("report", folder / "empty")
        self.assert_ok(result)
        (folder / "cut").write_bytes((folder / "empty").read_bytes()[:100])
        (folder / "newer").write_bytes(trace_file.MAGIC + b"\x63" + bytes(4096))
        (folder / "other.csv").write_text("a,b\n1,2\n")
        for name in ("cut", "newer", "other.csv"):
            self.assert_refused(run("report", folder / name), name, code=1)


class Wrong(TestCase):
    def test_what_is_no_report_in_a_folder_is_passed_over(self):
        folder = self.folder()
        (folder / "metrics.json").write_text('{"loss": 1}')
        (folder / "cut.json").write_text('{\n  "cmp_statistics": 1,\n  "vers')
        result = run("report", folder)
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertEqual(result.stderr.splitlines()[2:], ["cmp-preload: no file of these can be read"])
        self.assert_ok(run("run", "--reports", folder, "--", PLAIN, "10"))
        result = run("report", folder)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stderr.splitlines(), [
            f"cmp-preload: {folder}/cut.json: cut off or damaged; passed over",
            f"cmp-preload: {folder}/metrics.json: not a statistics file; passed over"])
        self.assertIn("plain", result.stdout)

    def test_wrong_traces_in_a_folder_are_passed_over(self):
        """Those that cannot be opened, and one whose damage shows when its calls are read."""
        folder = self.folder()
        arguments = ("--reports", folder, "--trace", folder / "t.%p")
        self.assert_ok(run("run", *arguments, "--", PLAIN, "300"))
        (whole,) = folder.glob("t.*")
        (folder / "train.csv").write_text("epoch,loss\n1,0.5\n")
        (folder / "cut").write_bytes(whole.read_bytes()[:40])
        damaged = bytearray(whole.read_bytes())
        record = trace_file.CHUNK_BYTES + trace_file.CHUNK.size + trace_file.RECORD.size
        damaged[record : record + 8] = bytes(8)  # before the trace began
        (folder / "damaged").write_bytes(damaged)
        said = run("report", folder)
        self.assert_ok(said)
        self.assertEqual(said.stderr.splitlines(), [
            f"cmp-preload: {folder}/cut: the file is cut off; passed over",
            f"cmp-preload: {folder}/train.csv: neither a trace nor a CSV of RMM's; passed over",
            f"cmp-preload: {folder}/damaged: a record is damaged; passed over"])
        self.assertEqual(said.stdout, run("report", *folder.glob("*.json"), whole).stdout)
        for name in ("cut", "damaged", "train.csv"):  # what is named is asked for
            said = run("report", folder, folder / name)
            self.assertEqual((said.returncode, said.stdout), (1, ""))
            self.assertRegex(said.stderr.splitlines()[-1], rf"{name}: .*(?<!passed over)$")
        whole.unlink()
        for path in folder.glob("*.json"):
            path.unlink()
        said = run("report", folder)
        self.assertEqual((said.returncode, said.stdout), (1, ""))
        self.assertEqual(said.stderr.splitlines()[3:], ["cmp-preload: no file of these can be read"])

    def test_what_is_no_file_in_a_folder_is_not_read(self):
        """Reading a FIFO might never end."""
        folder = self.folder()
        self.assert_ok(run("run", "--reports", folder, "--", PLAIN, "10"))
        (path,) = folder.glob("*.json")
        os.mkfifo(folder / "x.json")
        os.mkfifo(folder / "y.csv")
        (folder / "z.json").mkdir()
        said = run("report", folder)
        self.assert_ok(said)
        self.assertEqual(said.stderr.splitlines(), [
            f"cmp-preload: {folder}/x.json: not a file; passed over",
            f"cmp-preload: {folder}/z.json: not a file; passed over"])
        self.assertEqual(said.stdout, run("report", path).stdout)
        path.unlink()
        self.assert_ok(run("report", folder), code=1)

    def test_wrong_files(self):
        folder = self.folder()
        (folder / "empty.json").write_text("")
        (folder / "other.json").write_text('{"a": 1}')
        (folder / "cut.json").write_text('{\n  "cmp_statistics": 1,\n  "vers')
        (folder / "newer.json").write_text('{\n  "cmp_statistics": 99\n}\n')
        (folder / "short.live").write_bytes(b"CMPSTAT\0" + bytes(20))
        (folder / "other.live").write_bytes(b"CMPSTAT\0" + b"\1" + bytes(200))
        (folder / "lacks.json").write_text('{\n  "cmp_statistics": 1, "reached": true}')
        (folder / "deep.json").write_text('{\n  "cmp_statistics":' + "[" * 100_000)
        (folder / "none").mkdir()
        for name in (
            "lacks.json",
            "deep.json",
            "empty.json",
            "other.json",
            "cut.json",
            "newer.json",
            "short.live",
            "other.live",
            "none",
            "missing.json",
        ):
            with self.subTest(name=name):
                self.assert_refused(run("report", folder / name), name, code=1)
        self.assert_refused(run("report"), "which file")
        self.assert_refused(run("report", "--htm", "x", "y"), "--html")

    def test_what_is_wrong_is_said_in_words_of_its_own(self):
        """None of Python's, which tell of its numbers and codecs."""
        folder = self.folder()
        begin = b'{\n  "cmp_statistics": 1, '
        line = "Thread,Time,Action,Pointer,Size,Stream\n1,00:00:00:0,allocate,0x10,"
        for name, content, said in (
            ("latin.json", begin + b'"program": "r\xe9seau"}', "cut off or damaged"),
            ("huge.json", begin + b'"pid": ' + b"9" * 5000 + b"}", "cut off or damaged"),
            ("short.live", b"CMPSTAT\0" + bytes(20), "cut off or damaged"),
            ("format.json", b'{\n  "cmp_statistics": "' + b"9" * 5000 + b'"}', "statistics of format '999"),
            ("word.csv", f"{line}many,0\n".encode(), "line 2: Size is no number"),
            ("huge.csv", f"{line}{'9' * 5000},0\n".encode(), "line 2: Size is no number"),
        ):
            (folder / name).write_bytes(content)
            said = f"cmp-preload: {folder / name}: {said}"
            with self.subTest(name=name):
                result = run("report", folder / name)
                self.assert_refused(result, said, code=1)
                self.assertLess(len(result.stderr), len(said) + 100)

    def test_reader_that_has_enough(self):
        folder = self.folder()
        self.assert_ok(run("run", "--reports", folder, "--", PLAIN, "10"))
        page = self.folder() / "page.html"
        result = subprocess.run(
            f"{COMMAND} report --html {page} {folder} | true",
            shell=True,
            env=environment(),
            stderr=subprocess.PIPE,
            check=False,
        )
        self.assertEqual(result.stderr, b"")
        self.assertTrue(page.exists())


class Files(TestCase):
    """What --html writes with."""

    def test_private_and_replaced(self):
        path = self.folder() / "page"
        for content in ("<!mine> one", "<!mine> two"):
            write_private(str(path), "<!mine>", content)
            self.assertEqual(path.read_text(), content)
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertEqual(list(path.parent.iterdir()), [path])

    def test_other_files_are_not_touched(self):
        folder = self.folder()
        (folder / "mine").write_text("mine")
        (folder / "link").symlink_to(folder / "target")
        (folder / "sub").mkdir()
        for name in ("mine", "link", "no/where", "sub"):
            with self.assertRaises(Failure):
                write_private(str(folder / name), "<!x>", "<!x> content")
        names = sorted(path.name for path in folder.iterdir())
        self.assertEqual(names, ["link", "mine", "sub"])
        self.assertEqual((folder / "mine").read_text(), "mine")

    def test_no_room(self):
        """Nothing is left of what could not be written whole."""
        path = self.folder() / "page"
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            with self.assertRaises(Failure) as raised:
                write_private(str(path), "<!x>", "<!x>" + 1000 * "content")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, before)
        self.assertIn("page", str(raised.exception))
        self.assertEqual(list(path.parent.iterdir()), [])


if __name__ == "__main__":
    main()
