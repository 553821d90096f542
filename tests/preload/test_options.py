"""Every option: what is right, wrong or misspelled, and what it does."""

import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys

from preload import BUILD, PROGRAMS, SOURCE, TestCase, environment, main, run

RESULTS = "failed 0, last error 0\n"

# name: (right values, wrong values)
OPTIONS = {
    "CMP_MODE": (["pool", "observe", "off", "POOL", "Off"], ["on", "1", "pool "]),
    "CMP_PROGRAMS": (["all", "plain", "*", "!nothing", "a,b,plain"], []),
    "CMP_MAX_BLOCK": (["auto", "256", "64K", "1G", "1GiB", "1.5M", "2g", "AUTO"], ["0", "255", "4096.5", "x", "-1", "1X", "1M1"]),
    "CMP_TIER_STEPS": (["1", "2", "4", "8", "16"], ["0", "3", "32", "four", "4.5"]),
    "CMP_THREAD_CACHE_MAX_BLOCK": (["0", "1", "1M", "2097151"], ["2M", "1G", "?"]),
    "CMP_THREAD_CACHE_BYTES": (["0", "16M", "1T"], ["16MM", "lots", "1e9"]),
    "CMP_BATCH_BYTES": (["1", "2M"], ["0", "-2M"]),
    "CMP_SLACK": (["0%", "12.5%", "100%"], ["12.5", "101%", "%", "ten%"]),
    "CMP_RESERVE": (["auto", "Auto", "1X", "1x", "1.15x+256M", "512M", "2x+0"], ["0.5x", "x", "2x+", "2x-1", "+1M"]),
    "CMP_DECAY": (["10s", "0.5", "500ms", "oncall", "oncall:1s", "off", "10S", "OnCall:50MS"],
                  ["0", "-1s", "1h", "ms", "oncall:", "on"]),
    "CMP_ASYNC_KEEP": (["auto", "OFF", "0", "64M", "1T"], ["on", "1x", "-1", "10%"]),
    "CMP_FREE_SYNC": (["wait", "WAIT"], ["none of these", "waits"]),
    "CMP_HOST": (["off", "0", "on", "1", "64M", "1g"], ["auto", "64X", "-1", "10%"]),
    "CMP_FILL": (["off", "zero", "ZERO", "0", "171", "0xAB", "0xff", "255"], ["256", "0x", "0x100", "on"]),
    "CMP_STATS": (["0", "off", "OFF", "No"], []),
    "CMP_TRACE": (["0", "off", "no", "false"], []),
    # (One that does nothing says so in other words than one that does not parse.)
    "CMP_SHAKE": (["off", "0", "no", "record", "RECORD"], ["0.5", "-1", "sometimes"]),
    "CMP_SHAKE_SITES": (["/nowhere/sites"], ["1", "17", "yes"]),
    "CMP_SHAKE_REPORT": (["/nowhere/report"], ["1", "17", "yes"]),
    "CMP_VERBOSE": (["0", "off", "NO", "false"], ["2", "very"]),
}


def run_plain(env, pairs=100, **more):
    return run("plain", [pairs], env=env, **more)


