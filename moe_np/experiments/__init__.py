"""The papers' experiments, each one file with the same four things:

    Config               frozen dataclass: the paper's values, and in comments where each was read
    PAPER                the published numbers
    run_one(spec)        one run of one system from one seed: a JSON-able dict in, a JSON-able dict out
    run(config, *, seeds, sweep) -> dict      all runs and their summary, what `moe-np run NAME` writes as NAME.json
    table(result) -> str                      the same as Markdown, published numbers beside ours

`sweep` is a `moe_np.experiments.common.sweep.Sweep`: it runs seeds in parallel and remembers
finished ones.
"""

# name -> (module, one line for `moe-np list`)
EXPERIMENTS = {
    "jacobs1991": (
        "moe_np.experiments.jacobs1991.experiment",
        "vowels of Jacobs et al. 1991: 4 and 8 experts against backprop nets of 6 and 12",
    ),
    "chen2022": (
        "moe_np.experiments.chen2022.experiment",
        "synthetic clusters of Chen et al. 2022: linear and cubic experts, accuracy and dispatch entropy",
    ),
    "router_zoo": (
        "moe_np.experiments.router_zoo.experiment",
        "every router on one associative memory: quality, balance, dropped share and time",
    ),
    "shazeer2017": (
        "moe_np.experiments.shazeer2017.experiment",
        "Table 6 of Shazeer et al. 2017: the balance losses of noisy top-k gating, on and off",
    ),
    "one_to_many": (
        "moe_np.experiments.one_to_many.experiment",
        "the inverse problem of Bishop's and Murphy's books: a net averages the branches, a mixture keeps them",
    ),
    "nowlan1991": (
        "moe_np.experiments.nowlan1991.experiment",
        "ten vowels of Nowlan and Hinton 1991: competing experts against backprop, the gate told who speaks",
    ),
    "jordan1994": (
        "moe_np.experiments.jordan1994.experiment",
        "robot arm of Jordan and Jacobs 1994, a surrogate: trees of experts by EM and on-line, backprop, CART",
    ),
    "training_methods": (
        "moe_np.experiments.training_methods.experiment",
        "joint, alternating, separate, EM, hard, evolutionary: nine ways to train on three problems; articles' claims",
    ),
    "why_it_works": (
        "moe_np.experiments.why_it_works.experiment",
        "why a mixture works: eleven claims of articles and papers, each against numbers",
    ),
}
