"""What the documentation says against what there is: links, files, options, messages, its length."""

import pathlib
import re
import subprocess
import sys
import unittest

ROOT = pathlib.Path(sys.argv.pop(1))
PRINT_OPTIONS = sys.argv.pop(1)
DOCS = ROOT / "scripts" / "docs"
README = ROOT / "README.md"
MOST_WORDS = 900  # of README.md: three minutes


def pages():
    """Every .md of the project; build folders and hidden ones are not of it."""
    for path in sorted(ROOT.rglob("*.md")):
        folders = path.relative_to(ROOT).parts[:-1]
        if not any(re.match(r"build|\.", folder) for folder in folders):
            yield path


def prose(path):
    """A page without what is between fences."""
    return re.sub(r"^ *```.*?^ *```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(path):
    """What #names lead to: those that GitHub gives to headings."""
    found = []
    for heading in re.findall(r"^#+ +(.*?) *$", prose(path), re.M):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", heading).replace(" ", "-")
        found.append(name if name not in found else f"{name}-{found.count(name)}")
    return found


def links(path):
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose(path)))


def source(*patterns):
    """The files' text as one, strings that go on in the next line joined."""
    text = ""
    for pattern in patterns:
        for path in sorted(ROOT.glob(pattern)):
            text += path.read_text(encoding="utf-8")
    return re.sub(r'"\s*\n\s*f?"', "", text)


class Links(unittest.TestCase):
    def test_they_lead_somewhere(self):
        count = 0
        for path in pages():
            for link in links(path):
                if re.match(r"\w+:", link):
                    continue
                count += 1
                with self.subTest(page=str(path.relative_to(ROOT)), link=link):
                    name, _, anchor = link.partition("#")
                    target = (path.parent / name).resolve() if name else path
                    self.assertTrue(target.exists())
                    self.assertIn(ROOT.resolve(), [target, *target.parents], "outside")
                    if anchor:
                        self.assertIn(anchor, anchors(target))
        self.assertGreater(count, 100)

    def test_every_document_is_in_the_index_of_its_folder(self):
        indices = list(DOCS.rglob("README.md"))
        self.assertGreater(len(indices), 2)
        for index in indices:
            linked = {link.partition("#")[0] for link in links(index)}
            documents = {path.name for path in index.parent.glob("*.md")} - {"README.md"}
            self.assertEqual(documents - linked, set(), index)
            if index.parent != DOCS:
                self.assertIn(f"{index.parent.name}/README.md", links(DOCS / "README.md"))

    def test_every_example_is_in_their_index(self):
        index = DOCS / "examples" / "README.md"
        named = set(re.findall(r"`([\w.]+)`", index.read_text(encoding="utf-8")))
        self.assertEqual(named, {path.name for path in index.parent.iterdir()} - {index.name})

    def test_files_named_exist(self):
        """But for evidence, which names what was there when it was measured."""
        for path in pages():
            if path.parent == ROOT / "tests" / "gpu":
                continue
            text = path.read_text(encoding="utf-8")
            for name in re.findall(r"(?<![\w/.])((?:core|shim|tests|scripts)/[\w/.*-]*\w)", text):
                with self.subTest(page=str(path.relative_to(ROOT)), file=name):
                    self.assertTrue(any(ROOT.glob(name)))

    def test_what_messages_and_comments_name_exists(self):
        places = ("scripts/**/*", "core/**/*", "shim/**/*", "tests/**/*")
        named = set()
        for pattern in places:
            for path in ROOT.glob(pattern):
                if path.suffix in (".py", ".h", ".cpp", ".sh", ".inc", "") and path.is_file():
                    text = path.read_text(encoding="utf-8", errors="replace")
                    named |= set(re.findall(r"scripts/docs/[\w/-]+\.md", text))
                    pages = re.findall(r"\bdocument\([\"']([\w/-]+)[\"']\)", text)
                    named |= {f"scripts/docs/{page}.md" for page in pages}
                    if path.suffix in (".h", ".cpp", ".inc"):
                        named |= set(re.findall(
                            r"(?<![\w/.])(?:core|shim|tests|scripts)/[\w/]+\.(?:h|cpp|py|inc)\b", text))
        self.assertGreater(len(named), 100)
        for name in sorted(named):
            self.assertTrue((ROOT / name).exists(), name)


class Readme(unittest.TestCase):
    TEXT = README.read_text(encoding="utf-8")

    def test_it_is_read_in_three_minutes(self):
        self.assertLessEqual(len(self.TEXT.split()), MOST_WORDS)

    def test_ci_runs_its_test_command(self):
        command = re.search(r"^exec (.*)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.M)
        self.assertIn(f"```sh\n{command[1]}\n```", self.TEXT)

    def test_nothing_is_said_twice(self):
        """No sentence of it stands in another document, too. (Links and headings may.)"""

        def sentences(path):
            text = re.sub(r"\]\([^)]*\)", "]", prose(path))
            found = re.split(r"(?<=[.:;!?])\s+|\n\n|\|", text)
            return {" ".join(one.split()) for one in found if len(one.split()) > 9}

        seen = {}
        for path in [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]:
            for one in sentences(path):
                self.assertNotIn(one, seen, f"{path.name} and {seen.get(one)}")
                seen[one] = path.name


class Options(unittest.TestCase):
    def setUp(self):
        printed = subprocess.run([PRINT_OPTIONS], capture_output=True, text=True, check=True)
        self.table = printed.stdout
        self.names = set(re.findall(r"^\| `(CMP_\w+)`", self.table, re.M))

    def test_the_table_is_the_one_in_the_code(self):
        text = (DOCS / "options.md").read_text(encoding="utf-8")
        self.assertIn(self.table, text, "put there what build/tests/docs/print_options prints")

    def test_options_named_exist(self):
        others = {"CMP_NAME"}  # any of them
        others |= set(re.findall(r"CMP_\w+", (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")))
        others |= {"CMP_BUILD", "CMP_TEST_SEED"}  # of the tests
        for path in [README, *DOCS.rglob("*.md")]:
            for name in re.findall(r"\bCMP_\w+", path.read_text(encoding="utf-8")):
                self.assertIn(name, self.names | others, path.name)


class Messages(unittest.TestCase):
    def test_those_explained_are_said(self):
        """By the first column of slower-than-expected.md, where N and ... stand for something."""
        said = source("scripts/cmp_preload/**/*.py", "shim/**/*.cpp", "shim/**/*.h", "core/**/*.h")
        text = (DOCS / "slower-than-expected.md").read_text(encoding="utf-8")
        explained = re.findall(r"^\| (\*.*?) \|", text, re.M)
        self.assertGreater(len(explained), 5)
        for cell in explained:
            for message in re.findall(r"\*(.+?)\*", cell):
                for part in re.split(r" ?\bN\b ?\w* ?|\.\.\.", message):
                    self.assertIn(part.strip(), said)

    def test_lines_of_statistics_are_those_of_the_code(self):
        said = source("shim/**/*.cpp", "core/**/*.h")
        text = (DOCS / "statistics.md").read_text(encoding="utf-8")
        lines = re.findall(r"^cmp: +(.*)$", text, re.M)
        self.assertGreater(len(lines), 8)
        for line in lines:
            for part in re.split(r"[\d.]+%?|churn|pool:|cmp: |node1|Simulated CUDA device", line):
                self.assertIn(re.sub(r"^[,)(:% ]+|[,)(:% ]+$", "", part), said, line)


if __name__ == "__main__":
    unittest.main()
