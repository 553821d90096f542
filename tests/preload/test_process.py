"""The preload in its process: without CUDA, forks, exec, every way to end, odd libraries."""

import ctypes
import json
import os
import re
import shutil
import signal
import struct
import sys
import time
import unittest
from ctypes.util import find_library

from preload import PRELOAD, PROGRAMS, SANITIZE, SIM, TestCase, main, run, start


def has_driver():
    """True if a program finds a libcuda.so.1 without being told where."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


class WithoutCuda(TestCase):
    def test_no_output_and_no_file(self):
        python = sys.executable
        for command in (
            ["/bin/true"],
            ["/bin/sh", "-c", "echo a; (echo b); exec echo c"],
            [python, "-S", "-c", "import os, threading; threading.Thread(target=print).start()"],
            ["/bin/false"],
        ):
            for stats in ("1", "report.json", "report-%p.json", "/nowhere/report.json"):
                with self.subTest(command=command, stats=stats):
                    folder = self.temporary_folder()
                    env = {"CMP_STATS": stats, "CMP_VERBOSE": "1", "CMP_MODE": "nonsense"}
                    without = run(command[0], command[1:], preload=False, cwd=folder)
                    within = run(command[0], command[1:], env=env, cwd=folder)
                    self.assertEqual(
                        (without.code, without.out, without.err),
                        (within.code, within.out, within.err),
                    )
                    self.assertEqual(list(folder.iterdir()), [])

    def test_missing_runtime(self):
        """A program whose libcudart is missing fails to start, as without the preload."""
        if find_library("cudart"):
            self.skipTest("a CUDA runtime is installed where every program finds it")
        without = run("plain", preload=False, env={"LD_LIBRARY_PATH": None})
        within = run("plain", env={"LD_LIBRARY_PATH": None})
        self.assertEqual(without.code, 127)
        self.assertEqual((without.code, without.err), (within.code, within.err))

    def test_missing_driver(self):
        if has_driver():
            self.skipTest("a CUDA driver is installed where every program finds it")
        folder = self.temporary_folder()
        shutil.copy(SIM / "libcudart.so.13", folder)
        env = {"LD_LIBRARY_PATH": str(folder)}
        without, within = self.run_both("plain", env=env)
        self.assertEqual(without.results, "failed 200, last error 35\n")
        self.assertEqual(within.hits, 0)


class Forks(TestCase):
    def reports(self, folder):
        return {
            path.name: json.loads(path.read_text())
            for path in folder.iterdir()
            if not path.name.endswith(".live")
        }

    def test_fork_before_cuda(self):
        folder = self.temporary_folder()
        without = run("forks", ["before"], preload=False)
        within = run("forks", ["before"], env={"CMP_STATS": folder / "report-%p.json"})
        self.assert_ok(within)
        self.assertEqual(sorted(without.out.splitlines()), sorted(within.out.splitlines()))
        self.assertIn("child: exit code 0, signal 0", without.out)
        reports = self.reports(folder)
        self.assertEqual(len(reports), 2, reports.keys())
        for name, report in reports.items():
            self.assertEqual(name, f"report-{report['pid']}.json")
            self.assertGreater(report["totals"]["thread_cache_hits"], 15)

    def test_fork_after_cuda(self):
        for when in ("after", "_exit"):
            with self.subTest(when=when):
                without, within = self.run_both("forks", [when])
                self.assertIn("child: exit code 0, signal 0", without.results)
                # The parent's report is the parent's, and whole.
                self.assertEqual(within.totals["requests"], 58)
                self.assertGreater(within.hits, 40)

    @unittest.skipIf("thread" in SANITIZE, "ThreadSanitizer hangs in children of busy processes")
    def test_fork_while_a_thread_allocates(self):
        """Whatever lock that thread held is free in the child."""
        without, within = self.run_both("forks", ["busy"])
        self.assertEqual(without.results.count("child: exit code 0, signal 0"), 20)
        self.assertGreater(within.hits, 40)

    def test_names_of_reports(self):
        """A child's report, if there is one, never takes the parent's name."""
        for pattern in ("report.json", "report-%p.json"):
            with self.subTest(pattern=pattern):
                folder = self.temporary_folder()
                within = run("forks", ["after"], env={"CMP_STATS": folder / pattern})
                self.assert_ok(within)
                reports = self.reports(folder)
                parents = [r for r in reports.values() if r["totals"]["thread_cache_hits"] > 0]
                self.assertEqual(len(parents), 1, reports)
                parent = parents[0]
                name = pattern.replace("%p", str(parent["pid"]))
                self.assertEqual(reports[name], parent)
                for other, report in reports.items():
                    if report is not parent:
                        self.assertIn(str(report["pid"]), other)
                self.assertEqual([p for p in folder.iterdir() if p.name.endswith(".live")], [])

    def test_child_that_runs_another_program(self):
        without, within = self.run_both("forks", ["exec", PROGRAMS / "endings"])
        self.assertEqual(without.results.count("used CUDA"), 3)


class Endings(TestCase):
    def test_ways_to_end(self):
        for way, code in (
            ("return", 0),
            ("code", 7),
            ("leak", 0),
            ("exit-in-thread", 5),
            # Under ThreadSanitizer this one hangs without the preload too.
            *([] if "thread" in SANITIZE else [("pthread-exit", 0)]),
            ("early", 0),
            ("late", 0),
            ("late-malloc", 0),
            ("pending", 0),
        ):
            with self.subTest(way=way):
                _, within = self.run_both("endings", [way], code=code)
                self.assert_served(within, 10)

    def test_no_cuda_call_of_ours_at_exit(self):
        """After CUDA's own exit handlers: the same calls as without the preload."""
        for way, code in (
            ("return", 0),
            ("leak", 0),
            ("exit-in-thread", 5),
            ("late", 0),
            ("late-malloc", 0),
        ):
            with self.subTest(way=way):
                counts = []
                for preload in (False, True):
                    folder = self.temporary_folder()
                    result = run(
                        "endings", [way], preload, env={"CMPSIM_REPORT": folder / "sim.txt"}
                    )
                    self.assert_ok(result, code)
                    report = (folder / "sim.txt").read_text()
                    counts.append(
                        [l for l in report.splitlines() if l.startswith(("late", "misuse"))]
                    )
                self.assertEqual(counts[0], counts[1])

    def test_exit_while_threads_allocate(self):
        for way, code in (("busy", 0), ("busy-exit-in-thread", 5)):
            for _ in range(2 if SANITIZE else 8):
                result = run("endings", [way])
                self.assert_ok(result, code)
                self.assertEqual(result.err, "")
                self.assertEqual(result.results, "used CUDA\n")
                self.assertGreater(result.hits, 10)

    def counters_in(self, path, program, pid):
        """The counters of a process that is not over, from FILE.live: the sums over its slots."""
        data = path.read_bytes()
        magic, schema, header, slot_bytes, slots, tiers, _, found_pid = struct.unpack_from(
            "=8sIIIIIIQ", data
        )
        self.assertEqual((magic, schema, found_pid), (b"CMPSTAT\0", 1, pid))
        self.assertIn(program.encode() + b"\0", data[:header])
        per_tier, _, used = struct.unpack_from("=III", data, 40)
        self.assertGreaterEqual(slots, used)
        sums = [0] * per_tier
        for slot in range(min(used, (len(data) - header) // slot_bytes)):
            for tier in range(tiers):
                at = header + slot * slot_bytes + tier * per_tier * 8
                counters = struct.unpack_from(f"={per_tier}Q", data, at)
                sums = [a + b for a, b in zip(sums, counters)]
        return {"slots": used, "requests": sum(sums[:4]), "hits": sum(sums[:2]),
                "frees": sum(sums[4:6])}

    def ended(self, way, number, expected):
        """A process that waits, ended by a signal once its counters are in the file: what is left."""
        folder = self.temporary_folder()
        process = start("endings", [way], env={"CMP_STATS": str(folder / "report.json")})
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), b"used CUDA\n")
        live = folder / "report.json.live"
        while not expected(self.counters_in(live, "endings", process.pid)):
            self.assertIsNone(process.poll())
            time.sleep(0.01)
        process.send_signal(number)
        self.assertEqual(process.wait(60), -number)
        self.assertEqual([path.name for path in folder.iterdir()], ["report.json.live"])
        found = self.counters_in(live, "endings", process.pid)
        self.assertTrue(expected(found), found)
        return folder, found

    def test_killed(self):
        for number in (signal.SIGTERM, signal.SIGABRT, signal.SIGKILL):
            with self.subTest(number=number):
                # Under other modes than `wait` hits depend on how far the device has come.
                _, found = self.ended("wait", number, lambda found: found["frees"] >= 10)
                self.assertEqual(found["requests"], found["frees"])

    def test_over_at_once(self):
        """Nobody has had the time to write; the file is there, and can be read."""
        for way, code in (("_exit", 6), ("abort", -signal.SIGABRT), ("kill", -signal.SIGKILL)):
            with self.subTest(way=way):
                folder = self.temporary_folder()
                result = run("endings", [way], env={"CMP_STATS": folder / "report.json"})
                if not (SANITIZE and way == "abort"):
                    self.assert_ok(result, code)
                (live,) = folder.iterdir()
                pid = struct.unpack_from("=Q", live.read_bytes(), 32)[0]
                found = self.counters_in(live, "endings", pid)
                self.assertLessEqual(found["frees"], found["requests"])

    def test_killed_with_more_threads_than_there_was_room_for(self):
        _, found = self.ended("crowd", signal.SIGKILL, lambda found: found["frees"] >= 6000)
        self.assertGreater(found["slots"], 600)
        self.assertEqual(found["requests"], found["frees"], "live blocks where there are none")

    def test_killed_and_started_again(self):
        """The next process of that name replaces what the killed one left."""
        folder, _ = self.ended("wait", signal.SIGKILL, lambda found: True)
        env = {"CMP_STATS": str(folder / "report.json")}
        result = run("endings", ["return"], env=env)
        self.assert_ok(result)
        self.assertEqual(result.err, "")
        self.assertEqual([p.name for p in folder.iterdir()], ["report.json"])

    def test_exec(self):
        folder = self.temporary_folder()
        env = {"CMP_STATS": str(folder / "report.json")}
        result = run("endings", ["exec", PROGRAMS / "endings", "code"], env=env)
        self.assert_ok(result, 7)
        self.assertEqual((result.out, result.err), ("used CUDA\n" * 2, ""))
        self.assertEqual([p.name for p in folder.iterdir()], ["report.json"])
        report = json.loads((folder / "report.json").read_text())
        self.assertGreaterEqual(report["totals"]["requests"], 18)
        self.assertLess(report["totals"]["requests"], 36)  # of one process alone


