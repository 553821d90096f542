"""The table of the driver's functions (scripts/driver_table) against the headers of CUDA, the files
that are generated from it, and the definitions in shim/.

The environment names the folder of cuda.h in CMP_CUDA_INCLUDE; headers of any version do. A function
of theirs that the table does not know fails by its name.
"""

import os
import pathlib
import re
import sys
import tempfile
import unittest

ROOT = pathlib.Path(sys.argv.pop(1))
INCLUDE = pathlib.Path(os.environ["CMP_CUDA_INCLUDE"])
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "scripts"))

from driver_table import declarations, effects, headers, table, writing  # noqa: E402

TABLE = table.Table()


class Headers(unittest.TestCase):
    """The headers at hand."""

    @classmethod
    def setUpClass(cls):
        cls.headers = headers.Headers(INCLUDE)

    def test_every_function_is_known(self):
        unknown = [symbol for symbol in self.headers.functions if symbol not in TABLE.functions]
        self.assertEqual(unknown, [], f"run scripts/generate-driver-table --read {INCLUDE}")

    def test_declarations_agree(self):
        for symbol, function in self.headers.functions.items():
            known = TABLE.functions[symbol]
            self.assertEqual(declarations.types(known), declarations.types(function), symbol)
            self.assertIn(function.version, (0, known.version), symbol)

    def test_streams_are_known(self):
        for function in self.headers.functions.values():
            if TABLE.kind(function) is not None and self.headers.takes_stream(function):
                self.assertTrue("CUstream" in declarations.types(function) or
                                function.name in table.STREAMS, function.symbol)

    def test_what_takes_a_stream_is_seen(self):
        """Or it is said to be missing, or gives one."""
        gives = "cuCheckpointProcessRestore"  # of its own, for the copies of a checkpoint
        of_headers = [function for function in self.headers.functions.values()
                      if self.headers.takes_stream(function)]
        of_others = [function for function in TABLE.functions.values()
                     if re.search(r"\bCUstream\b", " ".join(declarations.types(function)))]
        for function in of_headers + of_others:
            missing = any(treatment == "missing" for _, treatment, _ in TABLE.groups[function.name])
            self.assertTrue(TABLE.is_interposed(function) or TABLE.has_32_bits(function) or missing or
                            function.name == gives, function.symbol)

    def test_reading_adds_nothing(self):
        functions = dict(TABLE.functions)
        declarations.add(functions, self.headers)
        self.assertEqual(functions, TABLE.functions)


class Effects(unittest.TestCase):
    def test_every_function_is_decided_on(self):
        self.assertEqual(TABLE.undecided(), [], "say in scripts/driver_table/effects.py what it does")

    def test_names_exist(self):
        names = {function.name for function in TABLE.functions.values()}
        self.assertEqual([name for name in TABLE.groups if name not in names], [])
        self.assertEqual([name for name in table.STREAMS if name not in names], [])
        self.assertEqual([name for name in effects.NOT_OF_32_BITS if name not in names], [])
        self.assertEqual([name for name in effects.UNDECLARED if name in names], [],
                         "a header declares it now")

    def test_names_stand_once_under_an_effect(self):
        for effect, groups in effects.EFFECTS.items():
            names = " ".join(names for _, _, names in groups).split()
            self.assertEqual(sorted(names), sorted(set(names)), effect)

    def test_words(self):
        for effect, groups in effects.EFFECTS.items():
            if effect not in effects.MEANINGS:
                self.assertIn(effect.partition("submits ")[2], [*effects.KINDS, "in stream order"])
            for treatment, _, _ in groups:
                self.assertIn(treatment, (*table.INTERPOSED, "real", "missing"))

    def test_nothing_is_nothing_else(self):
        for name, groups in TABLE.groups.items():
            if "nothing" in [effect for effect, _, _ in groups]:
                self.assertEqual(len(groups), 1, name)

    def test_everything_has_a_reason(self):
        for effect, groups in effects.EFFECTS.items():
            if effect.partition("submits ")[2] not in effects.KINDS:  # these have meanings
                for _, reason, names in groups:
                    self.assertTrue(reason, names)

    def test_out_of_memory_is_retried_or_has_its_reason(self):
        """Whether it may be tried again is one of several effects, and all are decided."""
        again = effects.EFFECTS[table.AGAIN]
        never = (*effects.EFFECTS["may run out of memory, never again"],
                 *effects.EFFECTS["may run out of memory of the host"])
        for treatment, reason, names in again:
            self.assertIn(treatment, ("retried", "served"), names)
            if treatment == "retried":
                self.assertIn(reason.partition(":")[0], effects.NEEDS, reason)
        for treatment, reason, names in never:
            self.assertEqual((treatment, bool(reason)), ("real", True), names)
        kept = " ".join(names for _, _, names in never).split()
        for function in TABLE.functions.values():
            retried = any(treatment == "retried" for _, treatment, _ in TABLE.groups[function.name])
            self.assertEqual(TABLE.need(function) != "kNothing",
                             any(effect == table.AGAIN and treatment == "retried"
                                 for effect, treatment, _ in TABLE.groups[function.name]))
            self.assertFalse(retried and function.name in kept, function.name)

    def test_nodes_of_kernels_are_retried_alike(self):
        """Each may have to load the kernel."""
        for function in TABLE.functions.values():
            if re.fullmatch(r"cuGraph(Add|Exec)?(Kernel)?Node(SetParams)?", function.name):
                self.assertNotEqual(TABLE.need(function), "kNothing", function.symbol)

    def test_what_may_have_begun_is_never_retried(self):
        never = " ".join(names for _, _, names in
                         effects.EFFECTS["may run out of memory, never again"]).split()
        for name in ("cuLaunchCooperativeKernelMultiDevice", "cuStreamBatchMemOp"):
            self.assertIn(name, never)
        # Measured (H200, driver 580.159.04; tests/gpu/memory_h200.md): one that failed ran no node.
        self.assertNotIn("cuGraphLaunch", never)
        for name in TABLE.groups:
            if "Batch" in name and "MemOpNode" not in name and "Discard" not in name:
                self.assertIn(name, never)

    def test_copies_and_sets_submit(self):
        names = [function for symbol, function in TABLE.functions.items()
                 if re.match(r"cuMem(cpy|set)", symbol)]
        self.assertGreater(len(names), 40)
        for function in names:
            self.assertTrue(TABLE.kind(function) or TABLE.has_32_bits(function), function.symbol)


