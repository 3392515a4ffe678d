"""Counts of published models: the printed digits, and a second count, array by array."""

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
        ("moe-65536-h", 68_791_046_144, 9_179_136),
        ("grok-1", 315_684_820_992, 83_756_587_008),
    ],
)
def test_exact_counts(name, total, active):
    counts = count(name)
    assert (counts.total, counts.active) == (total, active)


def test_grok_1_was_published_without_its_embedding():
    counts = count("grok-1")
    assert (counts.total - counts.parts["embedding"].total) // 10**9 == 314


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
# the printed number differs from the counted one; the note of the model says so
DIFFER = {("switch-base", "total"), ("moe-256", "operations"), ("grok-1", "total")}


@pytest.mark.parametrize("name", MODELS)
def test_published_numbers_come_out_or_the_note_says_so(name):
    counts = count(name)
    for key, text in counts.published.items():
        digits = len(text[:-1].partition(".")[2])
        ours = f"{getattr(counts, key) / SCALE[text[-1]]:.{digits}f}{text[-1]}"
        message = f"{name} {key}: printed {text}, counted {ours}"
        assert (ours == text) != ((name, key) in DIFFER), message
        assert ours == text or counts.note


@pytest.mark.parametrize("name", MODELS)
def test_sums_and_bounds(name):
    counts = count(name)
    for key in ("total", "active", "operations"):
        assert sum(getattr(part, key) for part in counts.parts.values()) == getattr(counts, key)
    for part in counts.parts.values():
        assert part.active <= part.total and part.total + part.operations > 0
    assert counts.memory["float32"] == 2 * counts.memory["bfloat16"] == 4 * counts.total
    assert counts.memory["adam"] == 16 * counts.total


def weights(c):
    """Every array of a Transformer.

    {name: (shape, share of the tokens that use it, whether tokens are multiplied with it)}
    """
    out = {"embedding": ((c.vocab, c.d_model), 1, False)}
    q = (c.d_model, c.heads * c.d_head)
    kv = (c.d_model, c.kv_heads * c.d_head)
    attention = {"q": q, "k": kv, "v": kv, "o": q[::-1]}
    sparse_layers = c.moe_layers
    for side, layers in (("encoder", c.encoder_layers), ("decoder", c.decoder_layers)):
        sources = ("self", "cross") if side == "decoder" and c.encoder_layers else ("self",)
        for layer in range(layers):
            name = f"{side}.{layer}"
            for source in sources:
                out |= {f"{name}.{source}.{n}": (s, 1, True) for n, s in attention.items()}
                out[f"{name}.{source}.norm"] = ((c.d_model,), 1, False)
            out[f"{name}.norm"] = ((c.d_model,), 1, False)
            if sparse_layers:
                sparse_layers -= 1
                out |= mixture_weights(c, name)
            else:
                matrices = range(3 if c.gated else 2)
                out |= {f"{name}.ff{i}": ((c.d_model, c.d_ff), 1, True) for i in matrices}
        if layers:
            out[f"{side}.norm"] = ((c.d_model,), 1, False)
            out[f"{side}.positions"] = ((c.position_buckets, c.heads), 1, False)
    out["output"] = ((c.vocab, 0 if c.tied else c.d_model), 1, True)
    return out


def mixture_weights(c, name):
    """The arrays of one mixture layer, in the same form."""
    out = {f"{name}.router": ((c.d_model, c.experts), 1, True)}
    for m in range(c.experts + c.shared):
        share = 1 if m >= c.experts else c.k / c.experts
        for i in range(3 if c.gated_experts else 2):
            out[f"{name}.expert{m}.{i}"] = ((c.d_model, c.d_expert), share, True)
    return out


@pytest.mark.parametrize("encoder_layers", [0, 2])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("gated", [True, False])
def test_a_transformer_counted_array_by_array(encoder_layers, tied, gated):
    sizes = {"vocab": 11, "d_model": 6, "heads": 3, "d_head": 4, "kv_heads": 1, "d_ff": 7}
    layers = {"decoder_layers": 3, "encoder_layers": encoder_layers, "moe_layers": 2}
    mixture = {"experts": 4, "k": 2, "shared": 1, "d_expert": 5, "gated_experts": not gated}
    c = Transformer(**sizes, **layers, **mixture, gated=gated, tied=tied, position_buckets=8)
    arrays = weights(c).values()
    counts = count(c)
    assert counts.total == sum(np.prod(shape) for shape, _, _ in arrays)
    assert counts.active == sum(np.prod(shape) * used for shape, used, _ in arrays)
    head = c.vocab * c.d_model if tied else 0  # the embedding as the output matrix
    products = sum(np.prod(shape) * used for shape, used, product in arrays if product)
    assert counts.operations == products + head