class Values(TestCase):
    def test_every_option_is_here(self):
        text = (SOURCE / "core" / "base" / "options.cpp").read_text(encoding="utf-8")
        self.assertEqual(set(OPTIONS), set(re.findall(r'^    \{"(CMP_\w+)"', text, re.M)))

    def test_right_values(self):
        for name, (right, _) in OPTIONS.items():
            for value in [*right, ""]:
                with self.subTest(option=name, value=value):
                    result = run_plain({"CMP_STATS": "off"} | {name: value})
                    self.assert_ok(result)
                    self.assertEqual((result.out, result.err), (RESULTS, ""))

    def test_wrong_values(self):
        """One line that names option and value, and the default is used."""
        for name, (_, wrong) in OPTIONS.items():
            for value in wrong:
                with self.subTest(option=name, value=value):
                    result = run_plain({name: value})
                    self.assert_ok(result)
                    self.assertEqual(result.out, RESULTS)
                    self.assertEqual(len(result.err.splitlines()), 1, result.err)
                    self.assertTrue(result.err.startswith("cmp: "), result.err)
                    self.assertIn(f"{name}={value}", result.err)
                    self.assertEqual(result.stats["mode"], "pool")
                    self.assertGreater(result.hits, 90)

    def test_several_wrong_values(self):
        result = run_plain({"CMP_MODE": "x", "CMP_SLACK": "y", "CMP_FILL": "z"})
        self.assertEqual(len(result.err.splitlines()), 3, result.err)

    def test_long_value(self):
        result = run_plain({"CMP_MODE": "x" * 100000})
        self.assert_ok(result)
        self.assertEqual(len(result.err.splitlines()), 1)
        self.assertLess(len(result.err), 600)

    def test_misspelled_names(self):
        for name, meant in (
            ("CMP_MOD", "CMP_MODE"),
            ("CMP_MAXBLOCK", "CMP_MAX_BLOCK"),
            ("CMP_STAT", "CMP_STATS"),
            ("CMP_THREAD_CACHE_BYTE", "CMP_THREAD_CACHE_BYTES"),
            ("CMP_FREESYNC", "CMP_FREE_SYNC"),
            ("CMP_TIERSTEPS", "CMP_TIER_STEPS"),
            ("CMP_MAX_BLOCK_SIZE", "CMP_MAX_BLOCK"),
            ("CMP_THREAD_CACHE", "CMP_THREAD_CACHE_MAX_BLOCK or CMP_THREAD_CACHE_BYTES"),
        ):
            with self.subTest(name=name):
                result = run_plain({name: "1"})
                self.assert_ok(result)
                self.assertEqual(len(result.err.splitlines()), 1, result.err)
                self.assertEqual(result.err,
                                 f"cmp: unknown option {name}; did you mean {meant}?\n")
        result = run_plain({"CMP_ENABLED": "1"})
        self.assertEqual(result.err,
                         "cmp: unknown option CMP_ENABLED; use CMP_MODE=pool or CMP_MODE=off\n")

    def test_names_of_others(self):
        for name in ("CMP_", "CMP_HOME_FOLDER_OF_ANOTHER_TOOL", "CMPX_MODE", "cmp_mode", "CMP_X" * 50):
            with self.subTest(name=name):
                self.assertEqual(run_plain({name: "1"}).err, "")

    def test_once_per_process(self):
        """Threads, and many calls: still one line."""
        result = run("work", [4, 50, 1], env={"CMP_MODE": "nonsense"})
        self.assertEqual(len(result.err.splitlines()), 1, result.err)