class Written(unittest.TestCase):
    """The generated files."""

    def test_they_are_what_the_generator_writes(self):
        for name, text in writing.FILES.items():
            self.assertEqual((ROOT / "shim" / "lookup" / name).read_text(encoding="utf-8"), text(TABLE),
                             f"{name}: run scripts/generate-driver-table")

    def test_declarations_are_what_the_generator_writes(self):
        text = declarations.PATH.read_text(encoding="utf-8")
        self.assertEqual(text, declarations.text(TABLE.headers, TABLE.functions))

class Definitions(unittest.TestCase):
    """Of the entry points, in shim/entry."""

    # What a definition must do for an effect that is served, noted or paid.
    DOES = {
        "looks up": "Answer\\(",
        "allocates": "AllocHit|AllocPitchSlow|HostAllocSlow|AllocatedInOrder|AddRange|NotePlace",
        "frees": "MemFreeSlow|FreeInOrder|FreeHostForeign|PoolInHand|PAY_AND_CALL",
        "must pay": "PayBeforeDestruction|PAY_AND_CALL",
        "makes a context": "ContextMade|StepAside",
        "ends a context": "EndContext|DetachContext|ReleasePrimary|ResetPrimary|EndGreenContext",
        "captures": "BeginCapture|AfterEndCapture",
        "waits": "[wW]ait|EndOfRange|FreeHostForeign|EndContext|ReleasePrimary|ResetPrimary",
        "tells of completion": "Ask\\(",
        "tells of a crash": "DestroyStream|LookForCrash",
        "tells about memory": "PlaceOf|MemoryWithIdle|PoolInHand",
        "names memory": "WITH_REPLACED",
        "shares": "NoteShared|NOTE_AND_CALL|NotePlace|NoteAccesses|device_links|AddRange|AddPageLocked"
                  "|EndOfRange|SetMapped|AfterGetGlobal|HostAllocSlow|FreeHostForeign",
        "ends a handle": "Forget|DestroyStream|LookForCrash|EndContext|DetachContext|ReleasePrimary"
                         "|ResetPrimary|EndGreenContext",
        "submits in stream order": "Submission",
        "sets up a pool": "PoolMade|SetByTheProgram|CurrentPoolsChange",
    }

    def test_every_row_is_defined_once(self):
        """By hand, or by the macros of the submissions and of what is only retried."""
        defined = []
        for path in (ROOT / "shim" / "entry").glob("*.cpp"):
            defined += re.findall(r"^CUresult Driver_(\w+)\(", path.read_text(encoding="utf-8"), re.M)
        rows = [function.symbol for functions in TABLE.interposed().values()
                for function in functions]
        self.assertEqual(sorted(defined), sorted(rows))
        submitted = [function.symbol for functions in TABLE.submissions().values()
                     for function in functions]
        retried = [function.symbol for functions in TABLE.plain().values()
                   for function in functions]
        self.assertEqual(sorted(rows + submitted + retried),
                         sorted(function.symbol for function in TABLE.functions.values()
                                if TABLE.is_interposed(function)))

    def test_they_do_what_the_table_says(self):
        for path in sorted((ROOT / "shim" / "entry").glob("*.cpp")):
            parts = re.split(r"^CUresult Driver_(\w+)\(", path.read_text(encoding="utf-8"), flags=re.M)
            for symbol, body in zip(parts[1::2], parts[2::2]):
                body = re.match(r"[^{]*\{[^\n]*\}\n|.*?^\}", body, re.M | re.S)[0]
                self.assertTrue(TABLE.need(TABLE.functions[symbol]) == "kNothing" or
                                re.search(rf"real->{symbol}\(|, {symbol},|MemAllocPitchSlow", body),
                                f"{symbol}: not by the real call, which is what is tried again")
                for effect, treatment, _ in TABLE.groups[TABLE.functions[symbol].name]:
                    if (treatment in table.INTERPOSED and treatment not in table.PLAIN and
                            effect != table.AGAIN):
                        self.assertRegex(body, self.DOES[effect], f"{symbol} {effect}")

    def test_what_records_an_event_says_so(self):
        """All of that submits: it is the definitions of the kinds that know of events."""
        text = (ROOT / "shim" / "entry" / "submissions.cpp").read_text(encoding="utf-8")
        bodies = dict(re.findall(r"^struct (\w+)[^;{]*\{\n(.*?)^\};", text, re.M | re.S))
        names = " ".join(names for _, _, names in effects.EFFECTS["records an event"]).split()
        for name in names:
            for function in TABLE.named[name]:
                self.assertRegex(bodies[TABLE.kind(function)], "g_events.Forget", function.symbol)


