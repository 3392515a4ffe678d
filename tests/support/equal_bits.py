"""Does a change of the code change a number? Record what the package computes, change the code, and
compare.

    python tests/support/equal_bits.py record FILE     digests of everything below, as JSON
    python tests/support/equal_bits.py compare FILE    the same again: names what differs (status 1)

Recorded are: every experiment with `--quick` (without times and versions), the replay of the
recorded runs of Chen et al. 2022 in setting 1, the arrays of `bench --quick`, and outputs and
gradients of all routers, experts, layers and balance losses for a dozen shapes and seeds, with
compiled and with NumPy kernels. `--only PART` (experiments, replay, bench, api) records one of
them; `--package FOLDER` takes the package from another checkout.

The script runs before and after the redesign of version 0.2: it knows the old module paths and
options too.
"""

import argparse
import contextlib
import hashlib
import importlib
import inspect
import json
import os
import pathlib
import subprocess
import sys
import tempfile

EXPERIMENTS = {
    "jacobs1991": ["jacobs1991"],
    "jacobs1991 sensitivity": ["jacobs1991", "--sensitivity"],
    "jordan1994": ["jordan1994"],
    "jordan1994 sensitivity": ["jordan1994", "--sensitivity"],
    "chen2022": ["chen2022"],
    "chen2022 setting 2, paper": ["chen2022", "--setting", "2", "--variant", "paper"],
    "router_zoo": ["router_zoo"],
    "shazeer2017": ["shazeer2017"],
    "one_to_many": ["one_to_many"],
    "nowlan1991": ["nowlan1991"],
    "training_methods": ["training_methods"],
    "why_it_works": ["why_it_works"],
}
# times, and "lines": how long the source of a training method is
TIMES = {"versions", "milliseconds", "seconds", "timing", "seconds an epoch", "whole", "lines"}


def module(new, old):
    """The module by its path in the house of version 0.2, or by the path that it had before."""
    try:
        return importlib.import_module(f"moe_np.{new}")
    except ModuleNotFoundError:
        return importlib.import_module(f"moe_np.{old}")


def digest(value):
    """A hash of a tree of dicts, sequences, arrays and numbers: names, dtypes, shapes and bits."""
    import numpy as np

    h = hashlib.sha256()

    def add(item):
        if isinstance(item, dict):
            for key in sorted(item):
                h.update(f"{key}:".encode())
                add(item[key])
        elif isinstance(item, (list, tuple)):
            h.update(f"[{len(item)}".encode())
            for part in item:
                add(part)
        elif item is None:
            h.update(b"None")
        else:
            array = np.ascontiguousarray(item)
            h.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())

    add(value)
    return h.hexdigest()[:16]


# --- experiments and the replay, by the command line ----------------------------------------------


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def by_command(arguments):
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "moe_np", *arguments, "--out", folder, "--json"]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"": f"exit {done.returncode}: {done.stderr.strip().splitlines()[-1]}"}
    result = without_times(json.loads(done.stdout))
    parts = result if isinstance(result, dict) else {"rows": result}
    return {
        name: hashlib.sha256(json.dumps(v, sort_keys=True).encode()).hexdigest()[:16]
        for name, v in parts.items()
    }


def experiments():
    for name, arguments in EXPERIMENTS.items():
        print(f"experiment: {name}", file=sys.stderr, flush=True)
        for part, value in by_command(["run", *arguments, "--quick"]).items():
            yield f"experiment {name}: {part}", value


def replay():
    print("replay: chen2022, setting 1", file=sys.stderr, flush=True)
    for part, value in by_command(["replay", "chen2022", "--setting", "1"]).items():
        yield f"replay chen2022 setting 1: {part}", value


def bench():
    contestants = module("experiments.layer_speed.contestants", "experiments.contestants")
    timing = module("experiments.layer_speed.bench", "experiments.bench_layer")
    for kind in ("swiglu", "relu"):
        for shape in timing.QUICK:
            for name in ("moe_np", "numpy_mask_loop"):
                step = contestants.CONTESTANTS[name][0](contestants.problem(kind, shape))
                yield f"bench {kind} {tuple(shape)} {name}", digest(step(True))


# --- routers, experts, layers, losses -------------------------------------------------------------

SHAPES = ((12, 5, 4), (64, 16, 8), (257, 32, 16), (1, 3, 4), (600, 48, 32), (0, 5, 4))


def redesigned():
    """Whether the routers have the options of version 0.2."""
    strictly_balanced = importlib.import_module("moe_np.routing.strictly_balanced")
    return "training" in inspect.signature(strictly_balanced.route).parameters


