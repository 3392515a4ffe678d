"""Ways to train a mixture: each file one method, each an iterator of steps over the same problem
(`contract.py`).

joint           everything down one gradient
alternating     experts with the gate held, the gate with the experts held, in turns
separate        clusters first, then each expert on its own, then the gate on the clusters' numbers
em              E and M steps; exact fits where there are any, elsewhere steps that never lower the likelihood
hard            one drawn expert a case, by REINFORCE or straight-through
evolutionary    a population with crossover of experts, self-adapting mutation, selection; no gradient
cma_es          the same aim with a cloud that learns its shape

for step in joint.train(problem, np.random.default_rng(0)):
    ...                       # step.loss, step.params, step.changed, step.cache
    if step.passes > 1000:
        break
"""
