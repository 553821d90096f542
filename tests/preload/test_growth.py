"""Streams, events, threads and the like come and go by the million: nothing is left of them, and the
last one costs what the first ones did.

Memory is the process's own, of the pool and the simulated CUDA together; the simulated CUDA alone is
run besides. By hand, with any number: LD_PRELOAD=libcmp_preload.so programs/growth streams 1000000
"""

import pathlib
import re
import shutil
import subprocess
import unittest

from preload import PRELOAD, TestCase, environment, main, numbers, program_path, run

# As many as take about half a second, and what else differs: the frees' mode, how late the device is;
# the last has the ageing thread beside it, which goes by the clock.
KINDS = {
    "streams": (60000, {}, {"CMP_FREE_SYNC": "none"}, {"CMPSIM_SEED": "2"}),
    "events": (50000, {}, {"CMPSIM_SEED": "2"}),
    "threads": (10000, {}),
    "page-locked": (30000, {}),
    "captures": (30000, {}, {"CMPSIM_SEED": "1"}),
    "modules": (50000, {}),
    "contexts": (10000, {}),
    "odd": (50000, {}, {"CMP_FREE_SYNC": "order"}),
}
# A leak of a few bytes an operation is more than that. Where work ends late, the most that ever waited
# at once still grows a little after a tenth of the run.
MOST_BYTES = 64 << 10
# What ageing released comes back at other addresses: a leaf of the side table each, of 64.5 KiB, for as
# many ranges of addresses as are in use at once (a run of eight million streams has two more).
MOST_BYTES_AGEING = MOST_BYTES + (2 * 66072)


class Growth(TestCase):
    def assert_nothing_left(self, result, kind, most_bytes=MOST_BYTES):
        self.assert_ok(result)
        self.assertEqual(result.results, f"{kind}: hazards 0, misuse 0\n")
        self.assertEqual(result.err, "")
        self.assertLess(int(result.notes["grew by"]), most_bytes, result)
        if kind != "contexts":  # which end with what is in them
            for objects in ("events", "streams"):  # of the driver's, those of the pool's own included
                first, last = numbers(result.notes[objects])
                self.assertLess(last, first + 3, result)

    def test_nothing_is_left(self):
        for kind, (count, *settings) in KINDS.items():
            with self.subTest(kind=kind):
                result = run("growth", [kind, count // 10], preload=False)
                self.assert_nothing_left(result, kind)
            quiet = [(env | {"CMP_DECAY": "off"}, MOST_BYTES) for env in settings]
            for env, most_bytes in [*quiet, (settings[-1], MOST_BYTES_AGEING)]:
                with self.subTest(kind=kind, env=env):
                    result = run("growth", [kind, count], env={"CMP_FREE_SYNC": "auto"} | env)
                    self.assert_nothing_left(result, kind, most_bytes)
                    first, last = numbers(result.notes["virtual time"])  # a microsecond a driver call
                    self.assertLess(last, first * 1.1, result)
                    self.assert_served(result, count // 4)
                    self.assertEqual(result.totals["live_block_bytes"], 0)
                    self.assertLess(result.process["reserved_peak_bytes"], 64 << 20)

    @unittest.skipIf(shutil.which("valgrind") is None, "counts with valgrind")
    def test_costs_stay_the_same(self):
        """In instructions of the preload."""
        for kind in KINDS:
            with self.subTest(kind=kind):
                first, last = self.count_instructions(kind, 500)
                self.assertGreater(first, 100000)
                self.assertLess(last, first * 1.05)

    def count_instructions(self, kind, count):
        folder = self.temporary_folder()
        env = {"CMP_DECAY": "off", "CMP_FREE_SYNC": "auto", "LD_BIND_NOW": "1"}
        finished = subprocess.run(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/profile",
             "--dump-before=look_*", "--dump-line=no", "--compress-strings=no", "--compress-pos=no",
             program_path("growth"), kind, str(count)],
            env=environment(True, env), capture_output=True, text=True, timeout=120, check=False,
        )
        self.assertEqual(finished.returncode, 0, finished.stderr)
        return [self.instructions_in(pathlib.Path(folder, f"profile.{part}")) for part in (2, 4)]

    def instructions_in(self, profile):
        """Executed in the preload's own code from look_begins to look_ends."""
        count = 0
        inside = of_call = False
        text = profile.read_text()
        self.assertIn("look_ends", text.partition("Trigger")[2][:60])
        for line in text.splitlines():
            if line.startswith("ob="):
                inside = line == f"ob={PRELOAD}"
            elif line.startswith("calls="):
                of_call = True  # the next line is what a callee cost
            elif re.match(r"[\d+*-]", line):
                count += int(line.split()[1]) if inside and not of_call else 0
                of_call = False
        return count


if __name__ == "__main__":
    main()