class Libraries(TestCase):
    def test_local_plugin(self):
        """libcudart is loaded RTLD_LOCAL, as a dependency of a plugin."""
        without, within = self.run_both("plugin_host", [PROGRAMS / "plugin.so"])
        self.assertIn("plugin 0: failed 0, last error 0", without.results)
        self.assert_served(within, 40)

    def test_two_runtimes(self):
        """Each caller keeps its own runtime, with its own last error; the pool is one."""
        for plugins in (["plugin.so", "plugin_other.so"], ["plugin_other.so", "plugin.so"]):
            with self.subTest(plugins=plugins):
                without, within = self.run_both(
                    "plugin_host", [PROGRAMS / name for name in plugins]
                )
                self.assertIn("plugin 1: failed 0, last error 0", without.results)
                self.assert_served(within, 90)

    def closed_plugins(self, *names):
        for flags in ("close-local", "close-global"):
            with self.subTest(flags=flags):
                without, within = self.run_both(
                    "plugin_host", [flags, *(PROGRAMS / name for name in names)]
                )
                self.assertEqual(without.results.count("failed 0\n"), 3 * len(names))
                self.assertEqual(without.results.count("loaded: no\n"), 3 * len(names))
                self.assertEqual(within.notes["libcudart loaded"], "yes")
                self.assert_served(within, 100)

    def test_closed_plugin(self):
        """It is unloaded as without the preload; its runtime, which the pool uses, stays."""
        self.closed_plugins("plugin.so")

    def test_closed_plugins_of_two_runtimes(self):
        """One gets the address of the other, and keeps its own runtime all the same."""
        self.closed_plugins("plugin.so", "plugin_other.so")

    def test_static_runtime(self):
        """Served through the driver's entry points, which it finds by dlsym and cuGetProcAddress."""
        without, within = self.run_both("plain_static")
        self.assertEqual(without.results, "failed 0, last error 0\n")
        self.assertIs(within.stats["reached"], True)
        self.assertEqual(within.stats["program"], "plain_static")
        self.assert_served(within, 90)
        for off in ("0", "off", ""):
            with self.subTest(off=off):
                self.assertEqual(run("plain_static", env={"CMP_STATS": off}).err, "")
        excluded = {"CMP_STATS": "1", "CMP_PROGRAMS": "!plain_static"}
        self.assertRegex(run("plain_static", env=excluded).err,
                         r"^cmp: plain_static .*CMP_PROGRAMS leaves it out\n$")

    def test_library_and_preload_share_one_pool(self):
        within = run("shared_pool")
        self.assert_ok(within)
        self.assertEqual(within.notes["crosswise"], "1 0")
        self.assertEqual(within.notes["again"], "0 1")
        self.assertEqual(within.notes["real"], "0")
        self.assertEqual(within.notes["seen"], f"{within.totals['requests']} requests, {within.hits} hits")
        self.assertEqual(within.notes["without a wait"], "1 1 1")
        self.assertEqual(within.totals["requests"], 24)
        self.assertGreaterEqual(within.hits, 20)
        self.assertGreater(int(within.notes["released"]), 0)
        self.assertEqual(within.notes["live"], "0")

    def test_a_free_without_a_wait_owes_neither_wait_nor_order_in_any_mode(self):
        for mode in ("wait", "auto", "order", "none"):
            with self.subTest(mode=mode):
                for preload in (True, False):
                    result = run("shared_pool", preload=preload, env={"CMP_FREE_SYNC": mode})
                    self.assert_ok(result)
                    self.assertEqual(result.notes["without a wait"], "1 1 1")
                    self.assertEqual(result.notes["beside it"], "1")

    def test_frees_of_the_library_lose_nothing_and_leave_captures_alone(self):
        """A real free that a capture had refused was taken for done."""
        for mode in ("wait", "auto", "order", "none"):
            with self.subTest(mode=mode):
                result = run("shared_pool", ["captures"],
                             env={"CMP_FREE_SYNC": mode, "CMP_MAX_BLOCK": "4M"})
                self.assert_ok(result)
                during = [note for what, note in result.notes.items() if "mode" in what]
                self.assertEqual(during, ["1 0 0, live 0"] * 36)
                self.assertEqual(result.notes["in a host function"], "0 0")
                self.assertEqual(result.notes["then"], "1 1, live 0")
                self.assertEqual(len(re.findall(r"still in use, CUDA refused \(CUresult 800\)",
                                                result.err)), 2)

    def test_library_alone(self):
        without = run("shared_pool", preload=False)
        self.assert_ok(without)
        self.assertEqual(without.notes["without a wait"], "1 1 1")
        self.assertEqual(without.notes["seen"].split()[1], "requests,")


if __name__ == "__main__":
    main()
