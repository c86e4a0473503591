"""Reference recurrences in float64: NumPy loops over time, written from the equations alone.

Gradients follow JAX's convention for complex numbers. A cotangent g of a complex array z means

    d(loss) = Re(sum(g * dz)),    g = d(loss)/d(Re z) - i d(loss)/d(Im z),

so that no conjugate appears: z = a * b gives g_a = g_z * b, and y = Re(z) gives g_z = g_y.
"""

import numpy as np


def double(array):
    """Widen an array to float64 or complex128, keeping the value that it was rounded to."""
    array = np.asarray(array)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)


def linear_ssm(u, Lambda_bar, B_bar, C, D=None, *, initial_state=None, resets=None):
    """Return (y, final_state) of the time-invariant SSM, one step at a time.

    x_t = Lambda_bar x_{t-1} + B_bar u_t and y_t = Re(sum_n C_n x_t,n) + D u_t. Two-sided: plus
    Re(sum_n C[1]_n z_{t+1,n}) with z_t = Lambda_bar z_{t+1} + B_bar u_t. A reset before step t
    cuts both chains between t - 1 and t.
    """
    forward, backward = _states(u, Lambda_bar, B_bar, initial_state, resets)
    u, C = double(u), double(C)
    C = C if C.ndim == 3 else C[None]
    y = np.sum(C[0] * forward[1:], axis=-1).real
    if len(C) == 2:
        y += np.sum(C[1] * backward[1:], axis=-1).real
    y = np.moveaxis(y, 0, -2)
    return (y if D is None else y + double(D) * u), forward[-1]


def _states(u, Lambda_bar, B_bar, initial_state, resets):
    """Return x_{-1}..x_{L-1} and z_0..z_L, both (L + 1, ..., H, N), as the steps see them.

    forward[t] is the state that enters step t before a reset; backward[t + 1] is z_{t+1} as y_t
    sees it, which is zero where step t + 1 starts a new segment.
    """
    u, Lambda_bar, B_bar = double(u), double(Lambda_bar), double(B_bar)
    length, features = u.shape[-2:]
    shape = u.shape[:-2] + (features, Lambda_bar.shape[-1])
    forward = np.zeros((length + 1,) + shape, np.complex128)
    backward = np.zeros((length + 1,) + shape, np.complex128)
    if initial_state is not None:
        forward[0] = double(initial_state)
    keep = _keep(resets, u.shape[:-1])
    for t in range(length):
        drive = B_bar * u[..., t, :, None]
        forward[t + 1] = Lambda_bar * forward[t] * keep[t] + drive
    for t in reversed(range(length)):
        drive = B_bar * u[..., t, :, None]
        backward[t] = (Lambda_bar * backward[t + 1] + drive) * keep[t]
    return forward, backward


def _keep(resets, shape):
    """Return (L, ..., 1, 1): 0 where a reset stands before step t, 1 elsewhere."""
    keep = np.ones(shape) if resets is None else 1.0 - np.asarray(resets, np.float64)
    return np.moveaxis(keep, -1, 0)[..., None, None]


def linear_ssm_gradients(y_bar, final_bar, u, Lambda_bar, B_bar, C, D=None, *,
                         initial_state=None, resets=None):
    """Return the gradient of sum(y_bar * y) + Re(sum(final_bar * final_state)), by argument name.

    The adjoint of each state runs against its recurrence, one step at a time.
    """
    forward, backward = _states(u, Lambda_bar, B_bar, initial_state, resets)
    u, Lambda_bar, B_bar, C = double(u), double(Lambda_bar), double(B_bar), double(C)
    y_bar, keep = double(y_bar), _keep(resets, u.shape[:-1])
    C_pair = C if C.ndim == 3 else np.stack([C, np.zeros_like(C)])
    u_bar = np.zeros_like(u)
    C_bar, Lambda_bar_bar, B_bar_bar = np.zeros((3, 2) + forward.shape[1:], np.complex128)

    def pull_back(side, t, adjoint, before):  # through x_t = Lambda_bar before + B_bar u_t
        u_bar[..., t, :] += np.sum(adjoint * B_bar, axis=-1).real
        B_bar_bar[side] += adjoint * u[..., t, :, None]
        Lambda_bar_bar[side] += adjoint * before

    length = u.shape[-2]
    adjoint = double(final_bar)
    for t in reversed(range(length)):
        g = y_bar[..., t, :, None]
        C_bar[0] += g * forward[t + 1]
        adjoint = adjoint + g * C_pair[0]
        pull_back(0, t, adjoint, forward[t] * keep[t])
        adjoint = adjoint * Lambda_bar * keep[t]
    z_adjoint = np.zeros_like(adjoint)  # z_0 reaches no output
    for t in range(1, length):
        g = y_bar[..., t - 1, :, None]
        C_bar[1] += g * backward[t]
        z_adjoint = (z_adjoint * Lambda_bar + g * C_pair[1]) * keep[t]
        pull_back(1, t, z_adjoint, backward[t + 1])
    if D is not None:
        u_bar += double(D) * y_bar
    C_bar = np.stack([_sum_to(side, C.shape[-2:]) for side in C_bar])
    return {"u": u_bar, "initial_state": adjoint, "C": C_bar if C.ndim == 3 else C_bar[0],
            "Lambda_bar": _sum_to(Lambda_bar_bar.sum(axis=0), Lambda_bar.shape),
            "B_bar": _sum_to(B_bar_bar.sum(axis=0), B_bar.shape),
            "D": _sum_to(y_bar * u, u.shape[-1:])}


