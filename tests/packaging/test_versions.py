"""One version: that of the project in CMakeLists.txt. Everything else has it from there."""

import ctypes
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(sys.argv.pop(1))
BUILD = pathlib.Path(sys.argv.pop(1))
PRELOAD = BUILD / "libcmp_preload.so"


def text_of(path):
    return path.read_text(encoding="utf-8")


VERSION = re.search(r"^project\(cmp VERSION ([\d.]+)", text_of(ROOT / "CMakeLists.txt"), re.M)[1]


class Versions(unittest.TestCase):
    def test_the_library(self):
        library = ctypes.CDLL(str(PRELOAD))
        library.cmp_preload_version.restype = ctypes.c_char_p
        self.assertEqual(library.cmp_preload_version().decode(), VERSION)
        self.assertTrue((BUILD / f"libcmp.so.{VERSION}").is_file())

    def test_the_command(self):
        printed = subprocess.run([BUILD / "cmp-preload", "--version"], capture_output=True, text=True,
                                 check=True)
        self.assertEqual(printed.stdout, f"{VERSION}\n")

    def test_statistics(self):
        """Those of a run, and of the sample."""
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "statistics.json"
            environment = {**os.environ, "LD_LIBRARY_PATH": str(BUILD / "sim"),
                           "LD_PRELOAD": str(PRELOAD), "CMP_STATS": str(path)}
            subprocess.run([BUILD / "programs" / "plain", "10"], env=environment, check=True,
                           stdout=subprocess.DEVNULL)
            for found in (path, ROOT / "scripts/docs/formats/statistics.sample.json"):
                self.assertEqual(json.loads(text_of(found))["version"], VERSION, found)

    def test_the_changelog(self):
        """Its newest entry is of this version."""
        self.assertEqual(re.findall(r"^## (\S+)", text_of(ROOT / "CHANGELOG.md"), re.M)[0], VERSION)

    def test_the_recipes(self):
        packaging = ROOT / "scripts" / "packaging"
        conda = text_of(packaging / "conda" / "recipe.yaml")
        self.assertEqual(re.findall(r"^  version: ([\d.]+)$", conda, re.M), [VERSION])
        spack = text_of(packaging / "spack" / "spack_repo" / "cmp" / "packages" / "cmp_preload" / "package.py")
        self.assertEqual(re.findall(r'version\("([\d.]+)"', spack)[0], VERSION)

    def test_the_packages_of_cmake(self):
        self.assertIn(f'set(CPACK_PACKAGE_VERSION "{VERSION}")', text_of(BUILD / "CPackConfig.cmake"))
        self.assertIn(f"\nVersion: {VERSION}\n", text_of(BUILD / "cmp.pc"))

    def test_the_cmake_package(self):
        self.assertIn(f'set(PACKAGE_VERSION "{VERSION}")', text_of(BUILD / "cmp-config-version.cmake"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
