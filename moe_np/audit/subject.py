"""The router or layer under audit, behind one interface: arrays in, an `Answer` of arrays out.

    symbol    here                shape
    x         x                   (N, D)      tokens, or the logits (N, E) where it takes those
    W         params["w"]         (D, E)      router matrix, as far as the audit can set it
    G(x)      Answer.gate         (N, E)      dense weights, 0 where an expert is not chosen

Of a whole layer only the output is visible. Where its experts can be called by themselves, the
weights follow from it: y_n = Σ_i G(x)_ni E_i(x_n) is solved for G(x)_n by least squares, and what
is left over shows what is no weighted sum of experts.
"""

import itertools
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.audit import vocabulary
from moe_np.audit.frameworks import NumPy
from moe_np.base.checks import InputError
from moe_np.base.types import Array, ArrayE, ArrayN, ArrayND, ArrayNE, Params

Call = Callable[[dict[str, Any], bool, int], Any]  # inputs by role, training, seed -> result
TINY = 1e-9  # a weight below this is not chosen


class Answer(NamedTuple):
    """What one call gave, as arrays in float64; None for what it does not give."""

    gate: ArrayNE | None  # dense weights
    indices: Annotated[np.ndarray, "N, k"] | None = None
    weights: Annotated[np.ndarray, "N, k"] | None = None  # beside the indices
    logits: ArrayNE | None = None
    loss: float | None = None
    load: ArrayE | None = None
    out: ArrayND | None = None
    residual: ArrayN | None = None  # |y_n − Σ G(x)_ni E_i(x_n)| / |y_n| of a layer
    dtype: str = ""  # of the weights, or of the output
    x_after: Array | None = None  # the tokens as they are after the call


