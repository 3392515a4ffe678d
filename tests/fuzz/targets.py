"""The public functions that the fuzzer calls, each with valid arguments to begin with.

A target is a function of a random generator that returns (function, arguments by name). Values of
arguments may be dicts of arrays (parameters), which the fuzzer changes array by array.
"""

import itertools

import numpy as np

from moe_np import accounting
from moe_np.base import gradcheck, optim
from moe_np.layers import balance, diagnostics, experts, shared_experts, soft_moe, sparse_layer
from moe_np.mixtures import em, hme, hme_online, irls, jacobs1991, least_squares, nowlan1991
from moe_np.models import patch_cnn, patch_cnn_training
from moe_np.routing import bias_balanced, contract, gradient_estimators, hashing, kmeans, top_k
from tests.support import routers

N, D, E = 10, 5, 4
KINDS = {
    "linear": experts.LINEAR,
    "relu": experts.RELU,
    "gelu": experts.GELU,
    "swiglu": experts.SWIGLU,
    "cubic": experts.CUBIC,
}


def dtype_of(rng):
    return rng.choice([np.float64, np.float32])


def training_rng(rng):
    return np.random.default_rng(int(rng.integers(1000)))


# --- routers --------------------------------------------------------------------------------------


def route(case):
    def target(rng):
        params, x = routers.setup(case, int(rng.integers(99)), N, D, E, dtype_of(rng))
        arguments = {"params": params, "x": x, **routers.options(case, x), "valid": None}
        if case.noisy and rng.random() < 0.5:
            arguments["rng"] = training_rng(rng)
        return lambda **given: case.router.route(**given)[0], arguments

    return target


def route_backward(case):
    def target(rng):
        params, x = routers.setup(case, int(rng.integers(99)), N, D, E)
        routing, cache = routers.route(case, params, x)
        dlogits = None if routing.logits is None else rng.normal(size=routing.logits.shape)
        dweight = rng.normal(size=routing.weight.shape)

        def backward(dweight, dlogits):
            return case.router.route_backward(dweight, dlogits, cache)

        return backward, {"dweight": dweight, "dlogits": dlogits}

    return target


def init(case):
    def target(rng):
        sizes = {"rng": training_rng(rng), "d_model": D, "n_experts": E}
        options = {} if case.router is hashing else {"scale": 1.0, "dtype": np.float64}
        return case.router.init, sizes | options | case.init

    return target


def routing_of(rng, dtype=np.float64):
    w, x = rng.normal(size=(D, E)).astype(dtype), rng.normal(size=(N, D)).astype(dtype)
    return top_k.route({"w": w}, x, k=2, renormalise=True)[0], x


def update_bias(rng):
    params = bias_balanced.init(rng, D, E)
    routing, _ = routing_of(rng)
    return bias_balanced.update_bias, {"params": params, "routing": routing, "speed": 1e-3}


def kmeans_fit(rng):
    x = rng.normal(size=(N, D)).astype(dtype_of(rng))
    arguments = {"rng": training_rng(rng), "x": x, "n_experts": 3, "rounds": 5}
    return kmeans.fit, arguments


def kmeans_online(rng):
    params = {"centroids": rng.normal(size=(E, D))}
    return kmeans.online, {"params": params, "x": rng.normal(size=(N, D)), "count": np.ones(E)}


def hash_balanced(rng):
    return hashing.balanced, {"counts": rng.integers(0, 9, 7), "n_experts": E}


def hash_clustered(rng):
    arguments = {"rng": training_rng(rng), "embeddings": rng.normal(size=(7, D)), "n_experts": 2}
    return hashing.clustered, arguments


def reinforce(rng):
    routing, _ = routing_of(rng)
    arguments = {"routing": routing, "loss": rng.normal(size=N), "baseline": 0.5}
    return gradient_estimators.reinforce, arguments


def capacity(rng):
    arguments = {"n_tokens": 8, "n_experts": 4, "k": 2, "factor": float(rng.random() + 0.1)}
    return lambda factor: contract.capacity(**arguments | {"factor": factor}), {
        "factor": arguments["factor"]
    }