def _sum_to(gradient, shape):
    """Sum over the leading axes along which an argument of this shape was shared."""
    return gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))


def dplr_recurrence(u, A_bar, B_bar, C, initial_state=None):
    """Return (y, final_state) of x_t = A_bar x_{t-1} + B_bar u_t, y_t = 2 Re(sum_n C_n x_t,n).

    u is (..., L, H), A_bar (H, 2N, 2N), B_bar (H, 2N), C and the states hold one half, N.
    """
    u, A_bar, B_bar, C = (double(array) for array in (u, A_bar, B_bar, C))
    modes = C.shape[-1]
    x = np.zeros((*u.shape[:-2], *C.shape)) if initial_state is None else double(initial_state)
    y = np.zeros(u.shape)
    for t in range(u.shape[-2]):
        x = np.einsum("hij,...hj->...hi", A_bar[:, :modes], np.concatenate([x, x.conj()], axis=-1))
        x = x + B_bar[:, :modes] * u[..., t, :, None]
        y[..., t, :] = 2 * np.sum((C * x).real, axis=-1)
    return y, x


def linear_recurrence(decay, drive, *, initial_state=None, resets=None):
    """Return all states of x_t = decay_t x_{t-1} + drive_t, decay a factor or a 2x2 matrix."""
    decay, drive = double(decay), double(drive)
    is_blocks = decay.ndim == drive.ndim + 1
    time = -3 if is_blocks else -2
    decay = np.moveaxis(decay, time - is_blocks, 0)
    drive = np.moveaxis(drive, time, 0)
    states = np.zeros((len(drive) + 1,) + drive.shape[1:], np.result_type(decay, drive))
    if initial_state is not None:
        states = states.astype(np.result_type(states, np.asarray(initial_state)))
        states[0] = double(initial_state)
    keep = _recurrence_keep(resets, drive)
    for t in range(len(drive)):
        before = states[t] * keep[t]
        states[t + 1] = _apply(decay[t], before, is_blocks) + drive[t]
    return np.moveaxis(states[1:], 0, time)


def linear_recurrence_gradients(states_bar, decay, drive, *, initial_state=None, resets=None):
    """Return the gradient of Re(sum(states_bar * states)), by argument name."""
    states = linear_recurrence(decay, drive, initial_state=initial_state, resets=resets)
    decay, drive, states_bar = double(decay), double(drive), double(states_bar)
    is_blocks = decay.ndim == drive.ndim + 1
    time = -3 if is_blocks else -2
    decay = np.moveaxis(decay, time - is_blocks, 0)
    states, states_bar = (np.moveaxis(a, time, 0) for a in (states, states_bar))
    keep = _recurrence_keep(resets, states)
    before = np.zeros_like(states[0]) if initial_state is None else double(initial_state)
    before = np.concatenate([before[None], states[:-1]]) * keep
    adjoint = np.zeros_like(states_bar[0])
    decay_bar = np.zeros(decay.shape, np.result_type(states, states_bar))
    drive_bar = np.zeros(states.shape, np.result_type(states, states_bar))
    for t in reversed(range(len(states))):
        adjoint = adjoint + states_bar[t]
        drive_bar[t] = adjoint
        if is_blocks:
            decay_bar[t] = adjoint[..., :, None] * before[t][..., None, :]
        else:
            decay_bar[t] = adjoint * before[t]
        transposed = np.swapaxes(decay[t], -1, -2) if is_blocks else decay[t]
        adjoint = _apply(transposed, adjoint, is_blocks) * keep[t]
    return {"decay": np.moveaxis(decay_bar, 0, time - is_blocks),
            "drive": np.moveaxis(drive_bar, 0, time), "initial_state": adjoint}


def _apply(decay, state, is_blocks):
    return np.einsum("...ij,...j->...i", decay, state) if is_blocks else decay * state


def _recurrence_keep(resets, drive):
    """Return an array that broadcasts against (L, ..., P[, 2]): 0 where step t restarts."""
    if resets is None:
        return np.ones((len(drive),) + (1,) * (drive.ndim - 1))
    keep = np.moveaxis(1.0 - np.asarray(resets, np.float64), -1, 0)
    return keep.reshape(keep.shape + (1,) * (drive.ndim - keep.ndim))
