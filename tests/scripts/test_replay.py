"""cmp-preload replay: what it plays and says. The trace and the replay themselves are tested in
tests/preload/test_trace.py."""

import json
import re
import shutil
import subprocess
import sys

from command import BUILD, PLAIN, SOURCE, TestCase, environment, main, run
from cmp_preload.diagnosis.driver import SIMULATED as SIMULATED_SAYS

SIMULATED = {"CMPSIM_COSTS": "h200"}


class Replays(TestCase):
    def traced(self, *command):
        """What `run --trace` leaves."""
        path = self.folder() / "trace"
        self.assert_ok(run("run", "--trace", path, "--", *command))
        return path

    def test_table(self):
        result = run("replay", self.traced(PLAIN, "2000"), env=SIMULATED)
        self.assert_ok(result)
        self.assertEqual(result.stderr, "")
        head, *rows, last = result.stdout.splitlines()
        self.assertEqual(last, SIMULATED_SAYS)
        self.assertEqual(re.split(r"  +", head.strip())[:2], ["wall time", "in calls"])
        self.assertEqual(
            [re.split(r"  +", row)[0] for row in rows],
            [
                "cuMemAlloc and cuMemFree",
                "the same, under the pool",
                "cuMemAllocAsync, memory kept",
            ],
        )

    def test_json_and_settings(self):
        path = self.traced(PLAIN, "2000")
        result = run("replay", "--json", "--thread-cache-bytes", "0", path)
        self.assert_ok(result)
        real, pool, asynchronous = map(json.loads, result.stdout.splitlines())
        for one in (real, pool, asynchronous):
            self.assertEqual(one["allocations"]["calls"], 2000)
        self.assertEqual(pool["settings"], {"CMP_THREAD_CACHE_BYTES": "0"})
        self.assertGreater(pool["hit_rate"], 0.9)
        self.assertEqual((real["preload"], asynchronous["preload"]), ("", ""))
        # What is set outside is neither the pool's nor the real calls'.
        result = run(
            "replay",
            "--json",
            "--backend",
            "pool",
            path,
            env={"CMP_MAX_BLOCK": "256", "LD_PRELOAD": BUILD / "libcmp_preload.so"},
        )
        self.assertGreater(json.loads(result.stdout)["hit_rate"], 0.9)

    def test_csv(self):
        path = self.traced(PLAIN, "100")
        table = self.folder() / "rmm.csv"
        self.assert_ok(run("replay", "--csv", table, path))
        lines = table.read_text().splitlines()
        self.assertEqual(lines[0], "Thread,Time,Action,Pointer,Size,Stream")
        self.assertEqual(len(lines), 201)
        self.assertEqual(run("replay", "--csv", "-", path).stdout, table.read_text())
        result = run("replay", "--json", "--backend", "real", table)
        self.assertEqual(json.loads(result.stdout)["frees"]["calls"], 100)

    def test_wrong(self):
        path = self.traced(PLAIN, "5")
        cut = self.folder() / "cut"
        cut.write_bytes(path.read_bytes()[:100])
        for arguments, word, code in (
            ([], "which trace", 2),
            (["--backnd", "pool", path], "--backend", 2),
            (["--backend", "other", path], "other", 2),
            (["--tier-steps", "7", path], "--tier-steps", 2),
            ([path, "more"], "more", 2),
            (["/nowhere"], "/nowhere: No such file", 1),
            ([SOURCE / "README.md"], "neither a trace nor a CSV", 1),
            ([cut], "cut off", 1),
            (["--csv", "/nowhere/t.csv", path], "/nowhere/t.csv: No such file", 1),
            (["--csv", self.folder(), path], "Is a directory", 1),
        ):
            with self.subTest(arguments=arguments):
                self.assert_refused(run("replay", *arguments), word, code=code)
        # Without a driver the replay cannot run; one line says so.
        result = run("replay", path, env={"LD_LIBRARY_PATH": None, "CUDA_VISIBLE_DEVICES": "-1"})
        self.assert_refused(result, "cmp-replay: ", code=1)

    def test_installed(self):
        """bin, lib and share/cmp: what is needed is found, from anywhere."""
        path = self.traced(PLAIN, "5")
        for library_folder in ("lib", "lib64", "lib/x86_64-linux-gnu"):
            place = self.folder()
            (place / "bin").mkdir()
            (place / library_folder).mkdir(parents=True)
            shutil.copy(SOURCE / "scripts" / "cmp-preload", place / "bin")
            shutil.copy(BUILD / "cmp-replay", place / "bin")
            shutil.copy(BUILD / "libcmp_preload.so", place / library_folder)
            shutil.copytree(SOURCE / "scripts" / "cmp_preload", place / "share/cmp/cmp_preload")
            done = subprocess.run(
                [sys.executable, place / "bin" / "cmp-preload", "replay", path],
                env=environment(),
                cwd="/",
                capture_output=True,
                check=False,
            )
            self.assertEqual((done.returncode, done.stderr), (0, b""), library_folder)
            (place / "bin" / "cmp-replay").unlink()
            done = subprocess.run(
                [sys.executable, place / "bin" / "cmp-preload", "tune", PLAIN, "5"],
                env=environment(),
                capture_output=True,
                check=False,
            )
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, rb"^cmp-preload: \S*cmp-replay is not there[^\n]*\n$")


if __name__ == "__main__":
    main()