# --- layers ---------------------------------------------------------------------------------------


def expert_params(kind, rng, dtype):
    params = KINDS[kind].init(rng, D, E, 3, dtype=dtype)
    return {name: (p + 0.1 * rng.normal(size=p.shape)).astype(dtype) for name, p in params.items()}


def layer(kind):
    def target(rng):
        dtype = dtype_of(rng)
        routing, x = routing_of(rng, dtype)
        if kind == "cubic":
            x = rng.normal(size=(N, 2, D)).astype(dtype)
        arguments = {"params": expert_params(kind, rng, dtype), "x": x, **routing._asdict()}

        def forward_and_backward(params, x, **fields):
            routing = contract.Routing(**fields)
            out, cache = sparse_layer.forward(params, x, routing, KINDS[kind])
            return out, sparse_layer.backward(np.ones_like(out), cache)

        return forward_and_backward, arguments

    return target


def layer_backward(rng):
    routing, x = routing_of(rng)
    params = expert_params("gelu", rng, np.float64)

    def backward(dout):
        _, cache = sparse_layer.forward(params, x, routing, experts.GELU)
        return sparse_layer.backward(dout, cache)

    return backward, {"dout": rng.normal(size=(N, D))}


def rows_of_experts(kind):
    def target(rng):
        dtype = dtype_of(rng)
        shape = (N, 2, D) if kind == "cubic" else (N, D)
        rows = rng.normal(size=shape).astype(dtype)
        offsets = np.array([0, 2, 2, 7, N])
        arguments = {"params": expert_params(kind, rng, dtype), "rows": rows, "offsets": offsets}
        return lambda **given: KINDS[kind].forward(**given)[0], arguments

    return target


def soft(rng):
    dtype = dtype_of(rng)
    arguments = {
        "params": soft_moe.init(rng, D, E, 2, dtype=dtype),
        "expert_params": expert_params("gelu", rng, dtype),
        "x": rng.normal(size=(2, 6, D)).astype(dtype),
        "valid": rng.random((2, 6)) < 0.8,
    }
    return lambda **given: soft_moe.forward(expert=experts.GELU, **given)[0], arguments


def shared(rng):
    return shared_experts.routing, {"n_tokens": N, "n_experts": 2, "dtype": np.float64}


def of_routing(function, **more):
    def target(rng):
        routing, _ = routing_of(rng)
        arguments = routing._asdict() | {"valid": None}
        extra = {name: make(rng) for name, make in more.items()}

        def call(valid, **given):
            fields = {name: given.pop(name) for name in contract.Routing._fields}
            return function(contract.Routing(**fields), valid=valid, **given)

        return call, arguments | extra

    return target


def of_labels(function, **more):
    def target(rng):
        arguments = {"expert": rng.integers(0, E, N), "label": rng.integers(0, 3, N)}
        arguments |= {name: make(rng) for name, make in more.items()}
        return lambda expert, label, **given: function(expert, label, **given), arguments

    return target


def call_by_position(function):
    def target(rng):
        return (lambda load: function(load)), {"load": rng.random(E) + 0.1}

    return target


# --- mixtures and models --------------------------------------------------------------------------


def em_fit(family, labels=False):
    def target(rng):
        x = rng.normal(size=(20, 2))
        y = rng.integers(0, 3, 20) if labels else rng.normal(size=(20, 2))
        arguments = {"x": x, "y": y, "n_experts": 2, "rng": training_rng(rng), "ridge": 0.1}
        settings = {"restarts": 2, "max_iter": 8, "tol": 1e-3}

        def fit(**given):
            result = em.fit(family=family, **given, **settings)
            assert (np.diff(result.history) > -1e-6 * (1 + np.abs(result.history[1:]))).all()
            return result.params, result.resp

        return fit, arguments

    return target


def em_score(rng):
    x, y = rng.normal(size=(20, 2)), rng.normal(size=(20, 2))
    family = em.Gaussian("full")
    fit = em.fit(x, y, 2, family=family, rng=rng, restarts=1, max_iter=5, tol=1)
    return fit.responsibilities, {"x": x, "y": y}


