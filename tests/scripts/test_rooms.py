"""The rooms of scripts/cmp_preload: each uses those below it alone, and nothing goes in a circle."""

import ast
import graphlib
import re
import unittest

from command import SOURCE, TestCase, main

PACKAGE = SOURCE / "scripts" / "cmp_preload"
MOST_MODULES = 20  # of a room


def modules_in(package):
    """Every module of a package: its name to its file."""
    files = sorted(package.rglob("*.py"))
    names = {file: file.relative_to(package.parent).with_suffix("").parts for file in files}
    return {".".join(name).replace(".__init__", ""): file for file, name in names.items()}


def imported(name, file, modules):
    """Which of `modules` a module imports, at its top or inside a function."""
    found = set()
    package = name.split(".") if file.stem == "__init__" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            found |= {
                f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else base
                for alias in node.names
            }
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):
            found.add("by name")
    return {one for one in found if one in modules or one == "by name"}


def graph_of(package):
    modules = modules_in(package)
    return {name: imported(name, file, modules) for name, file in modules.items()}


def circle_in(graph):
    try:
        graphlib.TopologicalSorter(graph).prepare()
        return None
    except graphlib.CycleError as error:
        return error.args[1]


def room_of(name):
    return name.split(".")[1] if name.count(".") else ""


class Rooms(TestCase):
    @classmethod
    def setUpClass(cls):
        cls.graph = graph_of(PACKAGE)
        cls.rooms = sorted(path.name for path in PACKAGE.iterdir() if path.is_dir())
        cls.rooms = [room for room in cls.rooms if room != "__pycache__"]

    def docstring(self, room=""):
        """Of a room, which holds nothing else in its __init__.py; the house's has where the libraries are."""
        body = ast.parse((PACKAGE / room / "__init__.py").read_text()).body
        others = [one.name for one in body[1:]]
        self.assertEqual(others, [] if room else ["library", "pool_library", "_in_the_package"], room)
        return ast.get_docstring(ast.Module(body, []))

    def uses(self, room):
        about, _, words = self.docstring(room).rpartition("\n\nUses: ")
        self.assertTrue(about, f"{room}/__init__.py says what it is for, then 'Uses: ROOM, ....'")
        return set() if words == "no other room." else set(words.rstrip(".").split(", "))

    def test_every_module_is_in_a_room(self):
        outside = {name for name in self.graph if name.count(".") < 2} - {"cmp_preload"}
        self.assertEqual(
            outside, {"cmp_preload.cli", *(f"cmp_preload.{room}" for room in self.rooms)}
        )
        for room in self.rooms:
            inside = [name for name in self.graph if room_of(name) == room]
            self.assertLessEqual(len(inside), MOST_MODULES, room)

    def test_each_uses_what_it_says(self):
        for room in self.rooms:
            used = {
                room_of(other)
                for name, others in self.graph.items()
                if room_of(name) == room
                for other in others
            }
            self.assertEqual(used - {room}, self.uses(room), room)

    def test_they_stand_in_order(self):
        order = self.docstring().splitlines()[-1].split(", ")
        self.assertEqual(sorted(order), self.rooms)
        for i, room in enumerate(order):
            self.assertLessEqual(self.uses(room), set(order[i + 1 :]), room)

    def test_nothing_goes_in_a_circle(self):
        self.assertIsNone(circle_in(self.graph))

    def test_nobody_imports_the_command_line(self):
        for name, others in self.graph.items():
            self.assertNotIn("cmp_preload.cli", others, name)
            if name != "cmp_preload.cli":
                self.assertNotIn("by name", others, name)

    def test_commands_do_not_import_each_other(self):
        for name, others in self.graph.items():
            if room_of(name) == "commands":
                self.assertEqual({other for other in others if room_of(other) == "commands"}, set())

    def test_the_readme_describes_them(self):
        text = (SOURCE / "scripts" / "README.md").read_text()
        described = re.findall(r"^\| `(\w+)` \|", text.split("## Inside")[1], re.M)
        self.assertEqual(sorted(described), self.rooms)


class Checks(TestCase):
    """That the test above sees what it is to see."""

    def package(self, **files):
        folder = self.folder() / "p"
        folder.mkdir()
        (folder / "__init__.py").write_text("")
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        return graph_of(folder)

    def test_every_kind_of_import(self):
        graph = self.package(
            a="import p.b\nimport json",
            b="def f():\n    from p import c",
            c="if 1:\n    from p.d import x, y",
            d="from .e import z",
            e="from . import f",
            f="import importlib\nimportlib.import_module(x)",
        )
        self.assertEqual(
            graph,
            {
                "p": set(),
                "p.a": {"p.b"},
                "p.b": {"p.c"},
                "p.c": {"p.d"},
                "p.d": {"p.e"},
                "p.e": {"p.f"},
                "p.f": {"by name"},
            },
        )
        self.assertIsNone(circle_in(graph))

    def test_circles(self):
        circle = circle_in(self.package(a="from p import b", b="def f():\n    import p.a"))
        self.assertEqual(set(circle), {"p.a", "p.b"})
        self.assertIsNotNone(circle_in(self.package(a="from p.a import x")))


if __name__ == "__main__":
    main()
