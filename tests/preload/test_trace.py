"""CMP_TRACE: every call is there and is told right, whatever happens to the process or the file; the
trace as RMM's CSV; the replay of traces."""

import io
import os
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
import unittest
from collections import Counter

from preload import BUILD, MODE, PRELOAD, PROGRAMS, SANITIZE, SOURCE, TestCase, environment, main, run, start

sys.path.insert(0, str(SOURCE / "scripts"))
from cmp_preload.console.errors import Failure  # noqa: E402
from cmp_preload.measuring import replays  # noqa: E402
from cmp_preload.pool.library import Library  # noqa: E402
from cmp_preload.records import rmm_csv, timeline, trace_file, traces  # noqa: E402
from cmp_preload.records.calls import OUTCOMES, Call, Trace  # noqa: E402

RESULTS = "failed 0, last error 0\n"
WORK = "work", [4, 400, 1]
PAIRS = 110000  # of 32 bytes and more each, so that they need 6.9 MB


class Traces(TestCase):
    def traced(self, program, args=(), env=None, **more):
        """Runs a program, and returns what happened, and its trace."""
        path = self.temporary_folder() / "trace"
        result = run(program, args, env={"CMP_TRACE": path} | (env or {}), **more)
        return result, traces.read(path)

    def assert_consistent(self, calls):
        """Each thread made one call after the other; an allocation is freed once, with its size."""
        ends, live = Counter(), {}
        for call in calls:
            self.assertGreaterEqual(call.begin, ends[call.thread])
            ends[call.thread] = call.begin + call.cost
            if call.outcome == "failed":
                self.assertEqual(call.pointer, 0)
            elif call.allocates:
                self.assertNotIn(call.pointer, live)
                self.assertEqual(call.status, 0)
                live[call.pointer] = call
            elif call.outcome in ("pooled", "waited", "real_free"):
                allocation = live.pop(call.pointer)
                self.assertEqual((call.bytes, call.status), (allocation.bytes, 0))
            elif call.outcome == "foreign_free":
                live.pop(call.pointer, None)
        return live

    def assert_workers(self, found, workers):
        """Of `work`, whose main thread only frees what the others may have left to it."""
        self.assertEqual(len({call.thread for call in found.calls} - {found.pid}), workers)

    def assert_as_counted(self, found, result):
        """What the trace says is what the statistics say."""
        outcomes = Counter(call.outcome for call in found.calls)
        totals = result.totals
        for outcome, counter in (("thread_cache", "thread_cache_hits"),
                                 ("global_pool", "global_pool_hits"), ("refill", "refills"),
                                 ("real", "real"), ("real_free", "real_frees")):
            self.assertEqual(outcomes[outcome], totals[counter], outcome)
        self.assertEqual(outcomes["pooled"] + outcomes["waited"], totals["frees"])
        self.assertEqual(outcomes["failed"], result.process["failed_allocations"])
        self.assertEqual(outcomes["foreign_free"], result.process["foreign_frees"])
        self.assertEqual(outcomes["double_free"], result.process["double_frees"])
        given = [call.bytes for call in found.calls if call.allocates and call.pointer]
        self.assertEqual(sum(given), totals["requested_bytes"])
        self.assertEqual((found.lost, found.ended), (0, True))