def em_gradient(rng):
    x, y = rng.normal(size=(20, 2)), rng.normal(size=(20, 2))
    fit = em.fit(x, y, 2, family=em.Gaussian(), rng=rng, restarts=1, max_iter=5, tol=1)
    arguments = {"params": fit.params, "x": x, "y": y}
    return lambda **given: em.gradient(family=em.Gaussian(), **given), arguments


def multinomial(rng):
    target = rng.dirichlet(np.ones(3), size=N)
    arguments = {"x": rng.normal(size=(N, 2)), "target": target, "weight": rng.random(N)}
    return irls.multinomial_irls, arguments | {"ridge": 0.1, "max_steps": 5, "tol": 1e-8}


def wls(rng):
    arguments = {"x": rng.normal(size=(N, 2)), "y": rng.normal(size=(N, 2))}
    arguments |= {"weight": rng.random((N, 3)), "ridge": 0.1}
    return least_squares.weighted_least_squares, arguments


def hme_train(rng):
    arguments = {"params": hme.init(rng, (2, 2), 2, 1), "x": rng.normal(size=(N, 2))}
    arguments |= {"y": rng.normal(size=(N, 1)), "lr": 0.01}

    def train(**given):
        return [step.loss for step in itertools.islice(hme.train(**given), 3)]

    return train, arguments


def hme_predict(rng):
    return hme.predict, {"params": hme.init(rng, (2, 2), 2, 1), "x": rng.normal(size=(N, 2))}


def online_train(rng):
    arguments = {"params": hme.init(rng, (2, 2), 2, 1), "x": rng.normal(size=(N, 2))}
    arguments |= {"y": rng.normal(size=(N, 1)), "rng": training_rng(rng)}

    def train(**given):
        return [step.params for step in itertools.islice(hme_online.train(**given), 2)][-1]

    return train, arguments


def to_stop(rng):
    arguments = {"params": jacobs1991.init_mixture(rng, 3), "x": rng.normal(size=(N, 2))}
    arguments |= {"d": rng.random((N, 1)), "lr": 0.1, "stop": 0.01, "max_epochs": 5}
    return lambda **given: jacobs1991.train_to_stop(**given)[2:4], arguments


def nowlan_loss(rng):
    arguments = {"params": nowlan1991.init(rng, 3, 2, 2, 3), "x": rng.normal(size=(N, 2))}
    arguments |= {"z": rng.normal(size=(N, 2)), "d": np.eye(3)[rng.integers(0, 3, N)], "sigma": 0.5}

    def loss(params, x, z, d, sigma):
        return nowlan1991.mean_loss_of(x, z, d, sigma=sigma)(params)

    return loss, arguments


def patch_pass(rng):
    dtype = dtype_of(rng)
    arguments = {
        "params": patch_cnn.init(rng, E, 3, D, dtype=dtype),
        "x": rng.normal(size=(N, 2, D)).astype(dtype),
        "y": rng.integers(0, 2, N),
        "noise": rng.random((N, E)).astype(dtype),
        "activation": str(rng.choice(patch_cnn.ACTIVATIONS)),
        "gate": str(rng.choice(patch_cnn.GATES)),
        "loss": str(rng.choice(patch_cnn.LOSSES)),
    }

    def one_pass(params, x, y, noise, **given):
        batch = patch_cnn_training.batch(x, y)
        return patch_cnn_training.gradients(params, batch, noise, **given)

    return one_pass, arguments


def single_pass(rng):
    params = patch_cnn.init(rng, 1, 3, D)
    arguments = {"params": {name: params[name] for name in ("w", "b")}}
    arguments |= {"x": rng.normal(size=(N, 2, D)), "y": rng.integers(0, 2, N)}

    def one_pass(params, x, y):
        batch = patch_cnn_training.batch(x, y)
        return patch_cnn_training.single_gradients(params, batch, activation="cubic")

    return one_pass, arguments


