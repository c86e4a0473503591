"""The engines that evaluate a linear recurrence, by name."""

import enum

# What platforms are called by `jax.lax.platform_dependent`, and in tables of engines.
PLATFORMS = {"cpu": "cpu", "cuda": "gpu", "rocm": "gpu", "tpu": "tpu"}


class Engine(str, enum.Enum):
    """How a linear recurrence is evaluated; all give the same numbers and backward passes.

    What else they have, in `linear_ssm` and, the first two, in `linear_recurrence`:

    | engine      | forward mode | resets | length without a number | time over devices       |
    | ----------- | ------------ | ------ | ----------------------- | ----------------------- |
    | sequential  | yes          | yes    | yes                     | no                      |
    | associative | yes          | yes    | no                      | no                      |
    | chunked     | no           | yes    | no                      | `sequence_parallel_ssm` |
    | fft         | yes          | no     | no                      | no                      |

    All take an initial state, two-sided readouts, and a batch without a number (`jax.export`), and
    all have gradients of gradients. Where resets are given, `fft` runs the chunked engine; `auto`
    runs any of them, for a length without a number the sequential one. So name an engine for
    forward mode (`jax.jvp`, `jax.jacfwd`, Hessian products): the chunked engine breaks off there
    with JAX's error about a function with a custom_vjp, and so do the products of packed spikes.
    Steps of different sizes are for `linear_recurrence` with a decay for each step, see
    `discretize_zoh`.

    Attributes:
      AUTO: the one that was measured to be fastest for the shapes and the platform.
      SEQUENTIAL: one step after another, `lax.scan`.
      ASSOCIATIVE: in parallel over time, `lax.associative_scan`.
      CHUNKED: matrix products within chunks, a short scan of states between them.
      FFT: convolution with the kernel by the fast Fourier transform.
    """

    AUTO = "auto"
    SEQUENTIAL = "sequential"
    ASSOCIATIVE = "associative"
    CHUNKED = "chunked"
    FFT = "fft"

    @property
    def scope(self) -> str:
        """What compiled programs and profiles call the engine's operations."""
        return f"engine_{self.value}"


def parse_engine(engine: Engine | str) -> Engine:
    """Return the member that `engine` names.

    Raises:
      ValueError: there is none; the message lists those that exist.
    """
    try:
        return Engine(engine)
    except ValueError:
        names = ", ".join(member.value for member in Engine)
        raise ValueError(f"unknown engine {engine!r}; expected one of {names}") from None
