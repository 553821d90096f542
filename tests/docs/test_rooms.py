"""The rooms of core and shim: a file includes what its room may use, as the room's README says, and
nothing else; no room uses one that uses it. Tests mirror the rooms, and use what their room may.
"""

import collections
import pathlib
import re
import sys
import unittest

ROOT = pathlib.Path(sys.argv.pop(1))
CODE = (".h", ".cpp", ".cu", ".inc", ".S")
PUBLIC = "core"  # the headers that users include
# What tests that mirror no room include of the sources: those of one command or format.
OTHERS = {
    "tests/budget": {PUBLIC}, "tests/programs": {PUBLIC}, "tests/core/examples": {PUBLIC},
    "scripts/docs/examples": {PUBLIC},
    "tests/docs": {"core/base"}, "tests/gpu/against": {PUBLIC}, "scripts": {"core/base", "shim/record"},
    "tests/fuzz": {"core/base", "core/driver", "core/library", "core/pool", "shim/record", "shim/state"},
}
FIXTURES = ("tests/core", "tests/shim")  # they may use everything


def sources() -> list[pathlib.Path]:
    return [path.relative_to(ROOT) for folder in ("core", "shim", "tests", "scripts")
            for path in sorted((ROOT / folder).rglob("*")) if path.suffix in CODE]


def includes(path: pathlib.Path) -> set[str]:
    """The folders of core and shim that a file includes of."""
    text = (ROOT / path).read_text(encoding="utf-8")
    found = re.findall(r'^\s*#\s*include\s*["<]((?:core|shim)/[^">]+)', text, re.M)
    if path.parts[0] in ("core", "shim"):
        for name in re.findall(r"^\s*#\s*include\s*(\S+)", text, re.M):
            assert re.match(r'<[\w./]+>$|"(core|shim)/', name), f"{path}: include {name} by its whole path"
    return {str(pathlib.PurePath(name).parent) for name in found}


class Rooms(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.rooms = {}
        for readme in sorted(ROOT.glob("core/*/README.md")) + sorted(ROOT.glob("shim/*/README.md")):
            above = readme.parent.parent.name
            uses = re.findall(r"^May use: ((?:.|\n)*?)\.\n", readme.read_text(encoding="utf-8"), re.M)
            assert len(uses) == 1, f"{readme}: no line 'May use: ...'"
            cls.rooms[f"{above}/{readme.parent.name}"] = set()
            for name in re.findall(r"`(\w+)`", uses[0]):
                cls.rooms[f"{above}/{readme.parent.name}"].add(
                    PUBLIC if name == "core" else f"{above}/{name}")
        cls.core = {room for room in cls.rooms if room.startswith("core/")} | {PUBLIC}

    def allowed(self, room: str) -> set[str]:
        uses = self.rooms[room] | {room}
        if room.startswith("shim/") and PUBLIC in uses:
            uses |= self.core
        return uses

    def test_rooms_stand_in_order(self):
        """In the maps: from the top down."""
        for top in ("core", "shim"):
            text = (ROOT / top / "README.md").read_text(encoding="utf-8")
            order = [f"{top}/{name}" for name in re.findall(r"^\| \[(\w+)\]\(\w+/README.md\)", text, re.M)]
            self.assertEqual(set(order), {room for room in self.rooms if room.startswith(top)})
            for at, room in enumerate(order):
                self.assertLessEqual(self.rooms[room] - {PUBLIC}, set(order[at + 1:]), room)

    def test_static_checks_look_into_every_room(self):
        """clang-tidy drops what it finds in a file that this does not match."""
        text = (ROOT / ".clang-tidy").read_text(encoding="utf-8")
        looked_at = re.search(r"HeaderFilterRegex: '(.*)'", text)[1]
        for path in sources():
            if path.parts[0] in ("core", "shim") and path.suffix in (".h", ".cpp"):
                self.assertRegex(str(path), looked_at)

    def test_every_file_is_in_a_room(self):
        for path in sources():
            if path.parts[0] not in ("core", "shim"):
                continue
            room = str(path.parent)
            if room == PUBLIC:
                self.assertEqual(path.suffix, ".h", f"{path}: only what users include")
            else:
                self.assertIn(room, self.rooms, f"{room} has no README.md")

    def test_a_file_includes_what_its_room_may_use(self):
        used = collections.defaultdict(set)
        for path in sources():
            room = str(path.parent)
            if path.parts[0] in ("core", "shim"):
                allowed = {PUBLIC} if room == PUBLIC else self.allowed(room)
            elif room in FIXTURES:
                continue
            elif path.parts[1:3] and "/".join(path.parts[1:3]) in self.rooms:
                room = "/".join(path.parts[1:3])
                allowed = self.allowed(room)
            else:
                allowed = OTHERS.get(room, set())
            for name in includes(path):
                self.assertIn(name, allowed, f"{path} includes of {name}")
                if path.parts[0] in ("core", "shim"):
                    used[room].add(PUBLIC if room.startswith("shim/") and name in self.core
                                   else name)
        for room, uses in self.rooms.items():
            self.assertLessEqual(uses, used[room], f"{room}: its README.md names more than it uses")

    def test_no_room_uses_one_that_uses_it(self):
        left = {room: {use for use in uses if use in self.rooms} for room, uses in self.rooms.items()}
        while left:
            lowest = {room for room, uses in left.items() if not uses}
            self.assertTrue(lowest, f"a circle among {sorted(left)}")
            left = {room: uses - lowest for room, uses in left.items() if room not in lowest}

    def test_no_circle_of_headers(self):
        names = {str(path) for path in sources() if path.suffix == ".h"}
        left = {}
        for name in names:
            text = (ROOT / name).read_text(encoding="utf-8")
            left[name] = set(re.findall(r'^#include "([^"]+)"', text, re.M)) & names
        while left:
            lowest = {name for name, uses in left.items() if not uses}
            self.assertTrue(lowest, f"a circle among {sorted(left)}")
            left = {name: uses - lowest for name, uses in left.items() if name not in lowest}

    def test_a_room_names_its_files(self):
        """Its README.md: every file, and none that is not there."""
        for room in self.rooms:
            text = (ROOT / room / "README.md").read_text(encoding="utf-8")
            table = "\n".join(line.split("|")[1] for line in text.splitlines()
                              if line.startswith("| `"))
            named = set(re.findall(r"`([\w.*]+)`", table))
            there = {path for path in (ROOT / room).iterdir() if path.suffix in CODE}
            for path in there:
                self.assertTrue({path.stem, path.name, "*" + path.suffix} & named,
                                f"{room}/README.md does not name {path.name}")
            others = {path.name for path in (ROOT / room).iterdir()} - {path.name for path in there}
            self.assertEqual(others, {"README.md"}, room)
            for name in named:
                self.assertTrue(any(name in (path.stem, path.name, "*" + path.suffix)
                                    for path in there), f"{room}/README.md names {name}")
            self.assertLessEqual(len(there), 24, f"{room}: so many files want walls")


if __name__ == "__main__":
    unittest.main()