class Calls(Traces):
    def test_threads(self):
        rows = ({}, {"CMP_MAX_BLOCK": "64K"}, {"CMP_FREE_SYNC": "wait"}, {"CMP_MODE": "observe"},
                {"CMP_FREE_SYNC": "order"}, {"CMP_FREE_SYNC": "none"}, {"CMP_FILL": "zero"})
        for env in rows[:2] if SANITIZE else rows:
            with self.subTest(env=env):
                result, found = self.traced(*WORK, env=env)
                self.assert_ok(result)
                self.assertEqual(result.err, "")
                self.assertIn("wrong words 0", result.out)
                allocations = int(re.search(r"allocations (\d+)", result.out).group(1))
                self.assertEqual(sum(call.allocates for call in found.calls), allocations)
                self.assertEqual(len(found.calls), 2 * allocations)
                self.assertEqual(self.assert_consistent(found.calls), {})
                self.assert_as_counted(found, result)
                self.assert_workers(found, 4)
                self.assertEqual(len({call.context for call in found.calls if call.allocates}), 1)
                self.assertEqual({call.device for call in found.calls}, {0})

    def test_waits(self):
        result, found = self.traced(*WORK, env={"CMP_FREE_SYNC": "wait"})
        waited = [call for call in found.calls if call.outcome == "waited"]
        self.assertGreater(len(waited), 100)
        self.assertEqual(len(waited), result.process["wait_calls"])
        self.assertGreaterEqual(sum(call.cost for call in waited), result.process["wait_ns"])

    def test_kinds(self):
        """Every outcome, in the order in which the program knows them to happen."""
        settings = {"CMP_FREE_SYNC": "wait", "CMP_MAX_BLOCK": "16M",
                    "CMP_THREAD_CACHE_BYTES": "512K"}  # less than its large blocks
        result, found = self.traced("traced", ["kinds"], env=settings)
        self.assert_ok(result)
        expected = [(outcome, int(size), int(status))
                    for outcome, size, status in map(str.split, result.out.splitlines())]
        self.assertEqual([(c.outcome, c.bytes, c.status) for c in found.calls], expected)
        self.assertEqual({outcome for outcome, _, _ in expected}, set(OUTCOMES))
        self.assert_consistent(found.calls)
        self.assertEqual(len({call.thread for call in found.calls}), 2)

    def test_contexts(self):
        result, found = self.traced("contexts", ["devices"], env={"CMPSIM_DEVICES": "2"})
        self.assert_ok(result)
        self.assertEqual({call.device for call in found.calls if call.allocates}, {0, 1})
        # The free of what a reset took has an error, and is the only one.
        self.assertEqual(self.assert_consistent(found.calls), {})
        errors = [call.outcome for call in found.calls if call.status]
        self.assertEqual(errors, ["foreign_free"])
        self.assertEqual(sum(call.allocates for call in found.calls), result.totals["requests"])

    def test_driver_and_static_runtime(self):
        for program, args in (("plain_static", [100]), ("driver_opened", ["v2"]),
                              ("shared_pool", [])):
            with self.subTest(program=program):
                result, found = self.traced(program, args)
                self.assert_ok(result)
                outcomes = Counter(call.outcome for call in found.calls)
                self.assertEqual(outcomes["thread_cache"] + outcomes["global_pool"], result.hits)
                self.assertEqual(outcomes["refill"], result.totals["refills"])
                self.assertEqual(outcomes["pooled"] + outcomes["waited"], result.totals["frees"])
                self.assertGreater(result.totals["frees"], 10)

    def test_many_threads(self):
        """More than the file has room for at first."""
        result, found = self.traced("work", [40, 200, 3])
        self.assert_ok(result)
        self.assert_as_counted(found, result)
        self.assert_workers(found, 40)

    def test_many_calls(self):
        """The file grows, and ends where the records end."""
        path = self.temporary_folder() / "trace"
        result = run("plain", [150000], env={"CMP_TRACE": path})
        self.assertEqual((result.out, result.err), (RESULTS, ""))
        found = traces.read(path)
        self.assertEqual(len(found.calls), 300000)
        chunks = -(-300000 // (trace_file.CHUNK_BYTES // trace_file.RECORD.size - 1))
        self.assertEqual(path.stat().st_size, (1 + chunks) * trace_file.CHUNK_BYTES)
        self.assert_as_counted(found, result)

    def test_few_writes(self):
        """Records are gathered: a system call for each would cost more than most calls."""
        process = start("endings", ["lines"], stdin=-1,
                        env={"CMP_TRACE": str(self.temporary_folder() / "trace")})
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), b"used CUDA\n")

        def writes():
            with open(f"/proc/{process.pid}/io", encoding="ascii") as file:
                return int(re.search(r"syscw: (\d+)", file.read()).group(1))

        before = writes()
        for _ in range(50):  # of 800 calls each
            process.stdin.write(b"\n")
            process.stdin.flush()
            self.assertEqual(process.stdout.readline(), b"done\n")
        self.assertLess(writes() - before, 50 * 800 / 8)

    def test_header(self):
        env = {"CMP_TIER_STEPS": "8", "CMP_SLACK": "10%", "SLURM_PROCID": "7"}
        result, found = self.traced("plain", [5], env=env)
        self.assertEqual((found.program, found.pid, found.version),
                         ("plain", result.stats["pid"], result.stats["version"]))
        self.assertEqual(found.settings["CMP_TIER_STEPS"], "8")
        self.assertEqual(found.settings["CMP_SLACK"], "10%")
        self.assertEqual((found.host, found.rank), (socket.gethostname(), 7))
        self.assertRegex(found.command, r"/plain 5$")

    def test_layout_is_that_of_the_code(self):
        """What shim/record/trace_format.h declares, and what stands in a file."""
        code = (SOURCE / "shim" / "record" / "trace_format.h").read_text()

        def declared(name):
            """The fields of a structure, and how they are packed."""
            body = code.split(f"struct {name} {{")[1].split("\n};")[0]
            letters = {"char": "s", "uint32_t": "I", "uint64_t": "Q"}
            fields = re.findall(r"^  (?:std::atomic<)?(char|uint\d+_t)>? (\w+)(?:\[(\d+)\])?;", body, re.M)
            return ([field for _, field, _ in fields],
                    "<" + "".join(count + letters[kind] for kind, _, count in fields))

        names, header = declared("TraceHeader")
        self.assertEqual(header, trace_file.HEADER.format)
        self.assertEqual(struct.calcsize(declared("TraceChunk")[1]), trace_file.CHUNK.size)
        (schema,) = re.findall(r"kTraceSchema = (\d+);", code)
        (chunk_bytes,) = re.findall(r"kTraceChunkBytes = (\d+);", code)
        (magic,) = re.findall(r'kTraceMagic\[\] = "(\w+)";', code)
        (record_bytes,) = re.findall(r"sizeof\(TraceRecord\) == (\d+)\);", code)
        self.assertEqual((magic.encode(), int(schema), int(chunk_bytes), int(record_bytes)),
                         (trace_file.MAGIC, trace_file.FORMAT, trace_file.CHUNK_BYTES,
                          trace_file.RECORD.size))
        path = self.temporary_folder() / "trace"
        before = time.time_ns(), time.monotonic_ns()
        result = run("plain", [5], env={"CMP_TRACE": path})
        after = time.time_ns(), time.monotonic_ns()
        data = path.read_bytes()
        found = dict(zip(names, struct.unpack_from(header, data)))
        expected = {"magic": magic.encode(), "schema": int(schema), "chunk_bytes": int(chunk_bytes),
                    "record_bytes": int(record_bytes), "ended": 1, "pid": result.stats["pid"], "lost": 0}
        self.assertEqual({name: found[name] for name in expected}, expected)
        self.assertEqual(found["program"].rstrip(b"\0"), b"plain")
        self.assertEqual(found["version"].rstrip(b"\0").decode(), result.stats["version"])
        self.assertIn(f"CMP_TRACE={path}\n".encode(), found["settings"])
        for name, first, last in zip(("begin_unix_ns", "begin_ns"), before, after):
            self.assertLessEqual(first, found[name])
            self.assertLessEqual(found[name], last)
        # A record of the only thread behind its chunk's head.
        self.assertEqual(trace_file.CHUNK.unpack_from(data, int(chunk_bytes)), (result.stats["pid"], 10))
        begin, *_ = trace_file.RECORD.unpack_from(data, int(chunk_bytes) + trace_file.CHUNK.size)
        self.assertLessEqual(found["begin_ns"], begin)

    def test_outcomes_are_those_of_the_code(self):
        text = (SOURCE / "shim" / "record" / "trace_format.h").read_text()
        table = text.split("#define CMP_TRACE_OUTCOMES(X)")[1].split("\n\n")[0]
        self.assertEqual(re.findall(r"X\((\w+),", table), OUTCOMES)


