"""Attention against Transformers: OLMoE (a norm of the whole projection), Qwen3 (of each head),
and the buckets of T5. Their softmax is in float32, ours in float64, hence the tolerance.
"""

import numpy as np
import pytest

from moe_np.layers import attention, position_bias, rotary

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("n", "max_distance"), [(32, 128), (64, 256), (16, 50)])
def test_buckets_of_t5(bidirectional, n, max_distance):
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = np.arange(-700, 701)
    ours = position_bias.buckets(
        distance, n, bidirectional=bidirectional, max_distance=max_distance
    )
    theirs = T5Attention._relative_position_bucket(
        torch.from_numpy(distance), bidirectional, n, max_distance
    )
    assert np.array_equal(ours, theirs.numpy())


def layer(name):
    """A layer with random weights in float64: "Olmoe" or "Qwen3Moe"."""
    module = {"Olmoe": "olmoe", "Qwen3Moe": "qwen3_moe"}[name]
    models = pytest.importorskip(f"transformers.models.{module}.modeling_{module}")
    config = getattr(transformers, f"{name}Config")(
        hidden_size=24,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=4,
        attention_bias=True,
        rms_norm_eps=1e-5,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    result = getattr(models, f"{name}Attention")(config, 0).double()
    for p in result.parameters():
        torch.nn.init.normal_(p, std=0.5)
    torch.nn.init.zeros_(result.o_proj.bias)  # ours has none
    return result


def numbers(values):
    """Weights, or with `grad` their gradients, of a layer by our names."""

    def convert(layer):
        params = {"w" + s: values(getattr(layer, s + "_proj").weight).T for s in "qkvo"}
        params |= {"b" + s: values(getattr(layer, s + "_proj").bias) for s in "qkv"}
        return params | {
            s + "_norm": {"g": values(getattr(layer, s + "_norm").weight)} for s in "qk"
        }

    return convert


@pytest.mark.parametrize("name", ["Olmoe", "Qwen3Moe"])
def test_layers_with_norms_of_queries_and_keys(name, backend):
    theirs = layer(name)
    x = torch.randn(2, 9, 24, dtype=torch.double, requires_grad=True)
    angles = rotary.angles(np.arange(9), 4)
    both_halves = [torch.tensor(np.concatenate([a, a], axis=1))[None] for a in angles]
    mask = torch.full((9, 9), -torch.inf, dtype=torch.double).triu(1)[None, None]
    y = theirs(x, tuple(both_halves), mask)[0]
    dout = torch.randn_like(y)
    y.backward(dout)
    params = numbers(lambda p: p.detach().numpy())(theirs)
    chosen = {"heads": 6, "kv_heads": 3, "causal": True, "rotary": angles, "eps": 1e-5}
    out, cache = attention.forward(params, x.detach().numpy(), **chosen)
    np.testing.assert_allclose(out, y.detach().numpy(), atol=1e-5)
    dx, grads = attention.backward(dout.numpy(), cache)
    np.testing.assert_allclose(dx, x.grad.numpy(), atol=2e-5)
    expected = numbers(lambda p: p.grad.numpy())(theirs)
    assert grads.keys() == expected.keys()
    for key, gradient in expected.items():
        ours = grads[key]["g"] if "norm" in key else grads[key]
        gradient = gradient["g"] if "norm" in key else gradient
        np.testing.assert_allclose(ours, gradient, atol=3e-5, err_msg=key)