# --- base and accounting --------------------------------------------------------------------------


def gradient_error(rng):
    w = rng.normal(size=3)
    arguments = {"params": {"w": w}, "grads": {"w": 2 * w}, "rng": training_rng(rng), "step": 1e-3}

    def error(**given):
        with np.errstate(over="ignore", invalid="ignore"):
            return gradcheck.gradient_error(lambda p: (p["w"] ** 2).sum(), **given)

    return error, arguments


def adam(rng):
    arguments = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.1}
    p, g = {"w": rng.normal(size=3)}, {"w": rng.normal(size=3)}
    return lambda **given: optim.adam(p, g, **given)[0], arguments


def count(rng):
    return accounting.count, {"model": str(rng.choice(list(accounting.MODELS)))}


def count_sizes(rng):
    del rng
    sizes = {"experts": 4, "branches": 0, "k": 2, "d": 8, "cells": 8, "hidden": 8}
    return lambda **given: accounting.count(accounting.LstmMoe(**given)).total, sizes


LOSSES = {
    "switch": of_routing(balance.switch),
    "gshard": of_routing(balance.gshard),
    "importance": of_routing(balance.importance),
    "z_loss": of_routing(balance.z_loss),
    "token_entropy": of_routing(balance.token_entropy),
    "mean_entropy": of_routing(balance.mean_entropy),
    "device_level": of_routing(balance.device_level, device=lambda rng: rng.integers(0, 2, E)),
    "sequence_wise": of_routing(
        balance.sequence_wise, sequence=lambda rng: rng.integers(0, 2, N), k=lambda rng: 2
    ),
}

TARGETS = {
    **{f"route {name}": route(case) for name, case in routers.CASES.items()},
    **{f"route_backward {name}": route_backward(case) for name, case in routers.CASES.items()},
    **{f"init {case.router.__name__}": init(case) for case in routers.CASES.values()},
    "update_bias": update_bias,
    "kmeans.fit": kmeans_fit,
    "kmeans.online": kmeans_online,
    "hashing.balanced": hash_balanced,
    "hashing.clustered": hash_clustered,
    "reinforce": reinforce,
    "capacity": capacity,
    **{f"sparse_layer {kind}": layer(kind) for kind in KINDS},
    "sparse_layer.backward": layer_backward,
    **{f"experts {kind}": rows_of_experts(kind) for kind in KINDS},
    "soft_moe": soft,
    "shared_experts": shared,
    **{f"balance.{name}": target for name, target in LOSSES.items()},
    "balance.cv_squared": call_by_position(balance.cv_squared),
    **{
        f"diagnostics.{f.__name__}": of_routing(f)
        for f in (
            diagnostics.load,
            diagnostics.demand,
            diagnostics.importance,
            diagnostics.dropped_share,
            diagnostics.unserved_share,
        )
    },
    "diagnostics.cv": call_by_position(diagnostics.cv),
    "diagnostics.max_over_mean": call_by_position(diagnostics.max_over_mean),
    "diagnostics.table": of_labels(diagnostics.table),
    "diagnostics.dispatch_entropy": of_labels(diagnostics.dispatch_entropy),
    "diagnostics.mutual_information": of_labels(diagnostics.mutual_information, rng=training_rng),
    "em.fit expert": em_fit(em.Gaussian()),
    "em.fit full": em_fit(em.Gaussian("full")),
    "em.fit labels": em_fit(em.Categorical(), labels=True),
    "em.Fit.responsibilities": em_score,
    "em.gradient": em_gradient,
    "multinomial_irls": multinomial,
    "weighted_least_squares": wls,
    "hme.train": hme_train,
    "hme.predict": hme_predict,
    "hme_online.train": online_train,
    "jacobs1991.train_to_stop": to_stop,
    "nowlan1991.mean_loss_of": nowlan_loss,
    "patch_cnn gradients": patch_pass,
    "patch_cnn single_gradients": single_pass,
    "gradient_error": gradient_error,
    "optim.adam": adam,
    "accounting.count": count,
    "accounting.count sizes": count_sizes,
}
