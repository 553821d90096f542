"""Files of CMP_STATS and CMP_TRACE that others truncate or remove while the program runs: it never
notices, and what can still be told is told."""

import json
import os
import sys
import time

from preload import SANITIZE, SOURCE, TestCase, main, start

sys.path.insert(0, str(SOURCE / "scripts"))
from cmp_preload.records import traces  # noqa: E402

PAIRS_A_LINE = 2 * 200  # of two threads


class Truncated(TestCase):
    def setUp(self):
        self.place = self.temporary_folder()
        env = {"CMP_STATS": str(self.place / "stats"), "CMP_TRACE": str(self.place / "trace")}
        self.process = start("endings", ["lines"], env=env, stdin=-1)
        self.addCleanup(self.process.communicate)
        self.addCleanup(self.process.kill)
        self.assertEqual(self.process.stdout.readline(), b"used CUDA\n")

    def calls(self):
        """The program makes some more calls."""
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        self.assertEqual(self.process.stdout.readline(), b"done\n", "it was killed")

    def written(self, path, size):
        """Waits until the file is that long."""
        while path.stat().st_size < size:
            self.assertIsNone(self.process.poll())
            time.sleep(0.01)

    def end(self, errors=b""):
        _, said = self.process.communicate(timeout=60)
        self.assertEqual((self.process.returncode, said), (0, errors))

    def report(self):
        return json.loads((self.place / "stats").read_text())

    def test_to_every_length(self):
        live, trace = self.place / "stats.live", self.place / "trace"
        lines = 0
        for length in (0, 1, 100, 4096, 4096 + 100, 8192):
            for _ in range(2 if SANITIZE else 6):
                self.calls()
                lines += 1
                for path in (live, trace):
                    os.truncate(path, min(length, path.stat().st_size))
                self.calls()
                lines += 1
        whole = live.stat().st_size
        os.truncate(live, 0)
        self.written(live, max(whole, 12288))  # by itself, without a call of the program's
        self.assertEqual(live.read_bytes()[:8], b"CMPSTAT\0")
        self.calls()
        lines += 1
        self.end()
        self.assertGreaterEqual(self.report()["totals"]["requests"], PAIRS_A_LINE * lines)
        found = traces.read(trace)
        self.assertTrue(found.ended)
        self.assertGreaterEqual(len(found.calls), PAIRS_A_LINE, "of the last line all but a chunk's")

    def test_removed(self):
        self.calls()
        for path in self.place.iterdir():
            path.unlink()
        self.calls()
        self.end()
        self.assertEqual([path.name for path in self.place.iterdir()], ["stats"])
        self.assertGreaterEqual(self.report()["totals"]["requests"], 2 * PAIRS_A_LINE)

    def test_replaced(self):
        """What stands under their names then is not ours, and stays as it is."""
        self.calls()
        for path in self.place.iterdir():
            path.unlink()
            path.write_text("precious")
        self.calls()
        self.end()
        for name in ("stats.live", "trace"):
            self.assertEqual((self.place / name).read_text(), "precious")

    def test_the_folder_goes(self):
        self.calls()
        for path in self.place.iterdir():
            path.unlink()
        self.place.rmdir()
        self.calls()
        _, said = self.process.communicate(timeout=60)
        self.assertEqual(self.process.returncode, 0)
        self.assertRegex(said.decode(), r"^cmp: cannot write statistics to [^\n]*\n$")
        self.place.mkdir()  # for the cleanup


if __name__ == "__main__":
    main()