def router_cases(new):
    """name -> (module, options of init, options of route): the same routings in the words of both
    versions.
    """
    r = {
        name: importlib.import_module(f"moe_np.routing.{name}")
        for name in [
            "base_assignment",
            "bias_balanced",
            "dense",
            "expert_choice",
            "gshard",
            "hashing",
            "hierarchical",
            "kmeans",
            "noisy_top_k",
            "st_moe",
            "strictly_balanced",
            "switch",
            "top_k",
            "top_p",
        ]
    }
    sampled = module("routing.gradient_estimators", "routing.estimators")
    renormalised = {"renormalise": True, "k": 2}
    mode = (
        (lambda name, value, training: {"training": training})
        if new
        else (lambda name, value, _: {name: value})
    )
    return {
        "dense": (r["dense"], {}, {}),
        "top_k": (r["top_k"], {}, renormalised),
        "top_k k=3": (r["top_k"], {}, {"k": 3, "renormalise": False}),
        "noisy_top_k": (r["noisy_top_k"], {"scale": 1.0}, {"k": 2, "noise_epsilon": 1e-2}),
        "switch": (r["switch"], {}, {"capacity_factor": 1.25, "jitter": 0.01}),
        "gshard": (r["gshard"], {}, {"capacity_factor": 1.0}),
        "gshard code": (r["gshard"], {}, {"capacity_factor": 0.75, "variant": "code"}),
        "st_moe": (r["st_moe"], {}, {"capacity_factor": 1.0}),
        "st_moe pair": (
            r["st_moe"],
            {},
            {"of": "pair", "second": "random", "capacity_factor": 0.75},
        ),
        "strictly_balanced batch": (
            r["strictly_balanced"],
            {},
            {"k": 2, **mode("mask", "batch", True)},
        ),
        "strictly_balanced threshold": (
            r["strictly_balanced"],
            {},
            {"k": 2, **mode("mask", "threshold", False)},
        ),
        "expert_choice": (r["expert_choice"], {}, {"capacity_factor": 2.0}),
        "expert_choice cap": (r["expert_choice"], {}, {"capacity_factor": 1.5, "cap": 2}),
        "base balanced": (r["base_assignment"], {}, mode("balanced", True, True)),
        "base greedy": (r["base_assignment"], {}, mode("balanced", False, False)),
        "kmeans": (r["kmeans"], {}, {"k": 1, "weights": "one"}),
        "kmeans renormalised": (
            *(r["kmeans"], {}),
            {"k": 2, "temperature": 2.0}
            | ({"weights": "softmax", "renormalise": True} if new else {"weights": "renormalised"}),
        ),
        "top_p": (r["top_p"], {}, {"p": 0.6}),
        "bias_balanced": (
            r["bias_balanced"],
            {},
            renormalised | ({"routed_scale": 2.5} if new else {"scale": 2.5}),
        ),
        "bias_balanced groups": (
            r["bias_balanced"],
            {},
            {"k": 2, "renormalise": False, "n_group": 2, "topk_group": 1},
        ),
        "reinforce": (sampled, {}, {"estimator": "reinforce"}),
        "straight_through": (sampled, {}, {"estimator": "straight_through"}),
        "hierarchical": (
            r["hierarchical"],
            {"groups": 2},
            {"k_primary": 2, "k_secondary": 2, "renormalise": True},
        ),
    }


def routers(dtype):
    import numpy as np

    for name, (router, start, options) in router_cases(redesigned()).items():
        for seed, (N, D, E) in enumerate(SHAPES):
            rng = np.random.default_rng(seed)
            params = router.init(rng, D, E, **start)
            params = {
                k: (p + 0.3 * rng.normal(size=p.shape)).astype(dtype) for k, p in params.items()
            }
            x = rng.normal(size=(N, D)).astype(dtype)
            dlogits = rng.normal(size=(N, E)).astype(dtype)
            for noise in (None, np.random.default_rng(seed + 7)):
                mode = "evaluation" if noise is None else "noise"
                key = f"router {name} {(N, D, E)} {np.dtype(dtype).name} {mode}"
                try:
                    routing, cache = router.route(params, x, **options, rng=noise)
                except Exception as error:
                    yield key, f"{type(error).__name__}: {error}"
                    continue
                dweight = rng.normal(size=routing.weight.shape).astype(dtype)
                yield key, digest(tuple(routing)[:6])
                if routing.logits is not None:
                    yield f"{key}, backward", digest(router.route_backward(dweight, dlogits, cache))
                    yield (
                        f"{key}, backward of weights",
                        digest(router.route_backward(dweight, None, cache)),
                    )
                if name == "noisy_top_k":
                    load = router.load_forward(cache)
                    dload = rng.normal(size=E).astype(dtype)
                    yield f"{key}, load", digest([load, router.load_backward(dload, cache)])
                if name == "strictly_balanced batch":
                    yield f"{key}, threshold loss", digest(tuple(router.threshold_loss(cache))[-1])


