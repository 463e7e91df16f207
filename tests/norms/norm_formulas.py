"""The catalogue's norms as float64 formulas in numpy, written from the papers, for tests.

Of every layer that normexp writes itself; tests/norms/test_norms.py has those of torch's layers.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray
State = dict[str, Array]
"""Parameters and buffers of a layer by name."""


def over_channels(values: Array, x: Array) -> Array:
    return values.reshape(1, -1, *[1] * (x.ndim - 2))


def affine(y: Array, state: State) -> Array:
    if "weight" in state:
        y = y * over_channels(state["weight"], y)
    if "bias" in state:
        y = y + over_channels(state["bias"], y)
    return y


def moments(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    mean = x.mean(axis=axes, keepdims=True)
    return mean, ((x - mean) ** 2).mean(axis=axes, keepdims=True)


def batch_axes(x: Array) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))


def averaged(state: State, key: str, new: Array, momentum: float) -> None:
    state[key] = (1 - momentum) * state[key] + momentum * new.ravel()


def bn(x: Array, state: State, norm: Any, training: bool) -> Array:
    """Without scale and shift."""
    mean, variance = (over_channels(state[key], x) for key in ("running_mean", "running_var"))
    if training:
        mean, variance = moments(x, batch_axes(x))
        values = x.size // x.shape[1]
        averaged(state, "running_mean", mean, norm.momentum)
        averaged(state, "running_var", variance * values / (values - 1), norm.momentum)
    return (x - mean) / np.sqrt(variance + norm.eps)


def ghost_bn(x: Array, state: State, norm: Any, training: bool) -> Array:
    if not training:
        return affine(bn(x, state, norm, False), state)
    outputs, after = [], []
    for start in range(0, len(x), norm.ghost_batch_size):
        own = dict(state)
        outputs.append(bn(x[start : start + norm.ghost_batch_size], own, norm, True))
        after.append(own)
    for key in ("running_mean", "running_var"):
        state[key] = np.mean([own[key] for own in after], axis=0)
    return affine(np.concatenate(outputs), state)


def frozen_bn(x: Array, state: State, norm: Any, training: bool) -> Array:
    return affine(bn(x, state, norm, False), state)


def batch_renorm(x: Array, state: State, norm: Any, training: bool) -> Array:
    mean, std = (over_channels(state[key], x) for key in ("running_mean", "running_std"))
    if not training:
        return affine((x - mean) / std, state)
    batch_mean, variance = moments(x, batch_axes(x))
    batch_std = np.sqrt(variance + norm.eps)
    r = np.clip(batch_std / std, 1 / norm.rmax, norm.rmax)
    d = np.clip((batch_mean - mean) / std, -norm.dmax, norm.dmax)
    averaged(state, "running_mean", batch_mean, norm.momentum)
    averaged(state, "running_std", batch_std, norm.momentum)
    return affine((x - batch_mean) / batch_std * r + d, state)


def ln2d(x: Array, state: State, norm: Any, training: bool) -> Array:
    mean, variance = moments(x, (1,))
    return affine((x - mean) / np.sqrt(variance + norm.eps), state)


def rms(x: Array, state: State, norm: Any, training: bool) -> Array:
    return affine(x / np.sqrt((x**2).mean(axis=1, keepdims=True) + norm.eps), state)


def frn(x: Array, state: State, norm: Any, training: bool) -> Array:
    y = affine(x / np.sqrt((x**2).mean(axis=(2, 3), keepdims=True) + norm.eps), state)
    return np.maximum(y, over_channels(state["tau"], x))


def evonorm_s0(x: Array, state: State, norm: Any, training: bool) -> Array:
    grouped = x.reshape(x.shape[0], norm.num_groups, -1)
    std = np.sqrt(grouped.var(axis=2, keepdims=True) + norm.eps)
    std = np.broadcast_to(std, grouped.shape).reshape(x.shape)
    return affine(x / (1 + np.exp(-over_channels(state["v"], x) * x)) / std, state)


def evonorm_b0(x: Array, state: State, norm: Any, training: bool) -> Array:
    variance = over_channels(state["running_var"], x)
    if training:
        _, variance = moments(x, batch_axes(x))
        values = x.size // x.shape[1]
        averaged(state, "running_var", variance * values / (values - 1), norm.momentum)
    within = np.sqrt(moments(x, (2, 3))[1] + norm.eps)
    return affine(
        x / np.maximum(np.sqrt(variance + norm.eps), over_channels(state["v"], x) * x + within),
        state,
    )


def dyt(x: Array, state: State, norm: Any, training: bool) -> Array:
    return affine(np.tanh(state["alpha"] * x), state)


def derf(x: Array, state: State, norm: Any, training: bool) -> Array:
    return affine(np.vectorize(math.erf)(state["alpha"] * x + state["shift"]), state)


def softmax(values: Array) -> Array:
    return np.exp(values) / np.exp(values).sum()


def switchable(x: Array, state: State, norm: Any, training: bool) -> Array:
    """As the authors' code: unbiased variances of IN, from whose second moments come the others."""
    mean_in, variance_in = x.mean(axis=(2, 3)), x.var(axis=(2, 3), ddof=1)
    second = variance_in + mean_in**2
    mean_ln = mean_in.mean(axis=1, keepdims=True)
    variance_ln = second.mean(axis=1, keepdims=True) - mean_ln**2
    mean_bn, variance_bn = state["running_mean"], state["running_var"]
    if training:
        mean_bn = mean_in.mean(axis=0)
        variance_bn = second.mean(axis=0) - mean_bn**2
        averaged(state, "running_mean", mean_bn, norm.momentum)
        averaged(state, "running_var", variance_bn, norm.momentum)
    w, v = softmax(state["mean_weight"]), softmax(state["var_weight"])
    mean = w[0] * mean_in + w[1] * mean_ln + w[2] * mean_bn
    variance = v[0] * variance_in + v[1] * variance_ln + v[2] * variance_bn
    y = (x - mean[:, :, None, None]) / np.sqrt(variance[:, :, None, None] + norm.eps)
    return affine(y, state)


def batch_instance(x: Array, state: State, norm: Any, training: bool) -> Array:
    mean, variance = moments(x, (2, 3))
    instance = (x - mean) / np.sqrt(variance + norm.eps)
    rho = over_channels(np.clip(state["rho"], 0, 1), x)
    if training:
        state["rho"] = np.clip(state["rho"], 0, 1)
    return affine(rho * bn(x, state, norm, training) + (1 - rho) * instance, state)


FORMULAS: dict[str, Callable[[Array, State, Any, bool], Array]] = {
    "ghost_bn": ghost_bn, "batch_renorm": batch_renorm, "ln2d": ln2d, "rms": rms, "frn": frn,
    "evonorm_s0": evonorm_s0, "evonorm_b0": evonorm_b0, "dyt": dyt, "derf": derf,
    "switchable": switchable, "batch_instance": batch_instance, "frozen_bn": frozen_bn,
}  # fmt: skip
"""For inputs (N,C,H,W) or (N,C); in training they change ``state`` as a step would."""

WITHOUT_POSITIONS = (
    *("ghost_bn", "batch_renorm", "ln2d", "rms", "evonorm_s0", "dyt", "derf", "frozen_bn"),
)
BOTH = [*((name, 4) for name in FORMULAS), *((name, 2) for name in WITHOUT_POSITIONS)]
