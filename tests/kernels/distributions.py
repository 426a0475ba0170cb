"""Weights to quantise: what models have, and what breaks a quantiser that is only nearly right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Make = Callable[[np.random.Generator, tuple[int, int]], NDArray[Any]]


def bf16(values: NDArray[Any]) -> F32:
    """Values that bfloat16 holds exactly (cut, not rounded: any will do)."""
    bits = np.asarray(values, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    return bits.view(np.float32)


def _bits(rng: np.random.Generator, shape: tuple[int, int]) -> F32:
    bits = rng.integers(0, 1 << 32, shape, np.uint32)
    infinite = (bits & 0x7F800000) == 0x7F800000
    return np.where(infinite, bits & np.uint32(0x807FFFFF), bits).view(np.float32)


def _one_hot(rng: np.random.Generator, shape: tuple[int, int]) -> F32:
    out = np.zeros(shape, np.float32)
    at = rng.integers(0, 32, (shape[0], shape[1] // 32))
    columns = np.arange(shape[1] // 32) * 32 + at
    out[np.arange(shape[0])[:, None], columns] = rng.normal(0, 0.02, at.shape)
    return out


def _outliers(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[Any]:
    return rng.normal(0, 0.02, shape) * np.where(rng.random(shape) < 0.01, 30, 1)


def _sparse(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[Any]:
    return rng.normal(0, 0.02, shape) * (rng.random(shape) < 0.1)


def _mixed(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[Any]:
    groups = np.exp(rng.normal(0, 3, (shape[0], shape[1] // 16))).repeat(16, 1)
    return rng.normal(0, 0.02, shape) * groups


def _ulp(rng: np.random.Generator, shape: tuple[int, int]) -> F32:
    base = np.float32(0.0123)
    steps = rng.integers(-1, 2, shape).astype(np.int32)
    return (base.view(np.int32) + steps).astype(np.int32).view(np.float32)


DISTRIBUTIONS: dict[str, Make] = {
    "normal bf16": lambda rng, s: bf16(rng.normal(0, 0.02, s)),
    "normal": lambda rng, s: rng.normal(0, 0.02, s),
    "outliers": _outliers,
    "laplace": lambda rng, s: rng.laplace(0, 0.02, s),
    "mixed scales": _mixed,
    "sparse": _sparse,
    "few levels": lambda rng, s: rng.integers(-3, 4, s) * 0.01,
    "negative": lambda rng, s: -np.abs(rng.normal(0, 0.02, s)) - 0.001,
    "positive": lambda rng, s: np.abs(rng.normal(0, 0.02, s)) + 0.001,
    "uniform": lambda rng, s: rng.uniform(-0.05, 0.05, s),
    "wide": lambda rng, s: np.exp(rng.normal(0, 4, s)) * rng.choice([-1, 1], s),
    "integers": lambda rng, s: rng.integers(-100, 101, s),
    "zeros": lambda rng, s: np.zeros(s),
    "signed zeros": lambda rng, s: rng.choice([0.0, -0.0], s),
    "constant": lambda rng, s: np.full(s, 0.37),
    "constant, an ulp off": _ulp,
    "near a negative constant": lambda rng, s: -0.5 + rng.normal(0, 1e-6, s),
    "one of 32": _one_hot,
    "1e-8 beside 1": lambda rng, s: np.where(rng.random(s) < 0.05, 1, 1e-8) * rng.normal(0, 1, s),
    "1e-12": lambda rng, s: rng.normal(0, 1e-12, s),
    "1e-20": lambda rng, s: rng.normal(0, 1e-20, s),
    "denormal": lambda rng, s: rng.normal(0, 1e-41, s),
    "1e30": lambda rng, s: rng.normal(0, 1e30, s),
    "around half's largest": lambda rng, s: rng.normal(0, 1, s) * rng.choice([1e6, 4e6, 9e6], s),
    "around half's smallest": lambda rng, s: rng.normal(0, 1, s) * rng.choice([1e-5, 1e-6], s),
    "random bits": _bits,
}
"""By name: rows of weights from a generator and a shape [rows, columns]."""

IMPORTANCES: dict[str, Callable[[np.random.Generator, int], NDArray[Any]]] = {
    "normal": lambda rng, n: np.abs(rng.normal(0, 1, n)),
    "wide": lambda rng, n: np.exp(rng.normal(0, 4, n)),
    "ones": lambda rng, n: np.ones(n),
    "zeros among them": lambda rng, n: np.abs(rng.normal(0, 1, n)) * (rng.random(n) > 0.125),
}
"""By name: one importance per column."""


def weights(name: str, seed: int, shape: tuple[int, int]) -> F32:
    """Rows of the distribution called ``name``."""
    with np.errstate(over="ignore", under="ignore"):
        return DISTRIBUTIONS[name](np.random.default_rng(seed), shape).astype(np.float32)


def importances(name: str, seed: int, columns: int) -> F32:
    """Importances of the kind called ``name``."""
    return IMPORTANCES[name](np.random.default_rng(seed + 1), columns).astype(np.float32)