class Pages(unittest.TestCase):
    """The documentation, in scripts/docs."""

    SERVES = (ROOT / writing.PAGE).read_text(encoding="utf-8")
    DIFFERS = (ROOT / "scripts" / "docs" / "what-can-differ.md").read_text(encoding="utf-8")

    def test_one_has_the_table(self):
        self.assertIn(writing.page(TABLE), self.SERVES, "run scripts/generate-driver-table")

    def test_what_is_not_seen_is_named(self):
        for effect, groups in effects.EFFECTS.items():
            for treatment, _, names in groups:
                if treatment == "missing" and "run out of memory" not in effect:
                    for name in names.split():
                        self.assertIn(f"`{name}`", self.SERVES)

    def test_what_is_never_tried_again_is_named(self):
        for _, _, names in effects.EFFECTS["may run out of memory, never again"]:
            for name in names.split():
                self.assertIn(f"`{name}`", self.DIFFERS)

    def test_functions_exist(self):
        names = {function.name for function in TABLE.functions.values()}
        for page in [ROOT / "README.md", *(ROOT / "scripts" / "docs").rglob("*.md")]:
            for name in re.findall(r"`(cu[A-Z]\w+)`", page.read_text(encoding="utf-8")):
                self.assertIn(name, names, page)

    def test_the_versions_are_named(self):
        self.assertIn(f"from CUDA {TABLE.headers[0]} to {TABLE.headers[-1]}", self.SERVES)


