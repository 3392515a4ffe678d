"""The LSTM layer against torch.nn.LSTM, with and without proj_size; gradients by autograd."""

import numpy as np
import pytest

from moe_np.layers import lstm

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")

NAMES = {"wx": "weight_ih_l0", "wh": "weight_hh_l0", "wp": "weight_hr_l0"}  # transposed


@pytest.mark.parametrize("projection", [None, 5])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 2e-5)])
def test_forward_and_backward(backend, projection, dtype, tolerance):
    rng = np.random.default_rng(0)
    B, T, D, H = 3, 7, 4, 6
    params = lstm.init(rng, D, H, projection, dtype=dtype)
    params = {name: (p + rng.normal(size=p.shape) / 2).astype(dtype) for name, p in params.items()}
    model = torch.nn.LSTM(D, H, batch_first=True, proj_size=projection or 0)
    model = model.double() if dtype == np.float64 else model
    with torch.no_grad():
        for name, theirs in NAMES.items():
            if name in params:
                getattr(model, theirs).copy_(torch.tensor(params[name].T))
        model.bias_ih_l0.copy_(torch.tensor(params["b"]))
        model.bias_hh_l0.zero_()
    x, h0, c0, dh = (
        rng.normal(size=shape).astype(dtype)
        for shape in ((B, T, D), (B, projection or H), (B, H), (B, T, projection or H))
    )
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, h0[None], c0[None])]
    out, (h_n, c_n) = model(tensors[0], (tensors[1], tensors[2]))
    ((out * torch.tensor(dh)).sum() + 2 * h_n.sum() + 3 * c_n.sum()).backward()

    h, last, cache = lstm.forward(params, x, lstm.State(h0, c0))
    dlast = lstm.State(np.full_like(last.h, 2), np.full_like(last.c, 3))
    dx, dstate, grads = lstm.backward(dh, cache, dlast)
    expected = [out, h_n[0], c_n[0], *(t.grad for t in tensors[:1]), tensors[1].grad[0]]
    expected += [tensors[2].grad[0], model.bias_ih_l0.grad]
    ours = [h, last.h, last.c, dx, dstate.h, dstate.c, grads["b"]]
    for name, theirs in NAMES.items():
        if name in params:
            ours.append(grads[name])
            expected.append(getattr(model, theirs).grad.T)
    for a, b in zip(ours, expected, strict=True):
        b = b.detach().numpy()
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())
