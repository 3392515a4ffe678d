"""The loss of Chen et al. 2022 from margins, and its derivative; the equations are `loss_forward`
and `loss_backward` of `moe_np.models.patch_cnn`.

With two classes the cross-entropy is log(1 + exp(−margin)), where the margin is the output of the
right class minus the other output.
"""

import numpy as np

from moe_np.kernels.machine.disk_cache import njit
from moe_np.kernels.machine.exp import FUSED, exp_negative_fused
from moe_np.kernels.machine.jit_options import INNER


@njit(**INNER, fastmath=FUSED)
def _loss(margin, twice, dmargin):
    """Margins out_y − out_other become losses in place; dmargin becomes their derivatives
    (`loss_forward`).
    """
    for s in range(len(margin)):
        dmargin[s] = 1.0
    if twice:  # p_y − p_other of the first softmax is tanh(margin / 2)
        for s in range(len(margin)):
            q = margin[s]
            e = exp_negative_fused(-abs(q))
            margin[s] = np.copysign((1 - e) / (1 + e), q)
            dmargin[s] = 2 * e / ((1 + e) * (1 + e))
    for s in range(len(margin)):
        q = margin[s]
        e = exp_negative_fused(-abs(q))
        t = e / (2 + e)  # log(1 + e) = 2 artanh t, and t <= 1/3
        u = t * t
        a = 1 / 23.0 + u * (1 / 25.0 + u * (1 / 27.0 + u * (1 / 29.0 + u * (1 / 31.0))))
        a = 1 / 13.0 + u * (1 / 15.0 + u * (1 / 17.0 + u * (1 / 19.0 + u * (1 / 21.0 + u * a))))
        a = 1 / 5.0 + u * (1 / 7.0 + u * (1 / 9.0 + u * (1 / 11.0 + u * a)))
        a = 1.0 + u * (1 / 3.0 + u * a)
        margin[s] = max(-q, 0.0) + 2 * t * a
        dmargin[s] *= -(e if q >= 0 else 1.0) / (1 + e)


@njit(cache=True, error_model="numpy")
def loss_of_samples(sample, f, y, weight, twice, margin, dmargin, dweight):
    """The sum of the losses of the samples with numbers `sample`, from their f; fills dweight, and
    f becomes df. Scratch: margin and dmargin.
    """
    n = len(sample)
    total = 0.0
    for s in range(n):
        r = sample[s]
        margin[s] = weight[r] * f[s] * (2 * y[r] - 1)
    _loss(margin[:n], twice, dmargin)
    for s in range(n):
        r = sample[s]
        total += margin[s]
        slope = dmargin[s] * (2 * y[r] - 1) / len(y)  # gradient of out₁ − out₀
        dweight[r] = slope * f[s]
        f[s] = slope * weight[r]
    return total
