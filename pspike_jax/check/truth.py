"""The stored truth: a small problem, and what a float64 loop makes of it.

Written once by `python -m pspike_jax.check.truth`, a loop over time in NumPy and its adjoint by
hand; arrays are float64 there, and the inputs are numbers that float32 holds exactly.
"""

import importlib.resources
import io

import numpy as np

FILE = "truth.npz"
B, L, H, N = 2, 131, 5, 4  # several chunks, the last one cut, and features that fill no block


def load() -> dict[str, np.ndarray]:
    """Return the stored arrays."""
    data = importlib.resources.files(__package__).joinpath(FILE).read_bytes()
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)


def problem() -> dict[str, np.ndarray]:
    """Draw the problem: inputs, a two-sided system with a slow pole, weights of the loss."""
    rng = np.random.default_rng(11)
    exact = lambda values: np.float64(np.float32(values))
    radius, angle = rng.uniform(0.7, 0.999, (H, N)), rng.uniform(0, np.pi, (H, N))
    return {
        "u": exact(rng.normal(size=(B, L, H))),
        "Lambda_re": exact(radius * np.cos(angle)),
        "Lambda_im": exact(radius * np.sin(angle)),
        "C_re": exact(rng.normal(size=(2, H, N))),
        "C_im": exact(rng.normal(size=(2, H, N))),
        "weight": exact(rng.normal(size=(B, L, H))),
    }


def solve(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return y (B, L, H) and the gradient of sum(weight y) by u, in float64."""
    Lambda = given["Lambda_re"] + 1j * given["Lambda_im"]
    C = given["C_re"] + 1j * given["C_im"]
    y, u_bar = np.zeros((B, L, H)), np.zeros((B, L, H))
    x, z = np.zeros((B, H, N), complex), np.zeros((B, H, N), complex)
    for t in range(L):
        x = Lambda * x + given["u"][:, t, :, None]
        y[:, t] += (C[0] * x).real.sum(-1)
    for t in reversed(range(L)):
        y[:, t] += (C[1] * z).real.sum(-1)
        z = Lambda * z + given["u"][:, t, :, None]
    past, future = np.zeros((B, H, N), complex), np.zeros((B, H, N), complex)
    for t in reversed(range(L)):  # what a step adds to itself and to all later outputs
        past = given["weight"][:, t, :, None] * C[0] + Lambda * past
        u_bar[:, t] += past.real.sum(-1)
    for t in range(L):  # and to all earlier ones
        u_bar[:, t] += future.real.sum(-1)
        future = given["weight"][:, t, :, None] * C[1] + Lambda * future
    return {"y": y, "u_bar": u_bar}


def threefry(key: tuple[int, int], block: tuple[int, int], rounds: int) -> tuple[int, int]:
    """Return Threefry-2x32 of a block, in Python's integers."""
    mask = 0xFFFFFFFF
    words = [*key, key[0] ^ key[1] ^ 0x1BD11BDA]
    a, b = (block[0] + words[0]) & mask, (block[1] + words[1]) & mask
    for done, turn in enumerate(((13, 15, 26, 6, 17, 29, 16, 24) * 3)[:rounds], start=1):
        a = (a + b) & mask
        b = ((b << turn) | (b >> (32 - turn))) & mask
        b ^= a
        group, within = divmod(done, 4)
        if not within:
            a = (a + words[group % 3]) & mask
            b = (b + words[(group + 1) % 3] + group) & mask
    return a, b


def noise() -> np.ndarray:
    """Return the uniforms of key (0, 7), layer 1, sampler 2, examples 3 and 90, steps 0 to 8."""
    found = np.zeros((2, 9, 6))
    sampler_key = threefry((0, 7), (1, 2), 20)
    for i, example in enumerate((3, 90)):
        for step in range(9):
            row_key = threefry(sampler_key, (example, step), 20)
            for feature in range(6):
                word = threefry(row_key, (feature // 2, 0), 13)[feature % 2]
                found[i, step, feature] = (word >> 8) / 2**24
    return found


if __name__ == "__main__":
    given = problem()
    path = importlib.resources.files(__package__).joinpath(FILE)
    np.savez_compressed(str(path), **given, **solve(given), noise=noise())
