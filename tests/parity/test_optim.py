"""AdamW and clipping against PyTorch, several updates, in float64 and float32."""

import numpy as np
import pytest

from moe_np.base import optim
from moe_np.base.params import leaves

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")


def model(dtype):
    rng = np.random.default_rng(1)
    params = {
        "embed": {"w": rng.normal(size=(7, 5)).astype(dtype)},
        "layers": [
            {"norm": {"g": rng.normal(size=5).astype(dtype)}},
            {"experts": {"w1": rng.normal(size=(2, 5, 3)), "b1": rng.normal(size=(2, 3))}},
        ],
    }
    experts = params["layers"][1]["experts"]
    params["layers"][1]["experts"] = {name: p.astype(dtype) for name, p in experts.items()}
    return params, rng


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 2e-6)])
@pytest.mark.parametrize("fused", [False, True])
def test_adamw_after_clipping(dtype, tolerance, fused):
    params, rng = model(dtype)
    tensors = {path: torch.tensor(p.copy()) for path, p in leaves(params).items()}
    decayed = [path for path in tensors if optim.decays_by_name(path)]
    assert decayed == ["embed.w", "layers.1.experts.w1"]
    optimiser = torch.optim.AdamW(
        [
            {"params": [tensors[path] for path in decayed], "weight_decay": 0.1},
            {"params": [t for path, t in tensors.items() if path not in decayed]},
        ],
        lr=0.01,
        betas=(0.9, 0.95),
        eps=1e-8,
        weight_decay=0.0,
        fused=fused,
    )
    state = None
    for _ in range(5):
        for t in tensors.values():
            t.grad = torch.tensor(rng.normal(size=t.shape).astype(dtype))
        grads = {path: t.grad.numpy().copy() for path, t in tensors.items()}
        norm = torch.nn.utils.clip_grad_norm_(tensors.values(), 0.7).item()
        optimiser.step()
        clipped, before = optim.clip_by_global_norm(nested(grads), 0.7)
        assert before == pytest.approx(norm, rel=1e-6)
        params, state = optim.adamw(
            params, clipped, state, lr=0.01, weight_decay=0.1, betas=(0.9, 0.95)
        )
    # PyTorch divides by norm + 1e-6 when it clips; Adam hardly sees the scale of the gradients
    for path, p in leaves(params).items():
        np.testing.assert_allclose(p, tensors[path].numpy(), rtol=max(tolerance, 1e-7), atol=1e-7)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 2e-6)])
def test_adamw_alone(dtype, tolerance):
    rng = np.random.default_rng(2)
    p = {"w": rng.normal(size=(30, 20)).astype(dtype)}
    tensor = torch.tensor(p["w"].copy())
    optimiser = torch.optim.AdamW([tensor], lr=0.02, weight_decay=0.3)
    state = None
    for _ in range(7):
        g = rng.normal(size=(30, 20)).astype(dtype)
        tensor.grad = torch.tensor(g)
        optimiser.step()
        p, state = optim.adamw(p, {"w": g}, state, lr=0.02, weight_decay=0.3)
    np.testing.assert_allclose(p["w"], tensor.numpy(), rtol=tolerance, atol=tolerance)


def nested(grads):
    return {
        "embed": {"w": grads["embed.w"]},
        "layers": [
            {"norm": {"g": grads["layers.0.norm.g"]}},
            {"experts": {name: grads[f"layers.1.experts.{name}"] for name in ("w1", "b1")}},
        ],
    }