def test_the_gates_are_those_of_the_noisy_router():
    gates = noisy_top_k.init(np.random.default_rng(0), 512, 32)
    assert count("moe-32").parts["gates"].total == sum(g.size for g in gates.values())
    # two levels by hand: 2 · 6 · 4 above; 2 · 6 · 3 in each of 4 groups, 2 of them used
    two = count(LstmMoe(experts=12, branches=4, d=6, cells=6, hidden=5))
    assert two.parts["gates"] == (48 + 4 * 36, 48 + 2 * 36, 48 + 2 * 36)
    assert two.parts["LSTMs"] == (2 * 4 * (12 * 6 + 6), 2 * 4 * (12 * 6 + 6), 2 * 4 * 12 * 6)
    assert two.parts["experts"] == (12 * 60, 4 * 60, 4 * 60)


def test_one_expert_of_one_is_dense():
    sizes = {"vocab": 9, "d_model": 4, "decoder_layers": 2, "heads": 2, "d_head": 2, "kv_heads": 2}
    model = Transformer(**sizes, d_ff=8, gated=True, tied=False)
    one_expert = {"moe_layers": 2, "experts": 1, "k": 1, "d_expert": 8, "gated_experts": True}
    dense = count(model)
    sparse = count(dataclasses.replace(model, **one_expert))
    assert sparse.total - sparse.parts["router"].total == dense.total == dense.active
    assert sparse.total == sparse.active


def test_attention_over_the_context():
    """Scores and weighted sum: 2 · 32 heads · 128 · 4096 positions in each of 32 layers."""
    assert MODELS["mixtral-8x7b"].attention_operations(4096) == 2 * 32 * 128 * 4096 * 32
    attentions = 12 + 12 + 12  # encoder, decoder, decoder to encoder
    assert MODELS["t5-base"].attention_operations(10) == 2 * 12 * 64 * 10 * attentions
    assert MODELS["moe-32"].attention_operations(4096) == 0


def test_the_command(capsys):
    assert cli.main(["count", "mixtral-8x7b"]) == 0
    text = capsys.readouterr().out
    assert "| **all** | 46,702,792,704 | 12,879,925,248 | 12,748,587,008 |" in text
    assert "| published | 46.7B | 12.9B |  |" in text and "bfloat16 93.406 GB" in text
    assert cli.main(["count", "switch-base", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["total"] == 7_415_217_408 and counts["parts"]["router"]["active"] == 1_179_648
    assert counts["memory"]["float32"] == 4 * 7_415_217_408
    assert counts["published"] == {"total": "7410M"}
    assert f"{(counts['total'] - counts['parts']['router']['total']) / 1e6:.2f}" == "7414.04"


def test_an_unknown_model_is_one_line(capsys):
    assert cli.main(["count", "gpt-9"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("moe-np: error: model: wanted one of mixtral-8x7b, t5-base, ")
    assert err.endswith("; got 'gpt-9'\n") and err.count("\n") == 1


def test_a_wrong_type_is_named():
    message = "model: wanted a name of MODELS, a Transformer or an LstmMoe, got int"
    with pytest.raises(InputError, match=message):
        count(5)


def test_every_model_prints():
    for name in MODELS:
        text = accounting.table(count(name))
        assert text.startswith(f"# {name}\n")
        assert all(line.count("|") in (0, 5) for line in text.splitlines())


@pytest.mark.parametrize("value", [np.nan, "8", None, -1, 1.5])
def test_sizes_that_are_no_whole_numbers_are_refused(value):
    model = dataclasses.replace(accounting.MODELS["t5-base"], d_model=value)
    with pytest.raises(InputError, match=r"model\.d_model: wanted a whole number of at least 0"):
        accounting.count(model)
