"""Time and memory of `linear_ssm` by each engine, against plain programs.

  python -m benchmarks.ssm_engines            # record and picture in benchmarks/results
  python -m benchmarks.ssm_engines --table    # what `auto` decides by, for this platform

Poles are S4D-LegS by zero-order hold, inputs are spikes. A gradient is that with respect to the
inputs and all parameters. The second command replaces this platform's rows of
pspike_jax/functional/engine_table.json.
"""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

import pspike_jax.functional
from benchmarks import plain, timing
from pspike_jax.analysis.canvas import GREY, PALETTE, WIDTH
from pspike_jax.analysis.files import atomic_write
from pspike_jax.functional import discretize_zoh, linear_ssm, s4d_legs

TABLE = flags.DEFINE_bool("table", False, "Measure the table that engine='auto' decides by.")
TABLE_PATH = pathlib.Path(pspike_jax.functional.__file__).parent / "engine_table.json"

PLAIN = {
    "plain fft": plain.fft_ssm,
    "plain associative": plain.associative_ssm,
    "plain scan": plain.scan_ssm,
}
ENGINES = ("chunked", "fft", "associative", "sequential")
# Relative to the peak of each array; 1e-5 was seen at most, at 65,536 steps, where the plain
# kernel's exp(l log Lambda_bar) has a phase of hundreds of radian in float32.
TOLERANCE = 1e-4
TOO_LONG_S = 6.0  # a contender that will probably take longer is left out
MOST_SCANNED = 4e7  # largest B L H N for scans that keep arrays of that size
LOST = 5.0  # and one that was this many times slower than the fastest at a shorter length
# Of a shape: rounds with plain programs take seconds, and gigabytes.
CAREFUL = {"budget_s": 25.0, "min_rounds": 5, "sample_s": 0.3, "warm_s": 0.5}
PRODUCT = 2048  # size of the matrix product that stands for the machine's rate


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of a problem; state counts the stored conjugate pairs."""

    batch: int
    length: int
    features: int
    state: int
    shared: bool = False
    two_sided: bool = False
    state_wanted: bool = False

    @property
    def work(self) -> int:
        """What the time of a recurrence is proportional to."""
        return self.batch * self.length * self.features * self.state


def arguments(shape: Shape, seed: int = 0) -> tuple[jax.Array, ...]:
    """Return u, Lambda_bar, B_bar, C, a cotangent of y, and an initial state or None."""
    rng = np.random.default_rng(seed)
    B, L, H, N = shape.batch, shape.length, shape.features, shape.state
    dt = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), H))
    poles = np.broadcast_to(s4d_legs(2 * N), (H, N))
    if shape.shared:
        dt[:] = dt[0]
    Lambda_bar, gain = discretize_zoh(jnp.asarray(poles, jnp.complex64), jnp.asarray(dt))
    if shape.shared:
        Lambda_bar, gain = Lambda_bar[0], gain[0]
    normal = lambda *sizes: rng.normal(size=(*sizes, 2)) @ np.array([1, 1j])
    C = normal(*((2,) if shape.two_sided else ()), H, N)
    state = jnp.asarray(normal(B, H, N), jnp.complex64) if shape.state_wanted else None
    u = jnp.asarray(rng.random((B, L, H)) < 0.2, jnp.float32)
    cotangent = jnp.asarray(rng.normal(size=(B, L, H)), jnp.float32)
    return u, Lambda_bar, gain, jnp.asarray(C, jnp.complex64), cotangent, state


def by_engine(engine: str) -> Callable[..., Any]:
    """Return a function of (u, Lambda_bar, B_bar, C, state) to what is used of `linear_ssm`."""

    def run(u, Lambda_bar, B_bar, C, state):
        y, final = linear_ssm(u, Lambda_bar, B_bar, C, initial_state=state, engine=engine)
        return y, None if state is None else final

    return run


def forward(model: Callable[..., Any]) -> Callable[..., Any]:
    """Return the program of a forward pass."""
    return lambda u, Lambda_bar, B_bar, C, cotangent, state: model(u, Lambda_bar, B_bar, C, state)


def gradient(model: Callable[..., Any]) -> Callable[..., Any]:
    """Return the program of a loss and its gradient."""

    def loss(u, Lambda_bar, B_bar, C, cotangent, state):
        y, final = model(u, Lambda_bar, B_bar, C, state)
        return jnp.vdot(y, cotangent) + (0 if final is None else jnp.sum(final.real))

    return jax.value_and_grad(loss, argnums=(0, 1, 2, 3))


LENGTHS = (1024, 4096, 16_384, 65_536)
LAYERS = (
    Shape(8, 2048, 128, 32),
    Shape(16, 784, 400, 32),  # psMNIST
    Shape(32, 64, 128, 8),  # the quickstart
)
PASSES = {"forward": forward, "forward+backward": gradient}


def compare(shape: Shape, passes: str, models: dict[str, Callable], extra=(), **how):
    """Compile, check and time models of one shape; return the records of models and extras."""
    given = arguments(shape)
    programs = [
        timing.compile_program(name, PASSES[passes](model), *given)
        for name, model in models.items()
    ]
    differences = timing.check_agreement(programs, TOLERANCE)
    setting = {"batch": shape.batch, "L": shape.length, "H": shape.features, "N": shape.state}
    setting["pass"] = passes
    return timing.measure(
        [*programs, *extra], setting=setting, differences=differences, **how
    )


def contenders(shape: Shape) -> dict[str, Callable]:
    """Return the plain programs, the first of them the reference, and the engines."""
    without_state = {
        name: lambda u, Lambda_bar, B_bar, C, state, f=f: (f(u, Lambda_bar, B_bar, C), None)
        for name, f in PLAIN.items()
    }
    models = without_state | {name: by_engine(name) for name in ("auto", *ENGINES)}
    scanned = ("plain associative", "associative") if shape.work > MOST_SCANNED else ()
    return {name: model for name, model in models.items() if name not in scanned}


def matrix_product() -> timing.Program:
    """Return a large float32 matrix product, which runs at the rate of the machine."""
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.normal(size=(PRODUCT, PRODUCT)), jnp.float32) for _ in range(2))
    return timing.compile_program("matrix product", jnp.matmul, a, b)


def affordable(names, last: Sequence[timing.Record], growth: float) -> list[str]:
    """Return the contenders that a problem `growth` times as large will not keep long."""
    slow = {r["contender"] for r in last if r["median_s"] * growth > TOO_LONG_S}
    return [name for name in names if name not in slow]


def measure(quick: bool) -> list[timing.Record]:
    """Time all contenders against length, and in three layers of models."""
    sweep = [Shape(1, 9, 4, 2)] if quick else [Shape(1, L, 64, 32) for L in LENGTHS]
    records, last, names = [], [], list(contenders(sweep[0]))
    for before, shape in zip([None, *sweep], sweep):
        growth = 1 if before is None else shape.work / before.work
        names = affordable(names, last, growth)
        models = contenders(shape)
        own = {n: models[n] for n in names if n in models}
        last = compare(shape, "forward+backward", own, **({} if quick else CAREFUL))
        records += last
    if quick:
        shape = Shape(2, 9, 3, 2)
        return records + compare(shape, "forward", contenders(shape))
    records += compare(LAYERS[0], "forward", contenders(LAYERS[0]), [matrix_product()], **CAREFUL)
    for shape in LAYERS:
        records += compare(shape, "forward+backward", contenders(shape), **CAREFUL)
    return records


def draw(records: Sequence[timing.Record]):
    """Plot time and memory of forward+backward against length, one example."""
    from matplotlib.figure import Figure

    rows = timing.select(records, **{"batch": 1, "pass": "forward+backward"})
    fig = Figure(figsize=(WIDTH, 3.8), layout="constrained")
    axes = fig.subplots(1, 2)
    colours = dict(zip(("auto", *ENGINES), PALETTE)) | dict.fromkeys(PLAIN, GREY)
    markers = dict(zip(PLAIN, "sv^"))
    for ax, field, unit, title in zip(
        axes, ("median_s", "temp_bytes"), (1e-3, 2**20), ("Time (ms)", "Temporary memory (MiB)")
    ):
        for name, colour in colours.items():
            own = timing.select(rows, contender=name)
            style = {"linestyle": "--" if name in PLAIN else "-", "marker": markers.get(name, "o")}
            width = 3.5 if name == "auto" else 1.5  # auto lies under the engine that it chose
            ax.loglog(
                [r["L"] for r in own], [r[field] / unit for r in own],
                color=colour, label=name, linewidth=width, markersize=4, **style,
            )
        ax.set_title(title, loc="left")
        ax.set_xlabel("L (steps)")
        ax.spines[["top", "right"]].set_visible(False)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return fig


def table_shapes(quick: bool) -> list[list[Shape]]:
    """Return the shapes of the table, among them the benchmark's; lists are ordered by length."""
    lengths = (1, 5) if quick else (1, 8, 64, 256, 1024, 2048, 4096, 16_384)
    # About 8,000 steps in a batch, as a training step has.
    series = lambda H, N, **flags: [
        Shape(max(1, min(8, 8192 // L)), L, H, N, **flags) for L in lengths
    ]
    if quick:
        return [series(2, 2, shared=True, two_sided=True, state_wanted=True)]
    return [
        *(series(H, N) for H, N in itertools.product((16, 128), (8, 32))),
        series(128, 8, two_sided=True),
        series(128, 8, state_wanted=True),
        series(128, 8, shared=True),
        [Shape(1, L, 64, 32) for L in LENGTHS],
        *([shape] for shape in LAYERS),
    ]


def table_rows(quick: bool) -> list[dict[str, Any]]:
    """Measure the engines for the table."""
    rows = []
    for series in table_shapes(quick):
        names, last = ENGINES, []
        for before, shape in zip([None, *series], series):
            growth = 1 if before is None else shape.work / before.work
            names = affordable(names, last, growth)
            if shape.work > MOST_SCANNED:
                names = [name for name in names if name in ("chunked", "fft")]
            models = {name: by_engine(name) for name in names}
            last = compare(shape, "forward+backward", models, rounds=9, budget_s=1.0)
            seconds = {r["contender"]: r["median_s"] for r in last}
            if shape.length >= 64:  # below, times are those of calls
                names = [name for name in names if seconds[name] < LOST * min(seconds.values())]
            size = dataclasses.asdict(shape)
            where = {"platform": jax.default_backend()}
            rows.append(where | size | {"seconds": seconds, "measured": True})
            print(f"{size} {seconds}", flush=True)
    return rows


def write_table(path: pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
    """Put rows into a table of engines, in the place of those of their platforms."""
    platforms = {row["platform"] for row in rows}
    table = json.loads(path.read_text()) if path.exists() else []
    kept = [row for row in table if row["platform"] not in platforms]
    lines = ",\n".join(f" {json.dumps(row)}" for row in (*rows, *kept))
    atomic_write(path, f"[\n{lines}\n]\n")


def run_table(argv: Sequence[str]) -> None:
    """Measure and write the table, into --output where that is given."""
    del argv
    rows = table_rows(timing.QUICK.value)
    if timing.OUTPUT.value:
        write_table(pathlib.Path(timing.OUTPUT.value) / TABLE_PATH.name, rows)
    elif not timing.QUICK.value:
        write_table(TABLE_PATH, rows)


def main(argv: Sequence[str]) -> None:
    """Run the benchmark, or measure the table."""
    if TABLE.value:
        run_table(argv)
    else:
        timing.run("ssm_engines", measure, draw, argv)


if __name__ == "__main__":
    app.run(main)
