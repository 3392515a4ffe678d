"""moe_np: mixture of experts from 1991 to today, in plain NumPy, with every backward pass by hand.

    moe_np.mixtures      the mixture of 1991, EM, hierarchical mixtures of experts (HME)
    moe_np.routing       a file per router: top-k, noisy top-k, Switch, GShard, expert choice, ...
    moe_np.layers        sparse layer, experts, load-balancing losses, diagnostics, soft mixture
    moe_np.audit         holds somebody else's router or layer against the reference
    moe_np.estimators    scikit-learn's fit and predict in front of mixtures and trees
    moe_np.models        whole models: decoders, encoder-decoders, LSTMs, and their checkpoints
    moe_np.training      ways to train a mixture: joint, alternating, EM, hard, evolutionary, ...
    moe_np.data          vowels, clusters, the robot arm, inverse and piecewise problems
    moe_np.experiments   a folder per paper or question: its configuration, runs and report
    moe_np.parallel      experts over several ranks, in one process or many
    moe_np.serving       on one machine: experts on disk, fewer bits, many requests
    moe_np.adapt         after training: upcycle, add, remove, merge experts, distil, fine-tune
    moe_np.language      language models in a folder: train, evaluate, continue a text
    moe_np.show          any of it one named state at a time (walk), drawn (view)
    moe_np.plots         pictures of arrays
    moe_np.accounting    parameters, memory and operations of published models
    moe_np.coursework    questions, release, check, grade, and the sandbox
    moe_np.kernels       the inner loops in Numba, each equal to its NumPy twin
    moe_np.base          checks, numerics, gradient check, optimisers, parameters, files

    from moe_np.layers import experts, sparse_layer
    from moe_np.routing import top_k

    routing, router_cache = top_k.route(router, x, k=2, renormalise=True)
    out, cache = sparse_layer.forward(params, x, routing, experts.SWIGLU)
    dx, grads, dweight = sparse_layer.backward(dout, cache)
    dx_router, router_grads = top_k.route_backward(dweight, None, router_cache)

The rooms are imported when they are first touched: `import moe_np` costs nothing.
"""

__version__ = "0.2.0"
__all__ = [
    "accounting",
    "adapt",
    "audit",
    "base",
    "coursework",
    "data",
    "estimators",
    "experiments",
    "kernels",
    "language",
    "layers",
    "mixtures",
    "models",
    "parallel",
    "plots",
    "routing",
    "serving",
    "show",
    "training",
]


def __getattr__(name):
    if name in __all__:
        import importlib

        return importlib.import_module(f"moe_np.{name}")
    raise AttributeError(f"module 'moe_np' has no attribute {name!r}")


def __dir__():
    return [*__all__, "__version__"]
