"""shim/submissions.inc against cuda.h: complete, and what scripts/generate-submissions writes.

The environment names the folder of cuda.h in CMP_CUDA_INCLUDE. Everything but the comparison of the
text holds for headers of any version: a function of theirs that submits, or may, and that nobody
has decided on fails the test.
"""

import importlib.machinery
import importlib.util
import os
import pathlib
import re
import sys
import unittest

ROOT = pathlib.Path(sys.argv.pop(1))
INCLUDE = pathlib.Path(os.environ["CMP_CUDA_INCLUDE"])
sys.dont_write_bytecode = True


def load_generator():
    path = str(ROOT / "scripts" / "generate-submissions")
    loader = importlib.machinery.SourceFileLoader("generate_submissions", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


generator = load_generator()


class Submissions(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.header = generator.Header(INCLUDE / "cuda.h")
        cls.text = generator.OUTPUT.read_text(encoding="utf-8")
        rows = re.findall(r"S\(X, (\w+), (\w+), \(([^()]*)\), \(([^()]*)\), (cmp::[\w():]+)\)",
                          re.sub(r"\s*\\\n\s*", " ", cls.text))
        cls.table = {symbol: (kind, parameters, arguments, stream)
                     for kind, symbol, parameters, arguments, stream in rows}
        assert len(rows) == len(cls.table) == len(re.findall(r"\bS\(X, ", cls.text))
        files, version = re.search(r" from (.*) of CUDA (\d+\.\d+)\.\n", cls.text).groups()
        cls.same_version = version == cls.header.version
        cls.same_headers = cls.same_version and files.split(", ") == cls.header.files

    def test_table_is_what_the_generator_writes(self):
        if not self.same_headers:
            self.skipTest(f"these are the headers {self.header.files} of {self.header.version}")
        self.assertEqual(generator.generate(self.header), self.text,
                         "run scripts/generate-submissions")

    def test_rows_have_the_types_of_these_headers(self):
        for symbol, (kind, parameters, arguments, _) in self.table.items():
            self.assertEqual(kind, generator.kind_of(symbol))
            split = [parameter.rsplit(" ", 1) for parameter in parameters.split(", ")]
            self.assertEqual(arguments, ", ".join(name for _, name in split))
            function = self.header.functions.get(symbol)
            if function is not None:  # else these headers are older
                self.assertEqual([spelling for spelling, _ in split],
                                 [generator.spelled(function, of) for of, _ in function.parameters],
                                 symbol)

    def test_every_function_is_decided_on(self):
        self.assertEqual(generator.unknown(self.header), [],
                         "name them in scripts/generate-submissions")

    def test_every_submission_is_in_the_table(self):
        missing = [function.symbol for function in self.header.concerned()
                   if generator.kind_of(function.symbol) is not None
                   and function.symbol not in self.table]
        self.assertEqual(missing, [], "run scripts/generate-submissions with these headers")

    def test_synchronous_copies_and_sets_are_in_the_table(self):
        names = [symbol for symbol in self.header.functions
                 if re.match(r"cuMem(cpy|set)", symbol) and "Async" not in symbol]
        self.assertGreater(len(names), 40)
        for symbol in names:
            self.assertTrue(symbol in self.table or symbol in generator.OLD_ABI, symbol)

    def test_names_are_of_existing_functions(self):
        if not self.same_headers:
            self.skipTest(f"these are the headers {self.header.files} of {self.header.version}")
        bases = {function.base for function in self.header.functions.values()}
        lists = [*generator.SUBMISSIONS.values(),
                 *(names for _, names in generator.NOT_IN_THE_TABLE), " ".join(generator.STREAMS)]
        for name in " ".join(lists).split():
            self.assertIn(name, bases)
        for symbol in generator.OLD_ABI:
            self.assertIn(symbol, self.header.functions)

    def test_later_functions_exist(self):
        numbers = [[int(part) for part in version.split(".")]
                   for version in (self.header.version, generator.LATER_VERSION)]
        if numbers[0] < numbers[1]:
            self.skipTest(f"these are the headers of {self.header.version}")
        for function in generator.declarations(generator.LATER):
            self.assertIn(function.symbol, self.header.declared)

    def test_names_are_listed_once(self):
        lists = [*generator.SUBMISSIONS.values(),
                 *(names for _, names in generator.NOT_IN_THE_TABLE)]
        names = " ".join(lists).split()
        self.assertEqual(sorted(names), sorted(set(names)))

    def test_nothing_is_defined_twice_or_not_at_all(self):
        interposed = (ROOT / "shim" / "interposed.h").read_text(encoding="utf-8")
        elsewhere = re.findall(r"\bX\((cu\w+),", interposed)
        self.assertEqual(sorted(set(self.table) & set(elsewhere)), [])
        for function in self.header.concerned():
            if "defined elsewhere" in (generator.reason_against(function.symbol) or ""):
                self.assertIn(function.symbol, elsewhere)


class Preprocessor(unittest.TestCase):
    """What the generator reads of a header: the symbols under __CUDA_API_VERSION_INTERNAL."""

    TEXT = """
#if defined(__CUDA_API_VERSION_INTERNAL) || defined(OTHER)
  #define __CUDA_API_PTSZ(api) api ## _ptsz
#else
  #define __CUDA_API_PTSZ(api) api
#endif
#define cuPlain cuPlain_v2
#define cuStreamed __CUDA_API_PTSZ(cuStreamed_v3)
CUresult CUDAAPI cuPlain(int a); /* CUresult CUDAAPI cuComment(int a); */
CUresult CUDAAPI cuStreamed(CUstream s);
#if !defined(__CUDA_API_VERSION_INTERNAL) && 1
CUresult CUDAAPI cuPublic(void);
#elif defined(__cplusplus) && (__cplusplus >= 201103L)
CUresult CUDAAPI cuModern(void);
#else
CUresult CUDAAPI cuAncient(void);
#endif
#undef cuPlain
CUresult CUDAAPI cuPlain(int a);
"""

    def test_symbols(self):
        text = generator.preprocess(self.TEXT)
        self.assertEqual(re.findall(r"CUDAAPI (\w+)", text),
                         ["cuPlain_v2", "cuStreamed_v3_ptsz", "cuModern", "cuPlain"])

    def test_structures_with_streams(self):
        holders = generator.structures_with_streams("""
            typedef struct A_st { int a; union { CUstream s; int b; } u; } A_v1;
            typedef A_v1 A;
            typedef struct B_st { A a; } B;
            typedef struct C_st { CUstreamCallback c; } C;""")
        self.assertEqual(holders, {"A_st", "A_v1", "A", "B_st", "B"})

    def test_parameters(self):
        function = generator.Function("cuX_v2_ptsz", "const unsigned  int *a,\n void **b, int c[3]")
        self.assertEqual(function.parameters,
                         [["const unsigned*", "a"], ["void**", "b"], ["int*", "c"]])
        self.assertEqual(function.base, "cuX")
        self.assertTrue(function.per_thread)


if __name__ == "__main__":
    unittest.main()
