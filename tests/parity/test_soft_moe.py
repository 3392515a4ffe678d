"""The soft mixture stated once more in PyTorch."""

import numpy as np
import pytest

from moe_np.layers import experts, soft_moe
from tests.support.torch_gates import D, problem, torch

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("normalise", [True, False])
def test_soft_moe(normalise):
    shapes = {"phi": (D, 4, 3), "w": (4, D, 5), "b": (4, 5), **({"scale": ()} if normalise else {})}
    a, t = problem(**shapes)
    a["x"], t["x"] = (m.reshape(3, 10, D) for m in (a["x"], t["x"].detach()))
    t["x"].requires_grad_()
    unit = t["x"]
    phi = t["phi"].reshape(D, 12)
    if normalise:
        unit = unit * torch.rsqrt((unit**2).sum(dim=2, keepdim=True) + 1e-6)
        phi = t["scale"] * phi * torch.rsqrt((phi**2).sum(dim=0, keepdim=True) + 1e-6)
    logits = torch.einsum("bnd,ds->bns", unit, phi)
    slots = torch.einsum("bns,bnd->bsd", torch.softmax(logits, dim=1), t["x"]).reshape(3, 4, 3, D)
    out = torch.einsum("besd,edf->besf", slots, t["w"]) + t["b"][:, None]
    y = torch.einsum("bns,bsf->bnf", torch.softmax(logits, dim=2), out.reshape(3, 12, 5))
    params = {k: np.asarray(a[k]) for k in ("phi", "scale") if k in a}
    ours, cache = soft_moe.forward(params, {"w": a["w"], "b": a["b"]}, a["x"], experts.LINEAR)
    np.testing.assert_allclose(ours, y.detach().numpy(), rtol=1e-10, atol=1e-12)
    dy = np.random.default_rng(1).normal(size=ours.shape)
    (y * torch.tensor(dy)).sum().backward()
    dx, grads, expert_grads = soft_moe.backward(dy, cache)
    for name, g in {**grads, **expert_grads, "x": dx}.items():
        np.testing.assert_allclose(g, t[name].grad.numpy(), rtol=1e-10, atol=1e-10, err_msg=name)
