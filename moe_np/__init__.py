"""moe_np: mixture of experts, from 1991 to today, in plain NumPy.

    moe_np.mixtures.jacobs1991    adaptive mixtures of local experts, the three error functions
    moe_np.models.patch_cnn       the two-layer patch networks and the sparse mixture of Chen et al. 2022
    moe_np.data                   the Peterson and Barney vowels, the synthetic clusters
    moe_np.base.optim, .gradcheck      steps as pure functions; the projection check of any gradient
    moe_np.experiments            the papers' experiments: Config, PAPER, run

Importing the package imports none of them: `import moe_np` costs nothing beyond Python itself.
"""

__version__ = "0.1.0"
