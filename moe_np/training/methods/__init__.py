"""Training methods for one mixture of experts; `moe_np.training` lists them.

method        what a training method is: problem, likelihood, step
population    mixtures as vectors, for the methods without a gradient
densities     densities of the target under an expert
"""
