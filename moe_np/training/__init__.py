"""Training: the loop of whole models, and methods that train a mixture of experts, each an iterator
of steps on the same problem.

`loop.py` trains whole models on minibatches, with AdamW.

`methods/method.py` says what a training method is. The methods:

joint           gradient descent of all parameters on one likelihood
alternating     the experts with the gate held, the gate with the experts held, in turn
separate        clusters first, then each expert on its cluster, then the gate on the clusters
em              E and M steps; exact fits where there are any, elsewhere gradient ascent
hard            one drawn expert per case, by REINFORCE or straight-through
evolutionary    a population with crossover of experts, self-adapting mutation and selection
cma_es          an evolution strategy that adapts its covariance matrix

for step in joint.train(problem, np.random.default_rng(0)):
    ...                       # step.loss, step.params, step.updated, step.cache
    if step.passes > 1000:
        break
"""
