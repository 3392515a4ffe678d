"""Generators whose draws are known."""

import numpy as np


class Constant(np.random.Generator):
    """Every number that it draws from [0, 1) is u."""

    def __init__(self, u):
        super().__init__(np.random.PCG64(0))
        self.u = u

    def random(self, size):
        return np.full(size, self.u)


class Fixed(np.random.Generator):
    """A generator that hands out the noise it was given."""

    def __init__(self, noise):
        super().__init__(np.random.PCG64(0))
        self.noise = np.asarray(noise, float)

    def normal(self, size):
        return self.noise.reshape(size)
