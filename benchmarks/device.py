"""Everything worth knowing of one device, in one command of a fixed time.

  python -m benchmarks.device --data_dir=DATA --output=OUT --minutes=10
  python -m benchmarks.device --output=OUT --quick      # tiny shapes, on whatever is at hand

In this order, each step in a process of its own, so that what fails or takes too long costs the
others nothing: `pspike_jax.check`, the benchmarks `ssm_engines`, `train_step` and `shares`, then,
for the time that is left, psMNIST at its published size from DATA (as `experiments.prepare` left
it), whose run folder, checkpoints among it, lies in OUT. OUT/device.json says what each step took
and whether it ended.
"""

import json
import pathlib
import subprocess
import sys
import time

from absl import app, flags

from experiments.record import hardware
from pspike_jax.analysis.files import atomic_write

DATA = flags.DEFINE_string("data_dir", None, "Folder of prepared data; without it no training.")
OUTPUT = flags.DEFINE_string("output", None, "Folder of all results.", required=True)
MINUTES = flags.DEFINE_float("minutes", 10, "Time of the whole command.", lower_bound=0.1)
QUICK = flags.DEFINE_bool("quick", False, "Tiny shapes, and the smoke variant of psMNIST.")
RESERVE_S = 20  # of the whole time, to end a training with its last checkpoint


def steps(folder: pathlib.Path) -> dict[str, list[str]]:
    """Return {name: arguments of python}."""
    tiny = ["--quick"] if QUICK.value else [f"--output={folder}"]
    found = {"check": ["-m", "pspike_jax.check", "--json"]}
    for name in ("ssm_engines", "train_step", "shares"):
        found[name] = ["-m", f"benchmarks.{name}", *tiny]
    if DATA.value or QUICK.value:
        config = "experiments/configs/psmnist.py" + (":smoke" if QUICK.value else "")
        found["psmnist"] = ["-m", "experiments.main", f"--config={config}",
                            f"--workdir={folder / 'psmnist'}"]  # fmt: skip
        if not QUICK.value:
            found["psmnist"].append(f"--config.task.data_dir={DATA.value}")
    return found


def run(arguments: list[str], log: pathlib.Path, seconds: float) -> str:
    """Run a program with its output in a file; return "ended", "stopped" or "failed: STATUS"."""
    with log.open("w") as output:
        process = subprocess.Popen([sys.executable, *arguments], stdout=output, stderr=output)
        try:
            status = process.wait(max(seconds, 1))
        except subprocess.TimeoutExpired:
            process.terminate()  # a training saves where it is
            try:
                process.wait(RESERVE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            return "stopped"
    return "ended" if status == 0 else f"failed: {status}"


def main(argv: list[str]) -> None:
    """Run all steps and write what became of them after each."""
    if argv[1:]:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    end = time.monotonic() + 60 * MINUTES.value - RESERVE_S
    folder = pathlib.Path(OUTPUT.value).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    record = {"hardware": hardware(), "minutes": MINUTES.value, "steps": {}}
    for name, arguments in steps(folder).items():
        start = time.monotonic()
        outcome = run(arguments, folder / f"{name}.log", end - start)
        record["steps"][name] = {
            "outcome": outcome, "seconds": round(time.monotonic() - start, 1)
        }
        print(f"{name}: {outcome}, {record['steps'][name]['seconds']} s", flush=True)
        atomic_write(folder / "device.json", json.dumps(record, indent=1) + "\n")
    if any(step["outcome"].startswith("failed") for step in record["steps"].values()):
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