class Processes(Traces):
    def test_killed(self):
        """What a process did until shortly before it was killed is there."""
        whole = len(self.traced("endings", ["return"])[1].calls)
        for way, code in (("_exit", 6), ("kill", -signal.SIGKILL)):
            with self.subTest(way=way):
                result, found = self.traced("endings", [way])
                self.assert_ok(result, code)
                self.assertFalse(found.ended)
                self.assertLessEqual(len(found.calls), whole)
                self.assert_consistent(found.calls)
        process, path = self.waiting(whole)
        process.kill()
        process.wait()
        found = traces.read(path)
        self.assertEqual((len(found.calls), found.ended), (whole, False))
        self.assertEqual(self.assert_consistent(found.calls), {})

    def waiting(self, calls):
        """A process that makes no more calls, with so many in its trace."""
        path = self.temporary_folder() / "trace"
        process = start("endings", ["wait"], env={"CMP_TRACE": str(path)})
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), b"used CUDA\n")
        while len(traces.read(path).calls) < calls:
            self.assertIsNone(process.poll())
            time.sleep(0.01)
        return process, path

    def test_killed_in_the_middle(self):
        """By somebody else, while threads record."""
        path = self.temporary_folder() / "trace"
        process = start("work", [4, 100000000, 1], env={"CMP_TRACE": str(path)})
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        while not path.exists() or path.stat().st_size < 1 << 20:
            self.assertIsNone(process.poll())
            time.sleep(0.01)
        process.kill()
        process.wait()
        found = traces.read(path)
        self.assertGreater(len(found.calls), 25000)
        self.assertFalse(found.ended)
        # Of each thread the last calls may be missing: until the first such, at most one each is,
        # which was about to be recorded.
        threads = {call.thread: call.moment for call in sorted(found.calls, key=lambda c: c.moment)}
        self.assertEqual(len(threads), 4)
        end = min(threads.values())
        live, unknown = {}, 0
        for call in found.calls:
            if call.moment > end:
                continue
            if call.allocates:
                unknown += call.pointer in live
                live[call.pointer] = call
            else:
                unknown += live.pop(call.pointer, None) is None
        self.assertLessEqual(unknown, len(threads))

    def test_running(self):
        """A trace can be read while the process runs."""
        process, path = self.waiting(21)
        found = traces.read(path)
        self.assertEqual((found.pid, found.ended), (process.pid, False))

    def test_exit_while_threads_allocate(self):
        for _ in range(2 if SANITIZE else 8):
            result, found = self.traced("endings", ["busy"])
            self.assert_ok(result)
            self.assertEqual(result.err, "")
            self.assertTrue(found.ended)

    @unittest.skipIf("thread" in SANITIZE, "ThreadSanitizer hangs in children of busy processes")
    def test_forks(self):
        """The parent's trace is the parent's; a child's has the child's name."""
        for when in ("after", "busy"):
            for pattern in ("trace", "trace-%p"):
                with self.subTest(when=when, pattern=pattern):
                    folder = self.temporary_folder()
                    result = run("forks", [when, 50], env={"CMP_TRACE": folder / pattern})
                    self.assert_ok(result)
                    pid = result.stats["pid"]
                    name = pattern.replace("%p", str(pid))
                    parent = traces.read(folder / name)
                    self.assertEqual(parent.pid, pid)
                    self.assert_consistent(parent.calls)
                    self.assert_as_counted(parent, result)
                    others = [path for path in folder.iterdir() if path.name != name]
                    self.assertTrue(others)
                    for path in others:
                        child = traces.read(path)
                        self.assertTrue(path.name.endswith(str(child.pid)))
                        self.assertNotEqual(child.pid, pid)
                        self.assertEqual({call.outcome for call in child.calls
                                          if call.allocates} - {"failed"}, set())

    def test_without_cuda_or_pool(self):
        for program, args, env in (("/bin/true", (), {}), ("plain", [5], {"CMP_MODE": "off"}),
                                   ("plain", [5], {"CMP_PROGRAMS": "!plain"})):
            folder = self.temporary_folder()
            result = run(program, args, env=env | {"CMP_TRACE": folder / "trace"})
            self.assert_ok(result)
            self.assertEqual((list(folder.iterdir()), result.err), ([], ""))


