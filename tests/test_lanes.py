"""The lanes name tests that exist, and mark each of them once."""

import ast
import pathlib
import types

import lanes

TESTS = pathlib.Path(__file__).resolve().parent


def names(path):
    """Return the functions and classes that a file defines, those in classes not."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, kinds)}


def test_lanes_name_tests_that_exist():
    for module, tests in lanes.QUICK.items():
        assert set(tests) <= names(TESTS / f"{module}.py"), module
    assert all((TESTS / f"{module}.py").exists() for module in lanes.NEWER | lanes.DOCS)


def test_quick_marks_one_test_of_a_file_and_docs_none():
    class Item:
        def __init__(self, module, test, parameter=""):
            self.module = types.SimpleNamespace(__name__=module)
            self.originalname, self.name, self.marks = test, test + parameter, set()

        def add_marker(self, name):
            self.marks.add(name)

    items = [
        Item("test_a", "test_x", "[0]"), Item("test_a", "test_x", "[1]"), Item("test_a", "test_y"),
        Item("test_loop", "test_other"), Item("test_loop", "test_fit_learns_the_tiny_task"),
        Item("test_readme", "test_z"), Item("test_faults", "test_z"),
    ]
    lanes.mark(items)
    marks = [item.marks for item in items]
    assert marks == [{"quick"}, set(), set(), {"newer"}, {"newer", "quick"}, {"docs"}, set()]
