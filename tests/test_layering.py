"""Imports go the way that the README's architecture says, and importing the package is cheap."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
BELOW_MODELS = {"functional", "nn"}

# What a room may import, besides itself. A new room needs a line here and in the README.
MAY_IMPORT = {
    "functional": set(),
    "nn": {"functional"},
    "models": BELOW_MODELS,
    "recipes": BELOW_MODELS,
    "objectives": {"functional"},
    "data": {"functional", "models", "objectives"},
    "analysis": BELOW_MODELS | {"models"},
    "check": BELOW_MODELS | {"models"},
    "interop": BELOW_MODELS | {"models", "data"},
    # Cards and weights come from strangers as data do, and are read through the same door.
    "pretrained": BELOW_MODELS | {"models", "interop", "data", "export"},
    "training": BELOW_MODELS | {"models", "data", "analysis", "objectives"},
}
MAY_IMPORT["export"] = BELOW_MODELS | {"models", "data"}
MAY_IMPORT["command"] = set(MAY_IMPORT)
ROOMS = sorted(path.parent.name for path in ROOT.glob("pspike_jax/*/__init__.py"))
LATE = (
    "tensorflow", "tensorflow_datasets", "matplotlib", "sklearn", "h5py", "pandas", "torch",
    "huggingface_hub", "safetensors",
)


def at_import(node):
    """Yield the statements that run when a module is imported, those under `if` and `try` too."""
    for child in ast.iter_child_nodes(node):
        is_for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if not (isinstance(child, (ast.FunctionDef, ast.Lambda)) or is_for_types):
            yield child
            yield from at_import(child)


def imported(folder, at_import_only=False):
    """Yield (file, full dotted name) of the imports below a folder."""
    for path in folder.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in at_import(tree) if at_import_only else ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from ((path.relative_to(ROOT), alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                names = (f"{'.' * node.level}{node.module}.{alias.name}" for alias in node.names)
                yield from ((path.relative_to(ROOT), name) for name in names)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_of_a_room_go_downward(room):
    wrong = [
        (str(path), name)
        for path, name in imported(ROOT / "pspike_jax" / room)
        if name.startswith((".", "experiments", "benchmarks", "tests"))
        or (name.startswith("pspike_jax.") and name.split(".")[1] not in MAY_IMPORT[room] | {room})
    ]
    assert not wrong


def test_functional_needs_jax_and_numpy_alone():
    known = {"jax", "numpy", "pspike_jax"} | sys.stdlib_module_names
    found = {name.split(".")[0] for _, name in imported(ROOT / "pspike_jax" / "functional")}
    assert found <= known


def test_ml_collections_stays_in_experiments():
    for folder in ("pspike_jax", "benchmarks"):
        found = {name.split(".")[0] for _, name in imported(ROOT / folder)}
        assert "ml_collections" not in found


@pytest.mark.parametrize("room", sorted(set(ROOMS) - {"training", "recipes"}))
def test_optimizers_and_checkpoints_stay_where_models_are_fitted(room):
    found = {name.split(".")[0] for _, name in imported(ROOT / "pspike_jax" / room)}
    assert not found & {"optax", "orbax"}


def test_heavy_libraries_are_imported_where_they_are_used():
    wrong = [
        (str(path), name)
        for path, name in imported(ROOT / "pspike_jax", at_import_only=True)
        if name.split(".")[0] in LATE + ("PIL",)
    ]
    assert not wrong


FORBIDDEN = ("jax._src", "jax.experimental.pjit", "jax.experimental.shard_map", "pickle")


@pytest.mark.parametrize("folder", ["pspike_jax", "experiments", "benchmarks", "tests"])
def test_nothing_uses_private_deprecated_or_unsafe_modules(folder):
    wrong = [(str(p), name) for p, name in imported(ROOT / folder) if name.startswith(FORBIDDEN)]
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith(FORBIDDEN):
                wrong.append((str(path), ast.unparse(node)))
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                if ast.unparse(node.value) != "False":
                    wrong.append((str(path), "allow_pickle"))
    assert not wrong


def test_import_of_the_package_loads_no_heavy_library():
    heavy = (*LATE, "flax.nnx", "optax", "orbax.checkpoint", "ml_collections")
    program = (
        f"import sys, pspike_jax; loaded = [m for m in {heavy} if m in sys.modules]; "
        "pspike_jax.interop.load_pspikessm, pspike_jax.training.fit; "
        "print(loaded, 'optax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[] True"


def test_import_of_the_package_starts_no_device():
    # A platform that does not exist fails as soon as anything asks for a device.
    program = "import os; os.environ['JAX_PLATFORMS'] = 'none_such'; import pspike_jax"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
    started = subprocess.run(
        [sys.executable, "-c", program + "; import jax; jax.devices()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert "none_such" in started.stderr
