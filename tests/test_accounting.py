"""Counts of published models: the printed digits, and a twin that lists every weight array one by
one.
"""

import dataclasses
import json

import numpy as np
import pytest

from moe_np import accounting, cli
from moe_np.accounting import MODELS, LstmMoe, Transformer, count
from moe_np.base.checks import InputError
from moe_np.routing import noisy_top_k


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("mixtral-8x7b", 46_702_792_704, 12_879_925_248),
        ("switch-base", 7_415_217_408, 224_083_200),
        ("t5-base", 222_903_552, 222_903_552),
        ("deepseekmoe-16b", 16_375_728_128, 2_828_650_496),
        ("glam-64b-64e", 1_161_755_099_136, 96_603_209_728),
    ],
)
def test_exact_counts(name, total, active):
    counts = count(name)
    assert (counts.total, counts.active) == (total, active)


def test_to_the_printed_digit():
    assert round(count("glam-64b-64e").total / 1e12, 3) == 1.162
    assert round(count("glam-64b-64e").active / 1e9, 3) == 96.603
    assert round(count("deepseekmoe-16b").total / 1e9, 3) == 16.376
    assert round(count("deepseekmoe-16b").active / 1e9, 3) == 2.829


def test_shazeer_tables_7_and_8():
    names = "4 32 256 256-h 1024-h 4096-h 16384-h 65536-h 131072-h 34m 143m"
    printed = "8.4 37.8 272.9 272.9 1079.0 4303.4 17201.0 68791.0 137577.6 4313.9 4371.1"
    assert [f"{count('moe-' + n).total / 1e6:.1f}" for n in names.split()] == printed.split()
    news = [f"{count(f'moe-{n}-h-news').total / 1e6:.1f}" for n in (256, 1024, 4096)]
    assert news == ["272.9", "1079.0", "4303.4"]


SCALE = {"M": 1e6, "B": 1e9, "T": 1e12}
# printed otherwise than counted; each is said in the model's note
DIFFER = {("switch-base", "total"), ("moe-256", "operations")}


@pytest.mark.parametrize("name", MODELS)
def test_whatever_was_published_comes_out_or_is_said(name):
    counts = count(name)
    for key, text in counts.published.items():
        digits = len(text[:-1].partition(".")[2])
        ours = f"{getattr(counts, key) / SCALE[text[-1]]:.{digits}f}{text[-1]}"
        assert (ours == text) != ((name, key) in DIFFER), (
            f"{name} {key}: printed {text}, counted {ours}"
        )
        assert ours == text or counts.note


@pytest.mark.parametrize("name", MODELS)
def test_sums_and_bounds(name):
    counts = count(name)
    for key in ("total", "active", "operations"):
        assert sum(getattr(part, key) for part in counts.parts.values()) == getattr(counts, key)
    assert all(
        part.active <= part.total and part.total + part.operations > 0
        for part in counts.parts.values()
    )
    assert counts.memory["float32"] == 2 * counts.memory["bfloat16"] == 4 * counts.total
    assert counts.memory["adam"] == 16 * counts.total


def weights(c):
    """Every array of a Transformer: {name: (shape, share of the tokens that use it, whether it is
    multiplied with)}.
    """
    out = {"embedding": ((c.vocab, c.d_model), 1, False)}
    q, kv = (c.d_model, c.heads * c.d_head), (c.d_model, c.kv_heads * c.d_head)
    up = (c.d_model, c.d_ff)
    sparse = c.moe_layers
    for side, layers in (("encoder", c.encoder_layers), ("decoder", c.decoder_layers)):
        for layer in range(layers):
            at = f"{side}.{layer}"
            for kind in ("self", "cross") if side == "decoder" and c.encoder_layers else ("self",):
                out |= {
                    f"{at}.{kind}.{n}": (s, 1, True)
                    for n, s in (("q", q), ("k", kv), ("v", kv), ("o", q[::-1]))
                }
                out[f"{at}.{kind}.norm"] = ((c.d_model,), 1, False)
            out[f"{at}.norm"] = ((c.d_model,), 1, False)
            if sparse:
                sparse -= 1
                out[f"{at}.router"] = ((c.d_model, c.experts), 1, True)
                for m in range(c.experts + c.shared):
                    used = 1 if m >= c.experts else c.k / c.experts
                    for i in range(3 if c.gated_experts else 2):
                        out[f"{at}.expert{m}.{i}"] = ((c.d_model, c.d_expert), used, True)
            else:
                out |= {f"{at}.ff{i}": (up, 1, True) for i in range(3 if c.gated else 2)}
        if layers:
            out[f"{side}.norm"] = ((c.d_model,), 1, False)
            out[f"{side}.positions"] = ((c.position_buckets, c.heads), 1, False)
    out["output"] = ((c.vocab, 0 if c.tied else c.d_model), 1, True)
    return out


