"""Which files does one batch go through, from the command line to its loss?

  PYTHONPATH=.:tests python -m walk

starts `experiments.main` on the smoke variant of the quickstart, in one process, and follows the
first training batch until its loss is traced and the batch itself is on the devices. A file of
pspike_jax or experiments counts where one of its functions is handed, or returns, an array of the
batch, or what is computed from it for every example; and where one stands between `main` and the
step. The size of the batch is a prime that divides no other size, so that such arrays are known by
their shape. What is set up before (configs, parameters, checkpoints) does not count.
"""

import os
import pathlib
import sys
import tempfile
import threading
from types import FrameType
from typing import Any

import jax

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGES = tuple(f"{ROOT / name}{os.sep}" for name in ("pspike_jax", "experiments"))
BATCH = 37
found: dict[str, set[str]] = {}  # file -> functions
inside = {"make": 0, "step": 0}  # calls of these that are running


def place(frame: FrameType) -> str | None:
    """Return the file of a frame from the root, or None outside of the packages."""
    name = frame.f_code.co_filename
    return name[len(str(ROOT)) + 1 :] if name.startswith(PACKAGES) else None


def of_batch(value: Any) -> bool:
    """Return whether an array of the batch is in a value."""
    try:
        shapes = [getattr(leaf, "shape", ()) for leaf in jax.tree.leaves(value)]
        return any(size % BATCH == 0 for shape in shapes for size in shape if size)
    except (TypeError, ValueError):  # no tree, or sizes without a number
        return False


def note(frame: FrameType, event: str, result: Any) -> None:
    """Note a function of the packages where it starts or returns; end when the batch arrives."""
    if event not in ("call", "return") or (name := place(frame)) is None:
        return
    code = frame.f_code
    kind = {"_make": "make", "train_step": "step"}.get(code.co_name)
    if kind is not None:
        inside[kind] += 1 if event == "call" else -1
    if any(inside.values()) or kind is not None:
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        values = [frame.f_locals.get(one) for one in names if one != "self"]
        if of_batch(values if event == "call" else result):
            found.setdefault(name, set()).add(code.co_qualname)
    if event == "return" and name.endswith("training/run.py") and code.co_name == "next":
        while frame is not None:
            if (name := place(frame)) is not None:
                found.setdefault(name, set()).add(frame.f_code.co_qualname)
            frame = frame.f_back
        report()


def report() -> None:
    """Print the files, by package, and end the process, whose training is of no interest."""
    sys.setprofile(None)
    threading.setprofile(None)
    for name, functions in sorted(found.items()):
        print(f"{name}: {', '.join(sorted(functions))}")
    print(f"{len(found)} files")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    from experiments.main import main

    config = ROOT / "experiments" / "configs" / "quickstart.py"
    threading.setprofile(note)
    sys.setprofile(note)
    main([
        f"--config={config}:smoke", f"--workdir={tempfile.mkdtemp()}",
        f"--config.training.batch_size={BATCH}", *sys.argv[1:],
    ])
