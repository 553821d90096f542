"""README.md against the code: the option table, the files that it names, the counters' names."""

import pathlib
import re
import subprocess
import sys
import unittest

ROOT = pathlib.Path(sys.argv.pop(1))
PRINT_OPTIONS = sys.argv.pop(1)


class Readme(unittest.TestCase):
    def setUp(self):
        self.text = (ROOT / "README.md").read_text(encoding="utf-8")

    def test_option_table_is_the_one_in_the_code(self):
        table = subprocess.run([PRINT_OPTIONS], capture_output=True, text=True, check=True).stdout
        self.assertIn(table, self.text, "run print_options and paste what it prints")

    def test_files_named_exist(self):
        for path in re.findall(r"\]\(([^)#:]+)\)", self.text):
            self.assertTrue((ROOT / path).exists(), path)
        for path in re.findall(r"\b((?:core|shim|tests|scripts)/[\w/.-]+\w)\b", self.text):
            self.assertTrue((ROOT / path).exists(), path)


if __name__ == "__main__":
    unittest.main()
