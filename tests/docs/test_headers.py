"""What CUDA's headers say in words, against what was decided by hand.

The environment names the folder of cuda.h in CMP_CUDA_INCLUDE; headers of any version do.
"""

import os
import pathlib
import re
import sys
import unittest

ROOT = pathlib.Path(sys.argv.pop(1))
INCLUDE = pathlib.Path(os.environ["CMP_CUDA_INCLUDE"])
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "scripts"))

from driver_table import effects, headers, table  # noqa: E402

TABLE = table.Table()


def header(name: str) -> str:
    return (INCLUDE / name).read_text(encoding="utf-8", errors="replace")


def commented(text: str, of: str) -> list:
    """(comment, groups of `of`...) of each that has one before it."""
    return [(" ".join(comment.replace("*", " ").split()), *groups) for comment, *groups in
            re.findall(r"/\*\*((?:(?!\*/).)*)\*/\s*" + of, text, re.S)]


class BrokenContexts(unittest.TestCase):
    """The statuses from which on every call answers alike (core/base/types.h)."""

    SAYS = "any further CUDA work will return the same error|must be terminated and relaunched|" \
           "The context cannot be used anymore"
    # Of which the headers do not say it, but types.h why they are there.
    ALSO = {"ECC_UNCORRECTABLE", "NVLINK_UNCORRECTABLE", "CONTEXT_IS_DESTROYED", "UNKNOWN"}

    @classmethod
    def setUpClass(cls):
        text = (ROOT / "core" / "base" / "types.h").read_text(encoding="utf-8")
        body = re.search(r"bool IsBrokenContextStatus\(.*?^\}", text, re.M | re.S)[0]
        cls.known = {number: name for number, name in re.findall(r"case (\d+):  // (\w+)", body)}

    def test_they_are_those_that_the_headers_call_so(self):
        for name, of in (("cuda.h", r"(CUDA_ERROR_\w+)\s*=\s*(\d+)"),
                         ("driver_types.h", r"(cudaError\w+)\s*=\s*(\d+)")):
            found = commented(header(name), of)
            self.assertGreater(len(found), 90, name)
            said = {number: error for words, error, number in found if re.search(self.SAYS, words)}
            self.assertGreater(len(said), 10, name)
            for number, error in said.items():
                self.assertIn(number, self.known, f"{error} of {name}")

    def test_no_others_are(self):
        of_name = {error: (number, words) for words, error, number in
                   commented(header("cuda.h"), r"CUDA_ERROR_(\w+)\s*=\s*(\d+)")}
        for number, name in self.known.items():
            if name in of_name:  # else of a younger CUDA
                self.assertEqual(of_name[name][0], number, name)
                self.assertEqual(name in self.ALSO, not re.search(self.SAYS, of_name[name][1]), name)


class OutOfMemory(unittest.TestCase):
    """The functions of which the headers say that they return CUDA_ERROR_OUT_OF_MEMORY."""

    def test_the_table_says_whether_they_are_tried_again(self):
        said = []
        for name in headers.HEADERS:
            text = header(name) if (INCLUDE / name).exists() else ""
            said += [headers.Function(symbol, "").name for words, symbol in
                     commented(text, r"(?:__CUDA_DEPRECATED )?CUresult CUDAAPI (\w+)\(")
                     if "CUDA_ERROR_OUT_OF_MEMORY" in words]
        self.assertGreater(len(said), 40)
        decided = {name for name, groups in TABLE.groups.items()
                   if any(effect.startswith("may run out of memory") for effect, _, _ in groups)}
        self.assertEqual([name for name in said if name not in decided], [])


class LaunchAttributes(unittest.TestCase):
    """Those of the headers, in the table, and in the shim."""

    PREFIX = "CU_LAUNCH_ATTRIBUTE_"
    DECIDED = {name: treatment for treatment, _, names in effects.LAUNCH_ATTRIBUTES
               for name in names.split()}

    def test_all_are_decided_on(self):
        body = re.search(r"\benum CUlaunchAttributeID_enum\s*\{(.*?)\n\}", header("cuda.h"), re.S)[1]
        names = re.findall(rf"^[\s,]*{self.PREFIX}(\w+)\s*=", body, re.M)
        self.assertGreater(len(names), 12)
        self.assertEqual([name for name in names if name not in self.DECIDED], [],
                         "say in scripts/driver_table/effects.py what they do")

    def test_the_shim_looks_at_what_is_noted(self):
        text = (ROOT / "shim" / "entry" / "submissions.cpp").read_text(encoding="utf-8")
        self.assertEqual(set(re.findall(rf"\b{self.PREFIX}(\w+)", text)),
                         {name for name, treatment in self.DECIDED.items() if treatment == "noted"})


if __name__ == "__main__":
    unittest.main()