class Modes(TestCase):
    def test_modes(self):
        pool, observe, off = (run_plain({"CMP_MODE": mode}) for mode in ("pool", "observe", "off"))
        for result in (pool, observe, off):
            self.assert_ok(result)
            self.assertEqual((result.out, result.err), (RESULTS, ""))
        self.assertGreater(pool.hits, 90)
        self.assertLess(pool.process["real_malloc_calls"], 10)
        self.assertEqual(observe.stats["mode"], "observe")
        self.assertEqual(observe.hits, 0)
        self.assertEqual(observe.totals["requests"], 100)
        self.assertEqual(observe.process["real_malloc_calls"], 100)
        self.assertEqual(observe.process["real_free_calls"], 100)
        self.assertEqual(observe.process["foreign_frees"], 0)
        if off.stats is not None:
            self.assertEqual(off.hits, 0)

    def test_programs(self):
        for globs, served in (
            ("plain", True),
            ("pl*", True),
            ("other,plain", True),
            ("other", False),
            ("!plain", False),
            ("!pl*", False),
            ("!other", True),
            ("*,!plain", False),
            ("!plain,*", False),
            ("all,!other", True),
            ("?lain", True),
            ("lain", False),
        ):
            with self.subTest(globs=globs):
                result = run_plain({"CMP_PROGRAMS": globs, "CMP_VERBOSE": "1"})
                self.assert_ok(result)
                self.assertEqual(result.out, RESULTS)
                if served:
                    self.assertGreater(result.hits, 90)
                    self.assertEqual(len(result.err.splitlines()), 1)
                else:
                    self.assertIs(result.stats["reached"], False)
                    self.assertEqual(result.stats["reason"], "CMP_PROGRAMS leaves it out")
                    self.assertEqual(
                        result.err, "cmp: CMP_PROGRAMS leaves this program out: every call is real\n")
                    quiet = run_plain({"CMP_PROGRAMS": globs})
                    self.assertEqual(quiet.err, "")

    def test_scripts(self):
        """An interpreter is known by its script, too."""
        folder = self.temporary_folder()
        code = ("import ctypes\n"
                "cudart = ctypes.CDLL('libcudart.so.13')\n"
                "pointer = ctypes.c_void_p()\n"
                "for _ in range(100):\n"
                "    cudart.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(4096))\n"
                "    cudart.cudaFree(pointer)\n")
        (folder / "app").mkdir()
        for name in ("train.py", "app/train.py"):
            (folder / name).write_text(code)
        script = folder / "tool"
        script.write_text(f"#!{sys.executable}\n{code}")
        script.chmod(0o755)
        python = sys.executable
        for globs, command, served in (
            ("train*", [python, "train.py"], True),
            ("train.py", [python, "-u", "-W", "ignore", "-Xdev", folder / "train.py", "x"], True),
            ("python*", [python, "train.py"], True),
            ("other*", [python, "train.py"], False),
            ("!train*", [python, "train.py"], False),
            ("python*,!train*", [python, "train.py"], False),
            ("app.train", [python, "-m", "app.train"], True),
            ("app.*", [python, "-mapp.train"], True),
            ("train*", [python, "-m", "app.train"], False),
            ("tool", [script], True),
            ("!tool", [script], False),
            ("train*", [python, "-c", code, "train.py"], False),
        ):
            with self.subTest(globs=globs, command=command):
                env = {"CMP_PROGRAMS": globs, "CMP_STATS": "1"}
                result = run(command[0], command[1:], env=env, cwd=folder)
                self.assert_ok(result)
                if served:
                    self.assertIn("100 allocations", result.err)
                else:
                    self.assertRegex(result.err, r"^cmp: \S+ \(pid \d+\) used CUDA, but the pool "
                                     r"served nothing: CMP_PROGRAMS leaves it out\n$")

    def test_verbose(self):
        result = run_plain({"CMP_VERBOSE": "1"})
        self.assertEqual(len(result.err.splitlines()), 1, result.err)
        for word in ("cmp: ", result.stats["version"], "plain", str(result.stats["pid"]), "13."):
            self.assertIn(word, result.err)

    def test_fill(self):
        for value, byte in (("zero", "00"), ("0", "00"), ("171", "ab"), ("0xC3", "c3")):
            for env in ({}, {"CMP_MAX_BLOCK": "64K"}):
                with self.subTest(value=value, env=env):
                    result = run("contents", env={"CMP_FILL": value} | env)
                    self.assert_ok(result)
                    self.assertEqual(result.out.count(f"from {byte} to {byte}"), 15, result.out)
                    self.assertIn("hazards 0", result.out)
                    self.assertGreater(result.hits, 5)
        # Without it a recycled block holds old data: the test above can fail.
        self.assertIn("from 5a to 5a", run("contents").out)


