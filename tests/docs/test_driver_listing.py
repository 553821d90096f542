"""What scripts/generate-driver-table --list prints, against what was decided."""

import pathlib
import re
import subprocess
import sys
import unittest

ROOT = pathlib.Path(sys.argv.pop(1))
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "scripts"))

from driver_table import declarations, effects  # noqa: E402

GENERATOR = ROOT / "scripts" / "generate-driver-table"


class Listing(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        done = subprocess.run(
            [sys.executable, GENERATOR, "--list"], capture_output=True, text=True, check=True
        )
        cls.head, *paragraphs = done.stdout.rstrip("\n").split("\n\n")
        cls.legend, cls.paragraphs = paragraphs[0].splitlines(), paragraphs[1:]

    def test_which_headers(self):
        versions, _ = declarations.read()
        self.assertEqual(self.head, f"The functions of CUDA {versions[0]} to {versions[-1]}")

    def test_every_effect_is_explained(self):
        explained = [f"  {effect}: {meaning}" for effect, meaning in effects.MEANINGS.items()]
        self.assertEqual(self.legend, explained)

    def test_every_function_once_with_effects_and_reasons(self):
        expected = {}
        for effect, groups in effects.EFFECTS.items():
            for treatment, reason, names in groups:
                line = f"  {effect}: {treatment}" + (f", {reason}" if reason else "")
                for name in names.split():
                    expected.setdefault(name, []).append(line)
        listed = {}
        for paragraph in self.paragraphs:
            name, *lines = paragraph.splitlines()
            self.assertNotIn(name, listed)
            listed[name] = [line for line in lines if not line.startswith("    ")]
        self.assertEqual(listed, expected)

    def test_every_symbol_once_with_its_version(self):
        _, functions = declarations.read()
        expected = sorted((each.name, each.symbol, each.version) for each in functions.values())
        listed = []
        for paragraph in self.paragraphs:
            name, *lines = paragraph.splitlines()
            for line in lines:
                if line.startswith("    "):
                    version, symbol = re.fullmatch(
                        r"    (\d+) +(\w+)  (?:interposed|real(?:: 32-bit addresses or sizes)?)",
                        line,
                    ).groups()
                    listed.append((name, symbol, int(version)))
        self.assertEqual(sorted(listed), expected)

    def test_what_is_interposed(self):
        """As the table says that the library is built from."""
        text = "".join(
            (ROOT / "shim" / "lookup" / name).read_text(encoding="utf-8")
            for name in ("driver_functions.inc", "submissions.inc")
        )
        built = re.findall(r"^  (?:S\(X, \w+|R\(X|X\((?=cu))(?:, )?(\w+), k", text, re.M)
        listed = re.findall(r"^    \d+ +(\w+)  interposed$", "\n".join(self.paragraphs), re.M)
        self.assertEqual(sorted(listed), sorted(built))


if __name__ == "__main__":
    unittest.main()