def layers(dtype):
    import numpy as np

    experts = module("layers.experts", "experts")
    layer = module("layers.sparse_layer", "sparse_layer")
    top_k = importlib.import_module("moe_np.routing.top_k")
    for seed, (N, D, E) in enumerate(SHAPES):
        for name, sizes in (
            ("LINEAR", ()),
            ("RELU", (7,)),
            ("GELU", (9,)),
            ("SWIGLU", (12,)),
            ("CUBIC", (6,)),
        ):
            for share in ((), ("w1",)) if name == "RELU" else ((),):
                rng, expert = np.random.default_rng(seed), getattr(experts, name)
                options = {"share": share} if share else {}
                params = expert.init(rng, D, E, *sizes, dtype=dtype, **options)
                x = rng.normal(size=(N, 4, D) if name == "CUBIC" else (N, D)).astype(dtype)
                flat = x.reshape(N, int(np.prod(x.shape[1:])))
                router = top_k.init(rng, flat.shape[1], E, dtype=dtype)
                routing, router_cache = top_k.route(router, flat, k=3, renormalise=True)
                out, cache = layer.forward(params, x, routing, expert)
                dx, grads, dweight = layer.backward(rng.normal(size=out.shape).astype(dtype), cache)
                back = top_k.route_backward(dweight, None, router_cache)
                key = f"layer {name} {share} {(N, D, E)} {np.dtype(dtype).name}"
                yield key, digest([out, dx, grads, dweight, back])


def losses(dtype):
    import numpy as np

    balance = module("layers.balance", "balance")
    top_k = importlib.import_module("moe_np.routing.top_k")

    def plain(result):
        """The numbers of a loss in the words of both versions: value first, then its gradients that
        are not None.
        """
        return [part for part in tuple(result) if part is not None and not isinstance(part, str)]

    for seed, (N, D, E) in enumerate(SHAPES[:-1]):
        rng = np.random.default_rng(seed)
        params, x = top_k.init(rng, D, E, dtype=dtype), rng.normal(size=(N, D)).astype(dtype)
        routing, _ = top_k.route(params, x, k=2, renormalise=True)
        valid = np.arange(N) % 5 != 4
        for name in ("importance", "switch", "gshard", "z_loss", "token_entropy", "mean_entropy"):
            for mask in (None, valid):
                padded = "padded" if mask is not None else ""
                key = f"loss {name} {(N, D, E)} {np.dtype(dtype).name} {padded}"
                yield key, digest(plain(getattr(balance, name)(routing, valid=mask)))
        device = np.arange(E) % 2
        yield f"loss device {(N, E)}", digest(plain(balance.device_level(routing, device)))
        sequence = np.sort(np.arange(N) % 3)
        yield (
            f"loss sequence {(N, E)}",
            digest(plain(balance.sequence_wise(routing, sequence, k=2))),
        )


def api():
    import numpy as np

    before = os.environ.pop("MOE_NP_KERNELS", None)
    for mode in ("numba", "numpy"):
        os.environ["MOE_NP_KERNELS"] = mode
        for part in (routers, layers, losses):
            for dtype in (np.float64, np.float32):
                for key, value in part(dtype):
                    yield f"{mode} {key}", value
    del os.environ["MOE_NP_KERNELS"]
    if before is not None:
        os.environ["MOE_NP_KERNELS"] = before


PARTS = {"api": api, "bench": bench, "experiments": experiments, "replay": replay}


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("record", "compare"))
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument(
        "--only", choices=tuple(PARTS), action="append", help="one part (may be given again)"
    )
    parser.add_argument("--package", metavar="FOLDER", help="the checkout whose package is asked")
    args = parser.parse_args(argv)
    if args.package:
        sys.path.insert(0, args.package)
        os.environ["PYTHONPATH"] = args.package
    parts = args.only or list(PARTS)
    now = {part: dict(PARTS[part]()) for part in parts}
    if args.what == "record":
        args.file.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
        print({part: len(values) for part, values in now.items()})
        return 0
    before, different = json.loads(args.file.read_text(encoding="utf-8")), 0
    for part in parts:
        for key in sorted(set(before[part]) | set(now[part])):
            was, is_ = before[part].get(key), now[part].get(key)
            if was != is_:
                different += 1
                print(f"{key}: {was} before, {is_} now")
        print(f"{part}: {len(before[part])} recorded, {len(now[part])} now")
    print("equal to the bit" if not different else f"{different} differ")
    return 1 if different else 0


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main(sys.argv[1:]))
