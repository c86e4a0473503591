"""The diagonal-plus-low-rank kernel against a dense float64 recurrence and recorded kernels."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from pspike_jax.functional.discretization import discretize_bilinear_dplr
from pspike_jax.functional.dplr import dplr_kernel, length_attuned
from pspike_jax.functional.initializers import hippo_legs_nplr

RECORDED = [
    "bidirectional_noise",
    "bidirectional_threshold",
    "layernorm_train_noise",
    "unidirectional_threshold",
]

kernel = jax.jit(dplr_kernel, static_argnums=6)


def both(pairs):
    """Stored halves (..., N) and their conjugates, (..., 2N), in float64."""
    return np.concatenate([pairs, np.conj(pairs)], axis=-1).astype(np.complex128)


def dense_step(Lambda, P, Q, B, dt):
    """A_bar (2N, 2N) and B_bar (2N,) of one feature by linear solves in float64."""
    A = np.diag(both(Lambda)) - np.outer(both(P), both(Q))
    left, right = np.eye(len(A)) - dt / 2 * A, np.eye(len(A)) + dt / 2 * A
    return np.linalg.solve(left, right), np.linalg.solve(left, dt * both(B))


def readout(C_tilde, A_bar, L):
    """C from C_tilde = C (I - A_bar^L), both halves of one feature."""
    remainder = np.eye(len(A_bar)) - np.linalg.matrix_power(A_bar, L)
    return np.linalg.solve(remainder.T, both(C_tilde))


def dense_kernel(Lambda, P, Q, B, C_tilde, dt, L):
    """Kernel of every feature, (H, L), by stepping the dense state L times in float64."""
    H, N = C_tilde.shape
    Lambda, P, Q, B = (np.broadcast_to(x, (H, N)) for x in (Lambda, P, Q, B))
    result = np.zeros((H, L))
    for h in range(H):
        A_bar, x = dense_step(Lambda[h], P[h], Q[h], B[h], float(dt[h]))
        C = readout(C_tilde[h], A_bar, L)
        for t in range(L):
            result[h, t] = (C @ x).real
            x = A_bar @ x
    return result


def complex_normal(rng, *shape):
    draws = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    return (draws / np.sqrt(2)).astype(np.complex64)


def random_arguments(rng, H, N, kernels=(), shared=False):
    """Lambda, P, Q, B, C_tilde, dt in single precision; Q is not quite the conjugate of P."""
    Lambda, P, B = (x.astype(np.complex64) for x in hippo_legs_nplr(2 * N))
    Q = P.conj() * np.complex64(1 + 0.1j)
    if not shared:
        Lambda, P, Q, B = (x * rng.uniform(0.8, 1.2, (H, 1)).astype(np.float32)
                           for x in (Lambda, P, Q, B))
    dt = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), H)).astype(np.float32)
    return Lambda, P, Q, B, complex_normal(rng, *kernels, H, N), dt


def recorded_kernels(arrays):
    """Yield ((Lambda, P, Q, B, C_tilde, dt, L), kernel) for every kernel of a recorded file."""
    layers = json.loads(str(arrays["meta"]))["n_layers"]
    for i in range(layers):
        for name, module in (("kernel", "layer"), ("kernel_reverse", "reverse_layer")):
            if f"{name}/{i}" not in arrays:
                continue
            stored = {key: arrays[f"param/layers.{i}.{module}.layer.kernel.{key}"]
                      for key in ("A_real", "A_imag", "P", "B", "C", "inv_dt", "l_kernel")}
            P, B, C = (stored[key][..., 0] + 1j * stored[key][..., 1] for key in "PBC")
            Lambda = -np.exp(stored["A_real"]) - 1j * stored["A_imag"]
            # One set of modes for all features is stored as a leading axis of 1.
            Lambda, P, B = (x[0] if len(x) == 1 else x for x in (Lambda, P[0], B[0]))
            dt = np.log1p(np.exp(stored["inv_dt"][:, 0]))
            yield (Lambda, P, P.conj(), B, C, dt, int(stored["l_kernel"])), arrays[f"{name}/{i}"]


@pytest.mark.parametrize("name", RECORDED)
def test_dplr_kernel_reproduces_the_recorded_kernels(golden, name):
    found = list(recorded_kernels(golden(f"pspikessm_{name}.npz")))
    assert len(found) in (2, 4)  # two layers, one or two directions
    for arguments, expected in found:
        # The tolerance that the recordings themselves are good to.
        np.testing.assert_allclose(kernel(*arguments), expected, rtol=1e-4, atol=1e-5)


# 1, 2, 3: the smallest; 300, 301: more than one block of frequencies, even and odd.
@pytest.mark.parametrize("L", [1, 2, 3, 50, 300, 301])
@pytest.mark.parametrize("shared", [True, False])
def test_dplr_kernel_matches_the_dense_float64_recurrence(rng, L, shared):
    arguments = random_arguments(rng, 3, 4, shared=shared)
    expected = dense_kernel(*arguments, L)
    # float32 sums of N poles near resonance: measured 2e-7 to 2e-6 of the peak.
    np.testing.assert_allclose(kernel(*arguments, L), expected, atol=5e-6 * np.abs(expected).max())


def test_dplr_kernel_gives_two_kernels_as_it_gives_each_alone(rng):
    *shared, C_tilde, dt = random_arguments(rng, 3, 4, kernels=(2,))
    together = kernel(*shared, C_tilde, dt, 40)
    assert together.shape == (2, 3, 40)
    alone = np.stack([kernel(*shared, C_tilde[i], dt, 40) for i in range(2)])
    # The same arithmetic in another order: float32 rounding.
    np.testing.assert_allclose(together, alone, atol=1e-6 * np.abs(alone).max())


def test_dplr_kernel_has_the_limit_at_the_nyquist_frequency(rng):
    Lambda, P, Q, B, C_tilde, dt = random_arguments(rng, 3, 4)
    entries = np.asarray(kernel(Lambda, P, Q, B, C_tilde, dt, 64))
    alternating = np.sum(entries[:, ::2], axis=1) - np.sum(entries[:, 1::2], axis=1)
    expected = dt * np.sum((B * C_tilde).real, axis=1)
    # A sum of 64 float32 numbers.
    np.testing.assert_allclose(alternating, expected, atol=1e-5 * np.abs(expected).max())


def test_dplr_kernel_stays_accurate_for_long_sequences_and_many_fast_modes(rng):
    *rest, C_tilde, _ = random_arguments(rng, 2, 16, shared=True)
    dt = np.array([1e-3, 1e-1], np.float32)
    expected = dense_kernel(*rest, C_tilde, dt, 2048)
    peaks = np.abs(expected).max(axis=1, keepdims=True)
    ours = np.asarray(kernel(*rest, C_tilde, dt, 2048))
    # Measured 3e-7 to 2e-6 of each feature's peak.
    np.testing.assert_allclose(ours / peaks, expected / peaks, atol=1e-5)


@pytest.mark.parametrize("L, shared", [(7, False), (8, True)])
def test_dplr_kernel_has_the_gradients_of_the_dense_recurrence(rng, L, shared):
    arguments = random_arguments(rng, 2, 3, shared=shared)
    arguments = (*arguments[:5], np.array([0.02, 0.1], np.float32))
    weights = rng.normal(size=(2, L))
    loss = lambda *a: jnp.sum(weights * dplr_kernel(*a, L))
    gradients = jax.jit(jax.grad(loss, range(6)))(*arguments)
    wide = [x.astype(np.result_type(x.dtype, np.float64)) for x in arguments]
    for i, gradient in enumerate(gradients):
        direction = rng.normal(size=wide[i].shape)
        if np.iscomplexobj(wide[i]):
            direction = direction + 1j * rng.normal(size=wide[i].shape)
        ahead, behind = ([x + step * direction if j == i else x for j, x in enumerate(wide)]
                         for step in (1e-6, -1e-6))
        expected = np.sum(weights * (dense_kernel(*ahead, L) - dense_kernel(*behind, L))) / 2e-6
        # Terms of either sign cancel in the sum, so the error is seen against their size. Measured:
        # 1e-6, for dt, whose entries are sums over all poles, 1e-5; the differences err by 1e-7.
        size = np.sum(np.abs(gradient * direction))
        np.testing.assert_allclose(np.sum(gradient * direction).real, expected, atol=5e-5 * size)


def test_dplr_kernel_is_the_impulse_response_of_the_dense_recurrence(rng):
    Lambda, P, Q, B, C_tilde, dt = random_arguments(rng, 3, 4)
    A_bar, B_bar = jax.jit(discretize_bilinear_dplr)(Lambda, P, Q, B, dt)
    exact = [dense_step(Lambda[h], P[h], Q[h], B[h], float(dt[h]))[0] for h in range(3)]
    C = np.stack([readout(C_tilde[h], exact[h], 65)[:4] for h in range(3)]).astype(np.complex64)
    impulse = np.zeros((65, 3), np.float32)
    impulse[0] = 1
    y, _ = oracles.dplr_recurrence(impulse, A_bar, B_bar, C)
    expected = np.asarray(kernel(Lambda, P, Q, B, C_tilde, dt, 65))
    # Rounding of A_bar in float32 adds up over 65 steps: measured 3e-6 of the peak.
    np.testing.assert_allclose(y.T, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kernels", [(), (2,)])
def test_length_attuned_matches_float64(rng, kernels):
    Lambda, P, Q, B, C, dt = random_arguments(rng, 3, 4, kernels)
    A_bar, _ = jax.jit(discretize_bilinear_dplr)(Lambda, P, Q, B, dt)
    C_tilde = jax.jit(length_attuned, static_argnums=2)(C, A_bar, 30)
    assert C_tilde.shape == C.shape
    for h in range(3):
        exact, _ = dense_step(Lambda[h], P[h], Q[h], B[h], float(dt[h]))
        expected = both(C[..., h, :]) @ (np.eye(8) - np.linalg.matrix_power(exact, 30))
        # 30 powers of a matrix rounded to 6e-8.
        np.testing.assert_allclose(C_tilde[..., h, :], expected[..., :4], atol=1e-5)


def test_dplr_kernel_needs_no_array_of_all_poles_and_frequencies(rng):
    H, N, L = 16, 16, 4096
    arguments = random_arguments(rng, H, N, shared=True)
    gradient = jax.jit(jax.grad(lambda *a: jnp.sum(dplr_kernel(*a, L) ** 2), range(6)))
    used = gradient.lower(*arguments).compile().memory_analysis().temp_size_in_bytes
    # One complex64 array over (H, N, L / 2 + 1); without blocks the gradient holds six of them.
    assert used < 8 * H * N * (L // 2 + 1)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_dplr_lowers_in_single_precision(rng, platform):
    def loss(Lambda, P, Q, B, C, dt):
        A_bar, _ = discretize_bilinear_dplr(Lambda, P, Q, B, dt)
        C_tilde = length_attuned(C, A_bar, 8)
        return jnp.sum(dplr_kernel(Lambda, P, Q, B, C_tilde, dt, 8))

    traced = jax.jit(jax.grad(loss, range(6))).trace(*random_arguments(rng, 2, 3))
    assert "f64" not in traced.lower(lowering_platforms=(platform,)).as_text()


def test_dplr_is_single_precision_whatever_comes_in(rng):
    Lambda, P, Q, B, C, dt = [x.astype(np.result_type(x.dtype, np.float64))
                              for x in random_arguments(rng, 2, 3)]

    def everything():
        A_bar, B_bar = discretize_bilinear_dplr(Lambda, P, Q, B, dt)
        attuned = length_attuned(C, A_bar, 4)
        return dplr_kernel(Lambda, P, Q, B, C, dt, 4), A_bar, B_bar, attuned

    with jax.enable_x64(True):
        shapes = jax.eval_shape(everything)
    assert [str(x.dtype) for x in shapes] == ["float32"] + 3 * ["complex64"]


@pytest.mark.parametrize("change, message", [
    ({"C_tilde": (3, 2, 3)}, r"C_tilde must have shape \(H, N\) or \(2, H, N\), got \(3, 2, 3\)"),
    ({"dt": (3,)}, r"dt must have shape \(2,\), got \(3,\)"),
    ({"P": (2, 4)}, r"P must have shape \(2, 3\) or \(3,\), got \(2, 4\)"),
    ({"length": 0}, "length must be 1 or more, got 0"),
])
def test_dplr_kernel_names_the_argument_that_does_not_fit(change, message):
    shapes = dict.fromkeys(("Lambda", "P", "Q", "B", "C_tilde"), (2, 3)) | {"dt": (2,), "length": 4}
    arguments = {k: v if k == "length" else np.ones(v) for k, v in (shapes | change).items()}
    with pytest.raises(ValueError, match=message):
        dplr_kernel(**arguments)


def test_length_attuned_refuses_a_transition_of_another_size():
    with pytest.raises(ValueError, match=r"A_bar must have shape \(2, 6, 6\), got \(2, 3, 3\)"):
        length_attuned(np.ones((2, 3)), np.ones((2, 3, 3)), 4)
