"""What is installed is what there is: data files in the wheel, all that tests read in the sdist."""

import configparser
import importlib
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def test_every_file_of_the_package_is_in_the_wheel():
    listed = {
        package: [pattern.strip() for pattern in patterns.split(",")]
        for package, patterns in SETUP["options.package_data"].items()
    }
    shipped = {
        path
        for package, patterns in listed.items()
        for pattern in patterns
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    missing = [
        path.relative_to(ROOT).as_posix() for path in (ROOT / "pspike_jax").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and path not in shipped
    ]
    assert missing == []
    modules = {path.parent for path in (ROOT / "pspike_jax").rglob("*.py")}
    assert [folder for folder in modules if not (folder / "__init__.py").exists()] == []


def test_every_public_name_is_there():
    """`from ROOM import *` works for each module that says what it offers, and offers it once."""
    listed = {}
    for path in sorted((ROOT / "pspike_jax").rglob("*.py")):
        if "__all__ = [" in path.read_text():
            name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
            module = importlib.import_module(name.removesuffix(".__init__"))
            listed[name] = module.__all__
            missing = [one for one in module.__all__ if not hasattr(module, one)]
            assert missing == [], f"{name} lacks {missing}"
            assert len(set(module.__all__)) == len(module.__all__), f"{name} names one twice"
    assert len(listed) > 10


def test_sdist_has_all_that_the_tests_read():
    grafted = {
        line.split()[1] for line in (ROOT / "MANIFEST.in").read_text().splitlines()
        if line.startswith("graft")
    }
    assert {"benchmarks", "docs", "experiments", "tests"} <= grafted


def test_the_program_is_the_function_that_setup_names():
    (line,) = SETUP["options.entry_points"]["console_scripts"].strip().splitlines()
    name, _, place = line.partition(" = ")
    module, _, function = place.partition(":")
    assert name == "pspike" and callable(getattr(importlib.import_module(module), function))