class Subject:
    """What is audited. `call(inputs, training, seed)` takes native arrays by role (x or logits, w,
    w_noise, bias, valid, capacity_factor) and returns what the code under audit returned.
    """

    like: str | None = None  # the name of the reference router that it should equal
    options: dict[str, Any]  # of that router
    k: int | None = None  # choices per token
    factor: float | None = None  # the capacity factor, where the audit sets it
    places: int | None = None  # the capacity, where it is a number of tokens
    takes = "x"
    linear_bias: Array | None = None  # of the linear map that makes the logits
    stores: tuple[str, ...] = ()  # attributes in which a loss was left

    def __init__(
        self,
        name: str,
        call: Call,
        framework: NumPy,
        sizes: tuple[int, int],
        accepts: set[str] = frozenset(),  # type: ignore[assignment]
    ) -> None:
        """name for the report; sizes D and E; the roles that the code accepts besides x."""
        self.name, self.call, self.framework = name, call, framework
        self.D, self.E = sizes
        self.accepts = set(accepts)
        self.params: Params = {}
        self.options = {}
        self.experts: Callable[[ArrayND], Array] | None = None  # x -> outputs (N, E, D)
        self.shared: Callable[[ArrayND], Array] | None = None  # x -> what is added to them
        self.remake: Callable[[int, int, int], Subject] | None = None  # D, E, k -> another one
        self.three_axes = False  # takes (B, T, D)
        self.layout: list[str] = []  # roles of a result without names
        self.dtype: Any = np.float64
        self.precision: Callable[[str], None] | None = None  # of a module that has its own
        self.is_layer = False
        self._seeds = itertools.count(1000)

    # --- calls ------------------------------------------------------------------------------------

    def results(
        self, inputs: dict[str, Any], training: bool = False, seed: int | None = None
    ) -> dict[str, Any]:
        """{role: native result} for native inputs; without a seed, each call has a new one."""
        seed = next(self._seeds) if seed is None else seed
        self.framework.seed(seed)
        if self.three_axes:
            inputs = {**inputs, self.takes: inputs[self.takes][None]}
        return self.named(self.call(inputs, training, seed))

    def named(self, result: Any) -> dict[str, Any]:
        """{role: value} of a result."""
        roles = vocabulary.by_name(result)
        if roles is not None:
            return roles
        values = list(result) if isinstance(result, (tuple, list)) else [result]
        return {role: v for role, v in zip(self.layout, values, strict=False) if role}

    def inputs(self, x: Array, **changes: Any) -> dict[str, Any]:
        """Native inputs by role: x, the parameters, and `changes` of them."""
        arrays = {**self.params, self.takes: x, **changes}
        return {
            name: self.framework.put(self.cast(value)) if isinstance(value, np.ndarray) else value
            for name, value in arrays.items()
            if value is not None
        }

    def cast(self, a: Array) -> Array:
        """The precision in which the audit calls."""
        return a.astype(self.dtype) if a.dtype.kind == "f" else a

    def answer(
        self, x: Array, *, training: bool = False, seed: int | None = None, **changes: Any
    ) -> Answer:
        """Call it on x (N, D), or logits (N, E)."""
        inputs = self.inputs(x, **changes)
        roles = self.results(inputs, training, seed)
        return self.read(roles, x, self.framework.get(inputs[self.takes]))

    def read(self, roles: dict[str, Any], x: Array, x_after: Array | None = None) -> Answer:
        """The Answer of a result by roles."""
        N = len(x)
        arrays = {
            role: self.framework.get(v)
            for role, v in roles.items()
            if role in vocabulary.ROLES and role != "backward"
        }
        shown = arrays.get("gate", arrays.get("weights", arrays.get("out", arrays.get("combine"))))
        dtype = "" if shown is None else str(getattr(self._native(roles), "dtype", shown.dtype))
        indices = _rows(arrays.get("indices"), N)
        weights = _rows(arrays.get("weights"), N)
        out = residual = None
        gate = arrays.get("gate")
        if gate is not None:
            gate = np.asarray(gate, np.float64).reshape(N, self.E)
        elif "combine" in arrays:
            combine = np.asarray(arrays["combine"], np.float64)
            gate = combine.reshape(N, self.E, -1).sum(axis=2)
        elif weights is not None and indices is not None:
            gate = self.dense(weights, indices)
        if "out" in arrays:
            out = np.asarray(arrays["out"], np.float64).reshape(N, self.D)
            if gate is None and self.experts is not None:
                gate, residual = self.solve(out, x)
        logits = arrays.get("logits")
        if logits is not None and logits.size == N * self.E:
            logits = np.asarray(logits, np.float64).reshape(N, self.E)
        else:
            logits = None
        loss = arrays.get("loss")
        load = arrays.get("load")
        return Answer(
            gate,
            indices,
            None if weights is None else np.asarray(weights, np.float64),
            logits,
            None if loss is None else float(np.sum(loss)),
            None if load is None else np.asarray(load, np.float64).reshape(-1),
            out,
            residual,
            dtype.replace("torch.", ""),
            None if x_after is None else x_after.reshape(x.shape),
        )

    def _native(self, roles):
        return next((roles[r] for r in ("gate", "weights", "out", "combine") if r in roles), None)

    def dense(self, weights: Array, indices: Array) -> ArrayNE:
        """(N, k) weights and experts -> (N, E). An index outside 0 ... E − 1 marks a dropped choice
        where its weight is 0, and is an error otherwise.
        """
        if weights.shape != indices.shape:
            raise InputError(f"weights have shape {weights.shape}, indices {indices.shape}")
        outside = (indices < 0) | (indices >= self.E)
        if (outside & (np.abs(weights) > TINY)).any():
            raise InputError(
                f"indices: wanted 0 to {self.E - 1}, got {indices.min()} to {indices.max()}"
            )
        gate = np.zeros((len(weights), self.E))
        token = np.broadcast_to(np.arange(len(weights))[:, None], indices.shape)
        kept = ~outside
        np.add.at(gate, (token[kept], indices[kept]), weights[kept])
        return gate

    def solve(self, out: ArrayND, x: ArrayND) -> tuple[ArrayNE, ArrayN]:
        """Weights (N, E) with Σ_i G_ni E_i(x_n) closest to the output, and what is left (N,)."""
        assert self.experts is not None
        outputs = np.asarray(self.experts(x), np.float64)
        rest = out if self.shared is None else out - self.shared(x)
        gate = np.zeros((len(x), self.E))
        residual = np.zeros(len(x))
        for n, y in enumerate(rest):
            if not np.isfinite(y).all():
                gate[n] = residual[n] = np.nan
                continue
            gate[n] = np.linalg.lstsq(outputs[n].T, y, rcond=None)[0]
            size = max(np.linalg.norm(y), 1e-3 * np.linalg.norm(outputs[n]))
            residual[n] = np.linalg.norm(gate[n] @ outputs[n] - y) / max(size, 1e-300)
        gate[np.abs(gate) < 1e-6 * max(1.0, float(np.nanmax(np.abs(gate), initial=0)))] = 0
        return gate, residual

    # --- logits -----------------------------------------------------------------------------------

    def logits_of(self, x: Array) -> ArrayNE | None:
        """The logits that x should have: x itself, x·w, or those that it returns; None: unknown."""
        if self.takes == "logits":
            return x
        if "w" in self.params:
            b = 0 if self.linear_bias is None else self.linear_bias
            return x @ self.params["w"] + b
        return self.answer(x).logits

    def tokens(self, logits: ArrayNE) -> Array | None:
        """Tokens with these logits; None where the audit cannot make them."""
        if self.takes == "logits":
            return logits
        w = self.params.get("w")
        if w is None or self.D < self.E or np.linalg.matrix_rank(w) < self.E:
            return None
        b = 0 if self.linear_bias is None else self.linear_bias
        return (logits - b) @ np.linalg.pinv(w)

    def random(self, N: int, seed: int = 0, scale: float = 1.0) -> Array:
        """Random tokens without ties, (N, D) or (N, E)."""
        width = self.E if self.takes == "logits" else self.D
        return np.random.default_rng(seed).normal(size=(N, width)) * scale

    # --- gradients --------------------------------------------------------------------------------

    def value(self, roles: dict[str, Any], cotangent: dict[str, Array], x: Array) -> Any:
        """Σ cotangent · result, native: the cotangents are of gate (N, E), out, loss, load."""
        total: Any = 0.0
        for role, c in cotangent.items():
            if role == "gate" and "gate" not in roles and "combine" not in roles:
                weights = roles["weights"]
                weight = self.framework.gather(c, roles["indices"], weights.shape)
                total = total + (weights * weight).sum()
                continue
            elif role == "gate" and "gate" not in roles:
                role = "combine"
                c = np.broadcast_to(c[:, :, None], (*c.shape, roles[role].shape[-1]))
            native = roles[role]
            if not hasattr(native, "shape"):
                total = total + float(np.sum(c)) * native
                continue
            weight = self.framework.put(np.reshape(c, native.shape))
            total = total + (native * weight).sum()
        return total

    def number(
        self, x: Array, cotangent: dict[str, Array], training: bool, seed: int, **changes: Any
    ) -> float:
        """Σ cotangent · result as a float, for differences."""
        roles = self.results(self.inputs(x, **changes), training, seed)
        return float(np.sum(self.framework.get(self.value(roles, cotangent, x))))

    def gradient(
        self, x: Array, cotangent: dict[str, Array], training: bool = False, seed: int = 7
    ) -> dict[str, Array] | None:
        """{input: gradient of Σ cotangent · result}; None where the code brings no gradient."""

        def function(inputs):
            return self.value(self.results(inputs, training, seed), cotangent, x)

        arrays = {name: self.cast(a) for name, a in {**self.params, self.takes: x}.items()}
        grads = self.framework.gradient(function, arrays)
        if grads is not None:
            return grads
        roles = self.results(self.inputs(x), training, seed)
        if not callable(roles.get("backward")) or set(cotangent) - {"gate", "loss", "load"}:
            return None
        return self._from_backward(roles, cotangent, x)

    def _from_backward(self, roles: Any, cotangent: Any, x: Array) -> dict[str, Array]:
        """The gradients that the code's backward pass gives, by shape."""
        dgate = cotangent.get("gate", np.zeros((len(x), self.E)))
        if "gate" not in roles:
            index = np.asarray(roles["indices"]).reshape(len(x), -1)
            dgate = np.take_along_axis(dgate, np.clip(index, 0, self.E - 1), axis=1)
            dgate = dgate.reshape(np.shape(roles["weights"]))
        arguments = {
            f"d{name}": float(np.sum(c)) if name == "loss" else c
            for name, c in cotangent.items()
            if name != "gate"
        }
        result = roles["backward"](dgate, **arguments)
        if isinstance(result, dict):
            names = {f"d{role}": role for role in ("x", "logits", *self.params)}
            return {names.get(str(name), str(name)): np.asarray(g) for name, g in result.items()}
        N = len(x)
        shapes: dict[Any, str] = {(N, self.D): "x", (self.D, self.E): "w", (N, self.E): "logits"}
        values = result if isinstance(result, tuple) else (result,)
        return {shapes[np.shape(g)]: np.asarray(g) for g in values if np.shape(g) in shapes}

    def dlogits(self, grads: dict[str, Array], x: Array) -> ArrayNE | None:
        """The gradient at the logits, from that at the logits, or at w for N ≤ D tokens, or at x.

        None where none of them tells.
        """
        if "logits" in grads:
            return grads["logits"]
        if "w" in grads and len(x) <= self.D:
            return np.linalg.pinv(x.T) @ grads["w"]
        if "x" in grads and "w" in self.params and self.D >= self.E and not self.is_layer:
            return grads["x"] @ np.linalg.pinv(self.params["w"]).T
        return None


def _rows(a, N):
    """(N,), (N, k) or (1, N, k) -> (N, k); None stays None."""
    return None if a is None else np.asarray(a).reshape(N, -1) if N else np.asarray(a)