class Versions(unittest.TestCase):
    """What cuGetProcAddress takes."""

    @staticmethod
    def meant(name: str, version: int, per_thread: bool = False) -> str:
        """The symbol, by the rule in shim/lookup/driver_versions.inc."""
        found = [row for row in TABLE.questions() if row[0] == name and row[1] <= version]
        variants = [row for row in found if row[2] == per_thread]
        best = max(variants or found, key=lambda row: row[1], default=None)
        return best[3].symbol if best else ""

    def test_measured(self):
        """FACTS about the real driver: tests/sim/probe_h200.txt."""
        for name, version, symbol in (
                ("cuMemAlloc", 2000, "cuMemAlloc"), ("cuMemAlloc", 3020, "cuMemAlloc_v2"),
                ("cuMemAlloc", 13000, "cuMemAlloc_v2"), ("cuMemAllocAsync", 10000, ""),
                ("cuDevicePrimaryCtxReset", 7000, "cuDevicePrimaryCtxReset"),
                ("cuDevicePrimaryCtxReset", 11000, "cuDevicePrimaryCtxReset_v2"),
                ("cuGetProcAddress", 11030, "cuGetProcAddress"),
                ("cuGetProcAddress", 12000, "cuGetProcAddress_v2"),
                ("cuStreamBeginCapture", 10000, "cuStreamBeginCapture"),
                ("cuStreamBeginCapture", 10010, "cuStreamBeginCapture_v2")):
            self.assertEqual(self.meant(name, version), symbol, (name, version))
        self.assertEqual(self.meant("cuMemAllocAsync", 11020, True), "cuMemAllocAsync_ptsz")
        self.assertEqual(self.meant("cuMemAlloc", 11020, True), "cuMemAlloc_v2")

    def test_as_the_simulated_driver_has_them(self):
        text = (ROOT / "tests" / "sim" / "driver_functions.inc").read_text(encoding="utf-8")
        rows = re.findall(r"^CMP_SIM_(?:STREAM_)?FUNCTION\((\w+), (\d+), (\w+)(?:,\s*(\d+), (\w+))?\)",
                          text, re.M)
        self.assertGreater(len(rows), 200)
        questions = {(name, version, function.symbol)
                     for name, version, _, function in TABLE.questions()}
        for name, version, symbol, per_thread_version, per_thread in rows:
            self.assertIn((name, int(version), symbol), questions)
            if per_thread:
                self.assertIn((name, int(per_thread_version), per_thread), questions)

    def test_as_runtimes_ask(self):
        text = (ROOT / "tests" / "sim" / "runtime_functions.inc").read_text(encoding="utf-8")
        rows = re.findall(r"^CMP_SIM_DRIVER(_STREAM)?\((\w+), (\d+), (\w+)\)", text, re.M)
        self.assertGreater(len(rows), 80)
        for of_stream, name, version, symbol in rows:
            self.assertEqual(self.meant(name, int(version)), symbol)
            if of_stream:
                self.assertRegex(self.meant(name, int(version), True), symbol + "_pt[ds][sz]")

    def test_every_version_is_known(self):
        for function in TABLE.functions.values():
            self.assertGreaterEqual(function.version, 2000, function.symbol)


class Preprocessor(unittest.TestCase):
    """What is read of a header: the symbols under __CUDA_API_VERSION_INTERNAL."""

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
        text = headers.preprocess(self.TEXT)
        self.assertEqual(re.findall(r"CUDAAPI (\w+)", text),
                         ["cuPlain_v2", "cuStreamed_v3_ptsz", "cuModern", "cuPlain"])

    def test_structures_with_streams(self):
        holders = headers.structures_with_streams("""
            typedef struct A_st { int a; union { CUstream s; int b; } u; } A_v1;
            typedef A_v1 A;
            typedef struct B_st { A a; } B;
            typedef struct C_st { CUstreamCallback c; } C;""")
        self.assertEqual(holders, {"A_st", "A_v1", "A", "B_st", "B"})

    def test_parameters(self):
        function = headers.Function("cuX_v2_ptsz", "const unsigned  int *a,\n void **b, int c[3]")
        self.assertEqual(function.parameters,
                         [["const unsigned*", "a"], ["void**", "b"], ["int*", "c"]])
        self.assertEqual((function.name, function.number, function.per_thread), ("cuX", 2, "_ptsz"))


class Folder(unittest.TestCase):
    """A folder of headers, some of them younger than the table."""

    HEADER = """
#define CUDA_VERSION 14010
#define cuMade cuMade_v2
CUresult CUDAAPI cuMade(int *a);
CUresult CUDAAPI cuInit(unsigned int Flags);
#if defined(__CUDA_API_VERSION_INTERNAL)
#undef cuMade
CUresult CUDAAPI cuMade(int a);
#endif
"""
    TYPES = """
typedef CUresult (CUDAAPI *PFN_cuMade_v14010)(int *a);
typedef CUresult (CUDAAPI *PFN_cuMade_v13000)(int a);
"""

    def read(self, types):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            (folder / "cuda.h").write_text(self.HEADER)
            (folder / "cudaTypedefs.h").write_text(types)
            return headers.Headers(folder)

    def test_versions(self):
        found = self.read(self.TYPES)
        self.assertEqual(found.version, "14.1")
        self.assertEqual({symbol: function.version for symbol, function in found.functions.items()},
                         {"cuMade": 13000, "cuMade_v2": 14010, "cuInit": 0})

    def test_a_new_function_is_undecided_by_name(self):
        younger = table.Table()
        declarations.add(younger.functions, self.read(self.TYPES))
        self.assertEqual(younger.undecided(), ["cuMade_v2", "cuMade"])

    def test_symbols_and_versions_must_be_as_many(self):
        with self.assertRaisesRegex(SystemExit, "cuMade"):
            self.read(self.TYPES.replace("PFN_cuMade_v13000", "PFN_cuOther_v13000"))

    def test_another_signature_is_refused(self):
        with self.assertRaisesRegex(SystemExit, "another cuInit"):
            functions = {"cuInit": headers.Function("cuInit", "int Flags", 2000)}
            declarations.add(functions, self.read(self.TYPES))


if __name__ == "__main__":
    unittest.main()