class Files(Traces):
    def written(self, name, folder=None, pairs=100, env=None):
        folder = folder or self.temporary_folder()
        result = run("plain", [pairs], env={"CMP_TRACE": str(folder / name)} | (env or {}))
        self.assert_ok(result)
        self.assertEqual(result.out, RESULTS)
        return folder, result

    def assert_one_warning(self, result):
        self.assertEqual(len(result.err.splitlines()), 1, result.err)
        self.assertTrue(result.err.startswith("cmp: cannot write the trace to "), result.err)

    def test_names_and_mode(self):
        for pattern, expected in (("t", "t"), ("t-%h-%r", f"t-{socket.gethostname()}-3"),
                                  ("t.%p", "t.PID"), ("100%%", "100%")):
            folder, result = self.written(pattern, env={"SLURM_PROCID": "3"})
            (path,) = folder.iterdir()
            self.assertEqual(path.name, expected.replace("PID", str(result.stats["pid"])))
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
            self.assertEqual(result.err, "")

    def test_own_trace_is_replaced(self):
        folder, _ = self.written("t")
        _, result = self.written("t", folder, pairs=7)
        self.assertEqual(result.err, "")
        self.assertEqual(len(traces.read(folder / "t").calls), 14)

    def test_foreign_files_and_links_stay(self):
        for content in ("precious", "CMPTRAC", ""):
            folder = self.temporary_folder()
            (folder / "t").write_text(content)
            _, result = self.written("t", folder)
            self.assert_one_warning(result)
            self.assertEqual((folder / "t").read_text(), content)
            self.assertGreater(result.hits, 0 if MODE else 90)
        for target_exists in (True, False):
            folder, elsewhere = self.temporary_folder(), self.temporary_folder() / "target"
            if target_exists:
                elsewhere.write_text("precious")
            (folder / "t").symlink_to(elsewhere)
            _, result = self.written("t", folder)
            self.assert_one_warning(result)
            self.assertTrue((folder / "t").is_symlink())
            self.assertEqual(elsewhere.exists(), target_exists)

    def test_odd_places(self):
        folder = self.temporary_folder()
        (folder / "folder").mkdir()
        os.mkfifo(folder / "pipe")
        for name in ("missing/t", "folder", "pipe", "x" * 300, "x/" * 1000):
            with self.subTest(name=name[:10]):
                _, result = self.written(name, folder)
                self.assert_one_warning(result)
        if os.geteuid() == 0:
            folder = "/proc"  # root may write elsewhere
        else:
            folder = str(self.temporary_folder())
            os.chmod(folder, 0o500)
        result = run("plain", [100], env={"CMP_TRACE": folder + "/t"})
        self.assertEqual(result.out, RESULTS)
        self.assert_one_warning(result)

    def test_limited_file_size(self):
        """`ulimit -f`, too small from the beginning and later: no signal, and what fits is there."""
        for limit, fits in ((0, False), (8191, False), (1 << 20, True), (6 << 20, True)):
            with self.subTest(limit=limit):
                path = self.temporary_folder() / "t"
                result = run("traced", ["limit", limit, PAIRS], stats=False,
                             env={"CMP_TRACE": str(path)})
                self.assert_ok(result)
                self.assertEqual(result.out, "done\n")
                self.assert_one_warning(result)
                self.assertEqual(path.exists(), fits)
                if fits:
                    self.assert_beginning(path, limit)

    def assert_beginning(self, path, size, calls=2 * PAIRS):
        """As much as there was room for, and the number of calls that there was none for."""
        found = traces.read(path)
        self.assertEqual(path.stat().st_size, size)
        self.assertEqual(len(found.calls), (size // 4096 - 1) * 127)
        self.assertEqual(len(found.calls) + found.lost, calls)
        self.assertLessEqual(len(self.assert_consistent(found.calls)), 1)

    def test_full_filesystem(self):
        folder = self.temporary_folder()
        own = ["unshare", "-rm", "sh", "-c"]
        mount = f"mount -t tmpfs -o size=1m none {folder}"
        if not shutil.which("unshare") or subprocess.run([*own, mount], check=False).returncode:
            self.skipTest("no filesystem of our own can be mounted here")
        kept = self.temporary_folder()
        for used, fits in ((0, True), ((1 << 20) - 4096, False)):
            with self.subTest(used=used):
                script = (f'{mount} && head -c {used} /dev/zero > {folder}/used && "$0" "$@" && '
                          f"cp -r {folder}/. {kept}")
                result = run(shutil.which("unshare"),
                             [*own[1:], script, PROGRAMS / "plain", str(PAIRS)],
                             stats=False,
                             env={"CMP_TRACE": str(folder / f"t{used}")})
                self.assert_ok(result)
                self.assertEqual(result.out, RESULTS)
                self.assert_one_warning(result)
                self.assertEqual((kept / f"t{used}").exists(), fits)
                if fits:
                    self.assert_beginning(kept / "t0", 1 << 20)

    def test_descriptor_of_the_program(self):
        """A program that closes every descriptor keeps what it opens in their places, and its trace."""
        folder = self.temporary_folder()
        result = run("traced", ["closed", folder / "own", PAIRS], stats=False,
                     env={"CMP_TRACE": str(folder / "t")})
        self.assert_ok(result)
        self.assertEqual((result.out, result.err), ("done\n", ""))
        self.assertEqual((folder / "own").stat().st_size, 0)
        found = traces.read(folder / "t")
        self.assertEqual((len(found.calls), found.lost, found.ended), (2 * PAIRS, 0, True))

    def test_descriptor_of_a_file_without_a_name(self):
        """Closed and removed: nothing is written into what the program opened instead."""
        folder = self.temporary_folder()
        result = run("traced", ["removed", folder / "own", PAIRS, folder / "t"], stats=False,
                     env={"CMP_TRACE": str(folder / "t")})
        self.assert_ok(result)
        self.assertEqual(result.out, "done\n")
        self.assert_one_warning(result)
        self.assertIn("the program has closed it", result.err)
        self.assertEqual((folder / "own").stat().st_size, 0)


class Csv(Traces):
    def test_round_trip(self):
        _, found = self.traced("traced", ["kinds"], env={"CMP_FREE_SYNC": "wait"})
        for program in (WORK, ("traced", ["kinds"])):
            _, found = self.traced(*program)
            path = self.temporary_folder() / "t.csv"
            with open(path, "w", encoding="utf-8") as file:
                rmm_csv.write(found, file)
            back = traces.read(path)
            known = set()
            expected = []
            for call in found.calls:
                if call.allocates:
                    known.add(call.pointer)
                    expected.append((call.thread, call.outcome == "failed", call.pointer, call.bytes))
                elif call.outcome != "double_free" and call.pointer in known - {0}:
                    known.remove(call.pointer)
                    expected.append((call.thread, None, call.pointer))
            self.assertEqual(
                [(c.thread, c.outcome == "failed", c.pointer, c.bytes) if c.allocates else
                 (c.thread, None, c.pointer) for c in back.calls], expected)
            self.assertEqual(self.assert_consistent(back.calls), {})
            again = io.StringIO()
            rmm_csv.write(back, again)
            rows = [line.split(",") for line in path.read_text().splitlines()]
            for row in rows[1:]:
                self.assertRegex(row[1], r"^\d\d:\d\d:\d\d\.\d{6}$")
            self.assertEqual([row[:1] + row[2:] for row in rows],
                             [row.split(",")[:1] + row.split(",")[2:]
                              for row in again.getvalue().splitlines()])

    def test_what_rmm_writes(self):
        path = self.temporary_folder() / "rmm.csv"
        path.write_text("Thread,Time,Action,Pointer,Size,Stream\n"
                        "7,23:59:59.999999,allocate,0x7f0000000000,256,0x2\n"
                        "8,24:00:00:000003,allocate failure,(nil),1024,0\n"
                        "8,24:00:00:000003,free,0x7f0000000000,256,0x2\n")
        found = traces.read(path)
        self.assertEqual([(c.begin, c.thread, c.outcome, c.pointer, c.bytes) for c in found.calls],
                         [(0, 7, "real", 0x7F0000000000, 256), (4000, 8, "failed", 0, 1024),
                          (4001, 8, "real_free", 0x7F0000000000, 256)])

    def test_other_files(self):
        _, found = self.traced("plain", [5])
        folder = self.temporary_folder()
        whole = folder / "whole"
        trace_file.write(found, whole)
        data = whole.read_bytes()
        for content in (b"", b"text", b"\xff\xfe", b"a,b\n1,2\n", data[:100],
                        data[:8] + b"\x00" + data[9:], data[:8] + bytes([trace_file.FORMAT + 1]) + data[9:],
                        b"Thread,Time,Action,Pointer,Size,Stream\n1,0,other,0x1,1,0\n",
                        b"Thread,Time,Action,Pointer,Size,Stream\n1,0,free\n",
                        b"Thread,Time,Action,Pointer,Size,Stream\n1,0,free,0x1,-1,0\n",
                        b"Thread,Time,Action,Pointer,Size,Stream\n-1,0,free,0x1,1,0\n"):
            path = folder / "t"
            path.write_bytes(content)
            with self.assertRaises(Failure, msg=content[:60]):
                traces.read(path)

    def test_damaged_records(self):
        path = self.temporary_folder() / "t"
        early, unknown = bytes(32), b"\xff" * 32
        for record in (early, unknown):
            trace_file.write(Trace([Call.of(5, 1, 1, "real", 0x1000, 256)]), path)
            data = bytearray(path.read_bytes())
            data[32:40] = b"\1" + bytes(7)  # the trace began at 1
            data[4096 + 32 : 4096 + 64] = record
            path.write_bytes(data)
            with self.assertRaisesRegex(Failure, "a record is damaged"):
                list(traces.read(path))

    def test_an_allocation_of_nothing(self):
        """As RMM logs it."""
        path = self.temporary_folder() / "rmm.csv"
        path.write_text("Thread,Time,Action,Pointer,Size,Stream\n1,0,allocate,(nil),0,0\n")
        line = timeline.Timeline(1)
        line.read(traces.read(path), 4, 0)
        self.assertEqual([tier["requests"] for tier in line.tiers.values()], [1])


@unittest.skipIf(SANITIZE, "the replay finds no sanitizer's runtime")
class Replays(Traces):
    def setUp(self):
        self.library = Library(str(PRELOAD))
        os.environ["LD_LIBRARY_PATH"] = environment()["LD_LIBRARY_PATH"]

    def test_backends(self):
        """Every allocation and free is made again, by the calls that were asked for."""
        _, found = self.traced(*WORK)
        allocations = sum(call.allocates for call in found.calls)
        path = self.temporary_folder() / "t"
        trace_file.write(found, path)
        table = self.temporary_folder() / "t.csv"
        with open(table, "w", encoding="utf-8") as file:
            rmm_csv.write(found, file)
        for backend, counted in (("real", "cuMemAlloc_v2"), ("pool", "cuMemAlloc_v2"),
                                 ("async", "cuMemAllocAsync")):
            for order in ("start", "thread"):
                for source in (path, table):
                    with self.subTest(backend=backend, order=order, source=source.name):
                        report = self.temporary_folder() / "sim.txt"
                        os.environ["CMPSIM_REPORT"] = str(report)
                        self.addCleanup(os.environ.pop, "CMPSIM_REPORT", None)
                        result = replays.replay(source, self.library, backend, order)
                        self.assertEqual(result["threads"], 5)
                        self.assertEqual((result["failures"], result["skipped"]), (0, 0))
                        for name in ("allocations", "frees"):
                            latencies = result[name]
                            self.assertEqual(latencies["calls"], allocations)
                            self.assertLessEqual(latencies["p50_ns"], latencies["p99_ns"])
                            self.assertLessEqual(latencies["p99_ns"], latencies["max_ns"])
                            self.assertLessEqual(latencies["max_ns"], latencies["ns"])
                        calls = dict(re.findall(r"(cuMem\w+)\D+(\d+)", report.read_text()))
                        if backend == "pool":
                            self.assertLess(int(calls[counted]), allocations / 2)
                            self.assertGreater(result["hit_rate"], 0.5)
                        else:
                            self.assertEqual(int(calls[counted]), allocations)

    def test_order(self):
        """A replay under CMP_TRACE: threads, order, sizes and pairs are those of the trace."""
        def of_threads(calls):
            names, threads = {}, {}
            for call in sorted(calls, key=lambda call: call.moment):
                if call.allocates:
                    names[call.pointer] = (call.thread, len(threads.get(call.thread, ())))
                    threads.setdefault(call.thread, []).append(call.bytes)
                else:
                    threads.setdefault(call.thread, []).append(names.pop(call.pointer))
            # Thread ids differ from run to run; what a thread allocated tells which it is.
            ids = {thread: [item for item in items if isinstance(item, int)]
                   for thread, items in threads.items()}
            ids = {thread: i for i, thread in enumerate(sorted(ids, key=ids.get))}
            return sorted(str([(ids[item[0]], item[1]) if isinstance(item, tuple) else item
                               for item in items]) for items in threads.values())

        def of_all(calls):
            return [(c.allocates, c.bytes) for c in sorted(calls, key=lambda call: call.moment)]

        for args in ([1, 1000, 5], [4, 400, 1]):
            for order in ("start", "call", "thread"):
                with self.subTest(args=args, order=order):
                    folder = self.temporary_folder()
                    _, found = self.traced("work", args)
                    trace_file.write(found, folder / "t")
                    again = folder / "again"
                    done = subprocess.run(
                        [BUILD / "cmp-replay", "--order", order, folder / "t"],
                        env=environment(env={"CMP_TRACE": again}), capture_output=True, check=False)
                    self.assertEqual((done.returncode, done.stderr), (0, b""))
                    repeated = traces.read(again).calls
                    self.assert_consistent(repeated)
                    self.assertEqual(of_threads(repeated), of_threads(found.calls))
                    if order == "call":
                        self.assertEqual(of_all(repeated), of_all(found.calls))

    def test_frees_of_the_unknown(self):
        """Frees without an allocation, failed ones and double ones are left out; an address that
        comes again without a free was freed elsewhere."""
        steps = [("real", 0x1000), ("failed", 0), ("foreign_free", 0x9000), ("real", 0x1000),
                 ("pooled", 0x1000), ("double_free", 0x1000), ("thread_cache", 0x1000)]
        found = Trace([Call.of(i, 0, 1, outcome, pointer, 512)
                             for i, (outcome, pointer) in enumerate(steps)])
        path = self.temporary_folder() / "t"
        trace_file.write(found, path)
        result = replays.replay(path, self.library, "real")
        self.assertEqual((result["allocations"]["calls"], result["frees"]["calls"]), (3, 2))
        self.assertEqual((result["skipped"], result["failures"], result["peak_bytes"]), (3, 0, 512))

    def test_empty_trace(self):
        path = self.temporary_folder() / "t"
        trace_file.write(Trace([]), path)
        self.assertEqual(replays.replay(path, self.library, "real")["allocations"]["calls"], 0)

    def test_failures(self):
        calls = [Call.of(i, 0, 1, outcome, 0x1000, 1 << 40)
                 for i, outcome in enumerate(("real", "real_free"))]
        path = self.temporary_folder() / "t"
        trace_file.write(Trace(calls), path)
        result = replays.replay(path, self.library, "pool")
        self.assertEqual((result["failures"], result["peak_bytes"]), (1, 0))
        self.assertEqual(result["frees"]["calls"], 0)

    def test_devices(self):
        path = self.temporary_folder() / "t"
        call = Call.of(0, 0, 1, "real", 0x1000, 4096, device=1)
        trace_file.write(Trace([call]), path)
        done = subprocess.run(
            [BUILD / "cmp-replay", path], check=True, capture_output=True,
            env=environment(env={"CMPSIM_DEVICES": "2", "CMP_TRACE": path.with_name("again")}))
        self.assertEqual([c.device for c in traces.read(path.with_name("again")).calls], [1], done)

    def test_wrong_arguments(self):
        for arguments in ([], ["--backend", "other", "t"], ["--order", "none", "t"], ["t", "t"],
                          ["--else"]):
            done = subprocess.run([BUILD / "cmp-replay", *arguments], capture_output=True, check=False)
            self.assertEqual((done.returncode, done.stdout), (2, b""))


if __name__ == "__main__":
    main()
