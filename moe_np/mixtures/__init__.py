"""Mixtures of experts of the 1990s: all experts see every case, and a gating network weighs them.

jacobs1991        the mixture of 1991: three error functions, gradients, training
jacobs1991_net    the nets with one hidden layer that it is compared with
nowlan1991        the same with a width σ, and a gate with its own inputs
em                expectation-maximisation (EM) for a mixture: em.fit
affine            x W_e + b_e of all experts of a mixture
em_families       the experts that EM trains: Gaussian and categorical
em_problem        its data and settings, checked; weights of the cases
em_fit            a fitted mixture: predictions, scores, samples
least_squares     weighted least squares, for many regressions at once
irls              logistic regression by iteratively reweighted least squares (IRLS)
hme               hierarchical mixture of experts (HME): likelihood, posteriors, gradient
hme_tree          its tree: initialisation, subtrees, validation
hme_em            EM for a tree (Jordan and Jacobs 1994, Algorithms 1 and 2)
hme_fit           the same from several initialisations, and a fitted tree
hme_online        learning case by case, by recursive least squares or the gradient
"""