class Statistics(TestCase):
    def test_summary(self):
        result = run_plain({"CMP_STATS": "1"})
        self.assert_ok(result)
        self.assertEqual(result.out, RESULTS)
        lines = result.err.splitlines()
        self.assertGreater(len(lines), 3)
        for line in lines:
            self.assertTrue(line.startswith("cmp: "), line)
        self.assertIn("100 allocations", lines[0])

    def test_every_wait_in_the_summary_has_a_reason(self):
        """Under auto: what the host could notice, and the bound, which this program runs into."""
        env = {"CMP_STATS": "1", "CMP_FREE_SYNC": "auto", "CMP_RESERVE": "1x"}
        said = run(BUILD / "churn", [2, 300], env=env).err
        waited = re.search(r"frees that waited for the GPU: (\d+), .*\n((?:cmp:     \d+ .*\n)*)", said)
        reasons = re.findall(r"^cmp:     (\d+) (.*)", waited[2], re.M)
        self.assertEqual(sum(int(count) for count, _ in reasons), int(waited[1]), said)
        self.assertIn("to keep the bound of CMP_RESERVE", said)

    def test_json(self):
        result = run_plain({})
        stats = result.stats
        self.assertEqual(stats["cmp_statistics"], 1)
        self.assertEqual(stats["program"], "plain")
        self.assertEqual(stats["mode"], "pool")
        self.assertIs(stats["reached"], True)
        self.assertEqual(stats["totals"]["requests"], 100)
        self.assertEqual(stats["totals"]["requested_bytes"], 409600)
        self.assertEqual(sum(tier["requests"] for tier in stats["tiers"]), 100)
        self.assertEqual([tier["bytes"] for tier in stats["tiers"]], [4096])
        self.assertGreater(stats["process"]["real_malloc_ns"], 0)
        self.assert_served(result, 90)

    def test_program_name_in_json(self):
        folder = self.temporary_folder()
        odd = folder / 'a "b\\c'
        os.symlink(PROGRAMS / "plain", odd)
        result = run(odd, [10])
        self.assert_ok(result)
        self.assertEqual(result.stats["program"], odd.name)

    def written(self, pattern, env=None, folder=None):
        folder = folder or self.temporary_folder()
        result = run_plain({"CMP_STATS": str(folder / pattern)} | (env or {}))
        self.assert_ok(result)
        self.assertEqual(result.out, RESULTS)
        return folder, result

    def test_file_names(self):
        host = socket.gethostname()
        for pattern, env, expected in (
            ("a.json", {}, "a.json"),
            ("a-%h-%r.json", {}, f"a-{host}-0.json"),
            ("a-%r", {"RANK": "7"}, "a-7"),
            ("a-%r", {"RANK": "7", "OMPI_COMM_WORLD_RANK": "3"}, "a-3"),
            ("a-%r", {"SLURM_PROCID": "12"}, "a-12"),
            ("100%%", {}, "100%"),
            ("a%x%", {}, "a%x%"),
        ):
            with self.subTest(pattern=pattern):
                folder, result = self.written(pattern, env)
                self.assertEqual([p.name for p in folder.iterdir()], [expected], result.err)
                self.assertEqual(result.err, "")
        folder, _ = self.written("a-%p.json")
        (path,) = folder.iterdir()
        report = json.loads(path.read_text())
        self.assertEqual(path.name, f"a-{report['pid']}.json")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)

    def assert_one_warning(self, result):
        self.assertEqual(len(result.err.splitlines()), 1, result.err)
        self.assertTrue(result.err.startswith("cmp: "), result.err)

    def test_missing_folder(self):
        folder = self.temporary_folder()
        _, result = self.written("missing/a.json", folder=folder)
        self.assert_one_warning(result)
        self.assertEqual(list(folder.iterdir()), [])

    def test_unwritable_folder(self):
        if os.geteuid() == 0:
            folder = "/proc"  # root may write elsewhere
        else:
            folder = str(self.temporary_folder())
            os.chmod(folder, 0o500)
        result = run_plain({"CMP_STATS": folder + "/a.json"})
        self.assert_ok(result)
        self.assertEqual(result.out, RESULTS)
        self.assert_one_warning(result)

    def test_full_filesystem(self):
        """With room for the report but not for the live counters, and with room for neither."""
        folder = self.temporary_folder()
        own = ["unshare", "-rm", "sh", "-c"]
        mount = f"mount -t tmpfs -o size=4k none {folder}"
        if not shutil.which("unshare") or subprocess.run([*own, mount], check=False).returncode:
            self.skipTest("no filesystem of our own can be mounted here")
        for used in (0, 1):
            with self.subTest(used=used):
                fill = f"head -c {used} /dev/zero > {folder}/used" if used else "true"
                script = f'{mount} && {fill} && exec "$0" "$@"'
                arguments = [*own[1:], script, PROGRAMS / "plain", "100"]
                env = {"CMP_STATS": str(folder / "a.json")}
                result = run(shutil.which("unshare"), arguments, env=env)
                self.assert_ok(result)
                self.assertEqual(result.out, RESULTS)
                self.assert_one_warning(result)

    def test_limited_file_size(self):
        """`ulimit -f`, from the beginning and from shortly before the end."""
        for way in ("file-limit", "late-file-limit"):
            for limit in (0, 512):
                with self.subTest(way=way, limit=limit):
                    folder = self.temporary_folder()
                    env = {"CMP_STATS": str(folder / "a.json")}
                    result = run("endings", [way, limit], env=env)
                    self.assert_ok(result)
                    self.assertEqual(result.out, "used CUDA\n")
                    self.assert_one_warning(result)

    def test_summary_into_a_limited_file(self):
        with open(self.temporary_folder() / "stderr", "wb") as stderr:
            finished = subprocess.run(
                [PROGRAMS / "endings", "late-file-limit", "0"],
                env=environment(env={"CMP_STATS": "1"}),
                stdout=subprocess.PIPE,
                stderr=stderr,
                check=False,
            )
        self.assertEqual((finished.returncode, finished.stdout), (0, b"used CUDA\n"))

    def test_nobody_reads_the_summary(self):
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "wb") as closed, open("/dev/full", "wb") as full:
            for stderr in (closed, full):
                finished = subprocess.run(
                    [PROGRAMS / "plain", "100"],
                    env=environment(env={"CMP_STATS": "1"}),
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    check=False,
                )
                self.assertEqual((finished.returncode, finished.stdout.decode()), (0, RESULTS))

    def test_own_report_is_replaced(self):
        folder, _ = self.written("a.json")
        first = (folder / "a.json").read_text()
        _, result = self.written("a.json", folder=folder)
        self.assertEqual(result.err, "")
        self.assertNotEqual(first, (folder / "a.json").read_text())
        self.assertEqual([p.name for p in folder.iterdir()], ["a.json"])

    def test_foreign_files_stay(self):
        for name in ("a.json", "a.json.live", "a.json.new"):
            for content in ("precious", '{"cmp": 1}', "CMPSTA", ""):
                with self.subTest(name=name, content=content):
                    folder = self.temporary_folder()
                    (folder / name).write_text(content)
                    _, result = self.written("a.json", folder=folder)
                    self.assertEqual((folder / name).read_text(), content)
                    self.assert_one_warning(result)
                    if name == "a.json":  # there will be no report: nothing else is begun
                        self.assertEqual([path.name for path in folder.iterdir()], [name])

    def test_links_stay(self):
        for name in ("a.json", "a.json.live", "a.json.new"):
            for target_exists in (True, False):
                with self.subTest(name=name, target_exists=target_exists):
                    folder = self.temporary_folder()
                    elsewhere = self.temporary_folder() / "target"
                    if target_exists:
                        elsewhere.write_text("precious")
                    (folder / name).symlink_to(elsewhere)
                    _, result = self.written("a.json", folder=folder)
                    self.assertTrue((folder / name).is_symlink())
                    self.assertEqual(elsewhere.exists(), target_exists)
                    if target_exists:
                        self.assertEqual(elsewhere.read_text(), "precious")
                    self.assert_one_warning(result)

    def test_odd_targets(self):
        folder = self.temporary_folder()
        (folder / "folder").mkdir()
        _, result = self.written("folder", folder=folder)
        self.assert_one_warning(result)
        os.mkfifo(folder / "pipe")
        _, result = self.written("pipe", folder=folder)
        self.assert_one_warning(result)
        _, result = self.written("x" * 300, folder=folder)
        self.assert_one_warning(result)
        result = run_plain({"CMP_STATS": "/" + "x/" * 2000})
        self.assert_ok(result)
        self.assertEqual(result.out, RESULTS)
        self.assert_one_warning(result)


if __name__ == "__main__":
    main()
