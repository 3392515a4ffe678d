"""The sparse layer in JAX: a sort by expert, `jax.lax.ragged_dot` per matrix, and `jax.vjp`."""

from typing import Any

import numpy as np

from moe_np.base.params import leaves
from moe_np.experiments.frameworks import weights
from moe_np.experiments.frameworks.layer_problem import OUT, Problem, Step


def layer(params: dict[str, Any], x: Any, k: int) -> Any:
    """x (N, D) -> y (N, D), arrays of JAX; it can be compiled with a constant k."""
    import jax
    import jax.numpy as jnp

    logits, chosen = jax.lax.top_k(x @ params["router"]["w"], k)
    weight = jax.nn.softmax(logits, axis=1)
    expert = chosen.ravel()  # of every assignment
    order = jnp.argsort(expert, stable=True)
    token = order // k
    sizes = jnp.bincount(expert, length=params["router"]["w"].shape[1])
    rows = x[token]
    w1, w3, w2 = (params["experts"][name] for name in ("w1", "w3", "w2"))
    hidden = jax.nn.silu(jax.lax.ragged_dot(rows, w1, sizes)) * jax.lax.ragged_dot(rows, w3, sizes)
    out = jax.lax.ragged_dot(hidden, w2, sizes) * weight.ravel()[order][:, None]
    return jnp.zeros_like(x).at[token].add(out)


def step_of(p: Problem) -> Step:
    """The step in JAX, compiled."""
    import jax

    params = weights.to_jax(p.params)
    x, dy = weights.to_jax({"x": p.x, "dy": p.dy}).values()

    @jax.jit
    def compute(params, x):
        y, backward = jax.vjp(lambda params, x: layer(params, x, p.k), params, x)
        return y, *backward(dy)

    def step():
        y, grads, dx = compute(params, x)
        arrays = leaves(weights.from_jax(grads))
        return {OUT: np.asarray(y), "x": np.asarray(dx), **arrays}

    return step
