"""Base: what every room of the package uses, without a mixture in it.

    checks       input validation
    types        short names for the types in signatures
    numerics     softmax, logsumexp, sigmoid, softplus, entropy
    optim        optimisers: gradient descent, momentum, Adam, normalised gradient descent
    gradcheck    the projection gradient check
    params       nested parameters, leaf by leaf and as one vector
    files        atomic writes, folders
    machine      processors, and the threads of BLAS

These modules import no other room.
"""
