"""A training step with and without huge pages, which commands that train ask glibc for.

  python -m benchmarks.huge_pages

One process each, of P-SpikeSSM on psMNIST as experiments/configs/mnist_cpu.py has it: a tunable
counts from the start of a process. Both have to give one loss before steps are timed by turns.
"""

import os
import subprocess
import sys
from collections.abc import Sequence


from benchmarks import timing, train_step
from pspike_jax.command.huge_pages import HUGE_PAGES, TUNABLES

PAGES = {"pages of 4 KB": "", "huge pages": HUGE_PAGES}
FIELDS = {"preset": "paper", "n_layers": 2, "norm": "batch", "initializer": "lin"}


def serve(batch: int, length: int, d_model: int, d_state: int) -> None:
    """Print the loss of a step, then the seconds of one for each line that comes in."""
    model, variables, inputs, labels = train_step.make(
        "paper", batch, length, d_model=d_model, d_state=d_state, **FIELDS
    )
    params, logits = variables["params"], train_step.model_logits(model, variables)
    [program] = train_step.compiled({"step": logits}, params, inputs, labels)
    loss = program.run()[-1]
    print(float(loss).hex(), program.compile_s, program.temp_bytes, flush=True)
    for _ in sys.stdin:
        print(program.seconds(1), flush=True)


def start(tunables: str, sizes: Sequence[int]) -> subprocess.Popen:
    """Start a process that serves."""
    program = f"from benchmarks.huge_pages import serve; serve(*{tuple(sizes)!r})"
    return subprocess.Popen(
        [sys.executable, "-c", program], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {TUNABLES: tunables},
    )


def measure(quick: bool) -> list[timing.Record]:
    """Time steps of both by turns."""
    sizes = (2, 16, 4, 4) if quick else (32, 784, 128, 16)
    served = {name: start(tunables, sizes) for name, tunables in PAGES.items()}
    try:
        first = {name: process.stdout.readline().split() for name, process in served.items()}
        if len({loss for loss, *_ in first.values()}) > 1:
            raise ValueError(f"losses differ: {first}")
        seconds = {name: [] for name in served}
        for count in range(3 if quick else 31):
            for name in list(served)[:: -1 if count % 2 else 1]:
                process = served[name]
                process.stdin.write("\n")
                process.stdin.flush()
                seconds[name].append(float(process.stdout.readline()))
    finally:
        for process in served.values():
            process.kill()
            process.communicate()
    setting = dict(zip(("batch", "L", "H", "N"), sizes)) | {"part": "paper"}
    records = [
        setting | {"contender": name, "compile_s": float(compile_s), "temp_bytes": int(memory)}
        | timing.quartiles(seconds[name])
        for name, (_, compile_s, memory) in first.items()
    ]
    for record in records:
        record["speedup"] = timing.ratio(records[0], record)
    return records


if __name__ == "__main__":
    timing.main("huge_pages", measure)