@pytest.mark.parametrize("encoder_layers", [0, 2])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("gated", [True, False])
def test_a_transformer_counted_array_by_array(encoder_layers, tied, gated):
    c = Transformer(
        vocab=11, d_model=6, decoder_layers=3, heads=3, d_head=4, kv_heads=1, d_ff=7, gated=gated, tied=tied,
        encoder_layers=encoder_layers, moe_layers=2, experts=4, k=2, shared=1, d_expert=5, gated_experts=not gated,
        position_buckets=8,
    )  # fmt: skip
    arrays = weights(c).values()
    counts = count(c)
    assert counts.total == sum(np.prod(shape) for shape, _, _ in arrays)
    assert counts.active == sum(np.prod(shape) * used for shape, used, _ in arrays)
    head = c.vocab * c.d_model if tied else 0  # the embedding is multiplied with once more
    assert (
        counts.operations
        == sum(np.prod(shape) * used for shape, used, product in arrays if product) + head
    )


def test_the_gates_are_those_of_the_noisy_router():
    gates = noisy_top_k.init(np.random.default_rng(0), 512, 32)
    assert count("moe-32").parts["gates"].total == sum(g.size for g in gates.values())
    # two levels by hand: 2 · 6 · 4 above; 2 · 6 · 3 in each of 4 groups, 2 of them used
    two = count(LstmMoe(experts=12, branches=4, d=6, cells=6, hidden=5))
    assert two.parts["gates"] == (48 + 4 * 36, 48 + 2 * 36, 48 + 2 * 36)
    assert two.parts["LSTMs"] == (2 * 4 * (12 * 6 + 6), 2 * 4 * (12 * 6 + 6), 2 * 4 * 12 * 6)
    assert two.parts["experts"] == (12 * 60, 4 * 60, 4 * 60)


def test_one_expert_of_one_is_dense():
    plain = Transformer(
        vocab=9,
        d_model=4,
        decoder_layers=2,
        heads=2,
        d_head=2,
        kv_heads=2,
        d_ff=8,
        gated=True,
        tied=False,
    )
    dense = count(plain)
    sparse = count(
        dataclasses.replace(plain, moe_layers=2, experts=1, k=1, d_expert=8, gated_experts=True)
    )
    assert sparse.total - sparse.parts["router"].total == dense.total == dense.active
    assert sparse.total == sparse.active


def test_attention_over_the_context():
    """Scores and weighted sum: 2 · 32 heads · 128 · 4096 positions in each of 32 layers."""
    assert MODELS["mixtral-8x7b"].attention_operations(4096) == 2 * 32 * 128 * 4096 * 32
    assert MODELS["t5-base"].attention_operations(10) == 2 * 12 * 64 * 10 * 36, (
        "12 encoder, 12 decoder, 12 crossed"
    )
    assert MODELS["moe-32"].attention_operations(4096) == 0


def test_the_command(capsys):
    assert cli.main(["count", "mixtral-8x7b"]) == 0
    said = capsys.readouterr().out
    assert "| **all** | 46,702,792,704 | 12,879,925,248 | 12,748,587,008 |" in said
    assert "| published | 46.7B | 12.9B |  |" in said and "bfloat16 93.406 GB" in said
    assert cli.main(["count", "switch-base", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["total"] == 7_415_217_408 and found["parts"]["router"]["active"] == 1_179_648
    assert found["memory"]["float32"] == 4 * 7_415_217_408 and found["published"] == {
        "total": "7.41B"
    }


def test_an_unknown_model_is_one_line(capsys):
    assert cli.main(["count", "gpt-9"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith(
        "moe-np: error: model: wanted one of mixtral-8x7b, t5-base, "
    )
    assert said.err.endswith("; got 'gpt-9'\n") and said.err.count("\n") == 1
    with pytest.raises(
        InputError, match="model: wanted a name of MODELS, a Transformer or an LstmMoe, got int"
    ):
        count(5)


def test_every_model_prints():
    for name in MODELS:
        text = accounting.table(count(name))
        assert text.startswith(f"# {name}\n") and all(
            line.count("|") in (0, 5) for line in text.splitlines()
        )
