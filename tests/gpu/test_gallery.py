"""gallery.py with stand-ins for its programs, on the simulated CUDA: rows, table, document; not its times."""

import contextlib
import io
import json
import os
import pathlib
import sys
import tempfile
import unittest
import unittest.mock

import gallery
import programs
from gallery import Program

PLAIN = [str(programs.BUILD / "programs" / "plain"), "400"]  # pairs of cudaMalloc and cudaFree
STAND_INS = [
    Program("is served", "json", PLAIN, compiles=False),
    Program("calls nothing", "json", ["true"]),
    Program("is not there", "no_such_package", ["true"]),
    Program("cannot start", "json", ["/no/such/program"]),
    Program("fails", "json", ["sh", "-c", "echo 'it | broke' >&2; exit 3"]),
    Program("differs", "json", ["sh", "-c", f"{PLAIN[0]} 4; echo $CMP_MODE"]),
    Program("stays", "json", ["sleep", "1000"]),
]


class Runs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.found, cls.printed = cls.gallery("is served,calls,is not,cannot,fails,differs", 600)

    @staticmethod
    def gallery(only, limit):
        printed = io.StringIO()
        with tempfile.TemporaryDirectory() as folder:
            output = pathlib.Path(folder, "out.json")
            arguments = ["gallery.py", "--simulated", "--commit", "1234567", "--only", only, "--limit",
                         str(limit), "--output", str(output)]
            with (unittest.mock.patch.object(sys, "argv", arguments), contextlib.redirect_stdout(printed),
                  contextlib.redirect_stderr(io.StringIO()),
                  unittest.mock.patch.object(gallery, "MOST_ROUNDS", 1)):
                assert gallery.main(STAND_INS) == 0
            return json.loads(output.read_text(encoding="utf-8")), printed.getvalue()

    def row(self, name):
        (found,) = [row for row in self.found["rows"] if row["name"] == name]
        return found

    def test_a_program_that_is_served(self):
        row = self.row("is served")
        self.assertNotIn("missing", row)
        self.assertEqual((row["rounds"], row["code"], row["same"]), (1, 0, True))
        cells = dict(zip(gallery.COLUMNS, gallery.cells(row)))
        self.assertEqual(cells["results"], "the same")
        self.assertEqual(cells["gain"], "too few runs")
        self.assertEqual(cells["allocations"], "400")
        self.assertRegex(cells["without a real call"], r"^\d+\.\d%$")
        self.assertRegex(cells["peak (the program's own)"], r"^\d+ MiB \(\d+ MiB\)$")

    def test_a_program_that_calls_nothing(self):
        cells = dict(zip(gallery.COLUMNS, gallery.cells(self.row("calls nothing"))))
        self.assertEqual((cells["gain"], cells["results"]), ("none: not served", "the same"))

    def test_other_results_are_told(self):
        row = self.row("differs")
        self.assertEqual((row["same"], row["code"]), (False, 1))
        self.assertEqual(gallery.cells(row)[-1], "DIFFERENT")

    def test_one_that_fails_is_a_row_with_the_reason(self):
        self.assertEqual(self.row("is not there")["missing"], "there is no package no_such_package")
        self.assertIn("/no/such/program", self.row("cannot start")["missing"])
        self.assertRegex(self.row("fails")["missing"], "without the pool: exit code 3: it . broke")

    def test_one_that_stays_is_ended(self):
        found, _ = self.gallery("stays", 0.5)
        self.assertEqual(found["rows"][0]["missing"], "without the pool: took too long: no word")
        found, _ = self.gallery("calls", 0)
        self.assertEqual(found["rows"][0]["missing"], "no time was left")

    def test_the_table_has_all(self):
        lines = gallery.table(self.found)
        self.assertEqual(len(lines), 2 + len(self.found["rows"]))
        self.assertEqual({line.count("|") for line in lines}, {len(gallery.COLUMNS) + 1})
        for line in lines:
            self.assertIn(line, self.printed)
        self.assertIn("commit 1234567", self.printed)

    def test_the_document_gets_it(self):
        page = gallery.DOCUMENT.read_text(encoding="utf-8")
        once = gallery.document(page, self.found)
        self.assertIn(gallery.table(self.found)[2], once)
        self.assertEqual(gallery.document(once, self.found), once)
        self.assertEqual(once.split(gallery.BEGIN)[0], page.split(gallery.BEGIN)[0])
        self.assertEqual(once.split(gallery.END)[1], page.split(gallery.END)[1])
        with self.assertRaises(ValueError):
            gallery.document("no place", self.found)


class Words(unittest.TestCase):
    def test_several_runs_are_one(self):
        first = {"commit": "1", "seconds": 2.0, "rows": [{"name": "a", "missing": "x"}, {"name": "b"}]}
        second = {"commit": "1", "seconds": 3.0, "rows": [{"name": "a"}, {"name": "c"}]}
        self.assertEqual(gallery.together([first, second]),
                         {"commit": "1", "seconds": 5.0, "rows": [{"name": name} for name in "abc"]})

    def test_no_place_of_a_machine_is_told(self):
        line = f"Recommended: {programs.BUILD}/cmp-preload run -- {sys.executable} {gallery.FOLDER}/x.py"
        self.assertEqual(gallery.as_typed(line),
                         "Recommended: cmp-preload run -- python3 tests/gpu/gallery/x.py")

    def test_rounds_fit_into_the_time(self):
        self.assertEqual(gallery.rounds_that_fit(1000, 1, 3), gallery.MOST_ROUNDS)
        self.assertEqual(gallery.rounds_that_fit(30, 2, 4), 3)
        self.assertEqual(gallery.rounds_that_fit(1, 10, 5), 1)

    def test_gains(self):
        self.assertEqual(gallery.gain({"same": False, "gain": None}), "")
        for outcome, ratio, words in (("faster", 1.234, "1.23x"), ("slower", 0.5, "0.50x"),
                                      ("alike", 1.0, "none"), ("more", None, "too few runs")):
            found = {"same": True, "gain": {"outcome": outcome, "ratio": ratio}, "verdict": []}
            self.assertEqual(gallery.gain(found), words)
        found["verdict"] = ["No faster with auto.", "Nothing to gain: its 20 allocations took 1 ms."]
        self.assertEqual(gallery.gain(found), "nothing to gain")
        self.assertEqual(gallery.gain({"same": True, "gain": None}), "none: not served")

    def test_commands_are_those_of_the_document(self):
        page = gallery.DOCUMENT.read_text(encoding="utf-8")
        for program in gallery.PROGRAMS:
            with self.subTest(program=program.name):
                self.assertIn(gallery.typed(program), page)
                for wheel in program.wheels.split():
                    self.assertIn(wheel, page)

    def test_its_programs_are_there(self):
        for program in gallery.PROGRAMS:
            for word in program.command:
                if os.sep in word:
                    compile(pathlib.Path(word).read_text(encoding="utf-8"), word, "exec")


if __name__ == "__main__":
    unittest.main()
