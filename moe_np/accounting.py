"""Parameters, memory and operations of published mixture-of-experts models, counted exactly.

    total        parameters in memory; with expert parallelism, of all devices together
    active       parameters that one token uses: of E experts k; all of an embedding, as the papers
                 count
    operations   multiply-adds per token: each active matrix once, a looked-up row none

A multiply-add is two floating-point operations. Norms, softmax and activations are left out;
attention over the context is counted by `attention_operations`. An architecture is a sum of Parts.
Every number in MODELS names its source.

    count("mixtral-8x7b").active  ->  12_879_925_248
"""

import math
from dataclasses import dataclass, field, fields
from typing import NamedTuple

from moe_np.base import checks
from moe_np.base.checks import InputError

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "int8": 1}
ADAM = 16  # bytes per parameter to train in float32: weight, gradient and two moments


class Part(NamedTuple):
    """A piece of a model: parameters stored and used, multiply-adds. + adds two, * repeats one."""

    total: int = 0
    active: int = 0
    operations: int = 0

    def __add__(self, other: "Part") -> "Part":
        return Part(*(a + b for a, b in zip(self, other, strict=True)))

    def __mul__(self, times: int) -> "Part":
        return Part(*(times * a for a in self))


def matrix(*shape: int) -> Part:
    """Weights that every token is multiplied with."""
    return Part(*[math.prod(shape)] * 3)


def vector(size: int) -> Part:
    """Biases and scales: stored and used; their few operations are not counted."""
    return Part(size, size, 0)


def lookup(rows: int, size: int) -> Part:
    """An embedding, of which a token reads one row."""
    return Part(rows * size, rows * size, 0)


def choose(k: int, E: int, part: Part) -> Part:
    """E copies of a part are stored; a router sends each token to k of them."""
    return Part(E * part.total, k * part.active, k * part.operations)


def feed_forward(d: int, hidden: int, gated: bool) -> Part:
    """A feed-forward layer without biases: one matrix up, one down.

    `gated` (SwiGLU, GEGLU) adds a third, whose output multiplies the hidden layer.
    """
    return matrix(d, hidden) * (3 if gated else 2)


# --- Transformers ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Transformer:
    """A Transformer without biases, with experts in place of some feed-forward layers.

    Decoder only, or encoder and decoder. With an encoder the numbers are for one token read and one
    token written, so each layer counts once.
    """

    vocab: int
    d_model: int
    decoder_layers: int
    heads: int
    d_head: int
    kv_heads: int
    d_ff: int  # hidden units of the dense feed-forward layers
    gated: bool  # whether those have three matrices
    tied: bool  # whether the embedding is the output matrix too
    encoder_layers: int = 0
    moe_layers: int = 0
    experts: int = 0
    k: int = 0
    shared: int = 0  # experts that every token uses
    d_expert: int = 0  # hidden units of an expert
    gated_experts: bool = False
    norms: bool = True  # a scale of size d_model before each sublayer and after the last
    position_buckets: int = 0  # T5's relative positions: one table (buckets, heads) per stack
    published: dict = field(default_factory=dict)
    note: str = ""

    @property
    def attentions(self) -> int:
        """Self-attention in every layer; with an encoder a second one in each decoder layer."""
        return self.encoder_layers + self.decoder_layers * (2 if self.encoder_layers else 1)

    def parts(self) -> dict[str, Part]:
        """The parts of the model by name."""
        d = self.d_model
        layers = self.encoder_layers + self.decoder_layers
        stacks = 2 if self.encoder_layers else 1
        queries = matrix(d, self.heads * self.d_head)  # the output matrix is as large
        keys = matrix(d, self.kv_heads * self.d_head)  # and so is that of the values
        expert = feed_forward(d, self.d_expert, self.gated_experts)
        return {
            "embedding": lookup(self.vocab, d),
            "attention": (queries * 2 + keys * 2) * self.attentions,
            "feed-forward": feed_forward(d, self.d_ff, self.gated) * (layers - self.moe_layers),
            "experts": choose(self.k, self.experts, expert) * self.moe_layers,
            "shared experts": expert * self.shared * self.moe_layers,
            "router": matrix(d, self.experts) * self.moe_layers,
            "norms": vector(d) * (self.attentions + layers + stacks if self.norms else 0),
            "positions": vector(self.position_buckets * self.heads) * stacks,
            # tied: the numbers of the embedding, multiplied with but not stored again
            "output": Part(0, 0, self.vocab * d) if self.tied else matrix(d, self.vocab),
        }

    def attention_operations(self, context: int) -> int:
        """Multiply-adds per token for scores and weighted sum over `context` positions."""
        return 2 * self.heads * self.d_head * context * self.attentions


# --- Shazeer's language models --------------------------------------------------------------------


@dataclass(frozen=True)
class LstmMoe:
    """LSTM, mixture, LSTM (Shazeer et al. 2017, appendices C and D).

    Embedding and softmax are left out, as in the paper's tables. All sizes are `d` except the cells
    of an LSTM with a projection back to d. Experts are ReLU networks without biases; the LSTMs have
    biases, and a gating network has two matrices, W_g and W_noise: counted so, the published
    numbers come out.
    """

    experts: int
    branches: int = 0  # first-level branching factor of a hierarchical mixture; 0: one level
    k: int = 4  # one level; 2 at each of two levels
    d: int = 512
    cells: int = 512
    hidden: int = 1024
    published: dict = field(default_factory=dict)
    note: str = ""

    def parts(self) -> dict[str, Part]:
        """The parts of the model by name."""
        # four gates of input and state
        recurrent = (matrix(2 * self.d, self.cells) + vector(self.cells)) * 4
        projection = matrix(self.cells, self.d) if self.cells != self.d else Part()
        expert = feed_forward(self.d, self.hidden, gated=False)
        gate = matrix(self.d, self.experts) * 2
        if self.branches:  # one gate of the groups, and one within each of the two chosen groups
            inner = matrix(self.d, self.experts // self.branches) * 2
            gate = matrix(self.d, self.branches) * 2 + choose(2, self.branches, inner)
        return {
            "LSTMs": (recurrent + projection) * 2,
            "experts": choose(self.k, self.experts, expert),
            "gates": gate,
        }

    def attention_operations(self, context: int) -> int:
        """0: there is no attention."""
        return 0


# --- the published models -------------------------------------------------------------------------


def _shazeer(total, operations, *experts, note="", **sizes):
    published = {"total": f"{total}M", "operations": f"{operations}M"}
    return LstmMoe(*experts, **sizes, published=published, note=note)


T5_BASE = {
    # published config: 32,000 pieces and 100 sentinels, padded to a multiple of 128
    "vocab": 32128,
    # Raffel et al. 2020 (arXiv 1910.10683), sections 2.1 and 3.1.1, and all that follows
    "d_model": 768,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "heads": 12,
    "kv_heads": 12,
    "d_head": 64,
    "d_ff": 3072,
    "gated": False,  # ReLU
    "tied": True,
    "position_buckets": 32,
}

MODELS: dict[str, Transformer | LstmMoe] = {
    "mixtral-8x7b": Transformer(
        vocab=32000,  # Jiang et al. 2024 (arXiv 2401.04088), table 1, and all that follows
        d_model=4096,
        decoder_layers=32,
        heads=32,
        kv_heads=8,
        d_head=128,
        d_ff=0,  # no dense layer
        gated=True,
        tied=False,  # published weights
        moe_layers=32,
        experts=8,
        k=2,
        d_expert=14336,
        gated_experts=True,  # SwiGLU, section 2.1
        published={"total": "46.7B", "active": "12.9B"},
    ),
    "t5-base": Transformer(**T5_BASE, published={"total": "223M"}),
    "switch-base": Transformer(
        **T5_BASE,
        moe_layers=12,  # every other layer (Fedus et al. 2021, arXiv 2101.03961)
        experts=128,
        k=1,
        d_expert=3072,  # as the dense layers; config.json of the published google/switch-base-256
        published={"total": "7.41B"},
        note="7.41B is truncated, not rounded: 7.415",
    ),
    "glam-64b-64e": Transformer(
        vocab=256000,  # "256K", Du et al. 2021 (arXiv 2112.06905); the sizes that follow: table 4
        d_model=8192,
        decoder_layers=64,
        heads=128,
        kv_heads=128,
        d_head=128,
        d_ff=32768,
        gated=True,  # section 4: a gated linear unit with GELU in the layers without a mixture
        # not stated; a second matrix would make 98.7B active, and Praxis' layers/glam.py shares it
        tied=True,
        moe_layers=32,  # every other layer
        experts=64,
        k=2,
        d_expert=32768,
        gated_experts=False,
        norms=False,
        published={"total": "1.2T", "active": "96.6B"},
        note="norm scales (1.06M) and relative positions are left out: the paper does not give "
        "their sizes; its 180 GFLOP per token is 7 % less than twice the operations",
    ),
    "deepseekmoe-16b": Transformer(
        vocab=102400,  # published config
        d_model=2048,  # Dai et al. 2024 (arXiv 2401.06066), section 5, and what follows
        decoder_layers=28,
        heads=16,
        kv_heads=16,
        d_head=128,
        d_ff=10944,  # of the first layer, which has no mixture; published config
        gated=True,
        tied=False,
        moe_layers=27,
        experts=64,
        k=6,
        shared=2,
        d_expert=1408,  # published config
        gated_experts=True,
        published={"total": "16.4B", "active": "2.8B"},
    ),
    # Shazeer et al. 2017 (arXiv 1701.06538), table 7; appendix C.1: d, cells, hidden, branching
    # factor 16
    "moe-4": _shazeer(8.4, 8.4, 4),
    "moe-32": _shazeer(37.8, 8.4, 32),
    "moe-256": _shazeer(
        272.9, 8.6, 256, note="operations come to 8.651M, which rounds to 8.7M and not to 8.6M"
    ),
    "moe-256-h": _shazeer(272.9, 8.4, 256, 16),
    "moe-1024-h": _shazeer("1079.0", 8.5, 1024, 16),
    "moe-4096-h": _shazeer(4303.4, 8.9, 4096, 16),
    # appendix C.2; the branching factor there is taken to be the one of C.1
    "moe-34m": _shazeer(4313.9, 33.8, 1024, 16, d=1024, cells=1024, hidden=2048),
    "moe-143m": _shazeer(4371.1, 142.7, 256, 16, d=1024, cells=4096, hidden=8192),
    # table 8; appendix D: branching factors
    "moe-256-h-news": _shazeer(272.9, 8.4, 256, 32),
    "moe-1024-h-news": _shazeer("1079.0", 8.5, 1024, 32),
    "moe-4096-h-news": _shazeer(4303.4, 8.6, 4096, 64),
    "moe-16384-h": _shazeer("17201.0", 8.8, 16384, 128),
    "moe-65536-h": _shazeer("68791.0", 9.2, 65536, 256),
    "moe-131072-h": _shazeer(137577.6, 9.7, 131072, 256),
}


# --- counting -------------------------------------------------------------------------------------


class Counts(NamedTuple):
    """The counts of one model."""

    name: str
    total: int
    active: int
    operations: int  # multiply-adds per token, without attention over the context
    parts: dict[str, Part]
    memory: dict[str, int]  # bytes of all parameters by dtype; "adam": to train in float32
    published: dict[str, str]  # "total", "active", "operations", as printed
    note: str  # what does not match, or is not counted


def _check_sizes(model):
    """Check that every size is a whole number of at least 0, and every switch True or False."""
    for f in fields(model):
        value = getattr(model, f.name)
        kind = f.type if isinstance(f.type, str) else f.type.__name__
        if kind == "int":
            checks.integer(f"model.{f.name}", value, minimum=0)
        elif kind == "bool":
            checks.boolean(f"model.{f.name}", value)


def count(model: str | Transformer | LstmMoe) -> Counts:
    """Count a model of MODELS by its name, or any Transformer or LstmMoe.

    Raises InputError for an unknown name, and for anything else.
    """
    name = ""
    if isinstance(model, str):
        name = checks.choice("model", model, tuple(MODELS))
        model = MODELS[name]
    elif not isinstance(model, (Transformer, LstmMoe)):
        wanted = "a name of MODELS, a Transformer or an LstmMoe"
        raise InputError(f"model: wanted {wanted}, got {type(model).__name__}")
    _check_sizes(model)
    parts = {key: part for key, part in model.parts().items() if any(part)}
    total, active, operations = sum(parts.values(), Part())
    memory = {dtype: size * total for dtype, size in BYTES.items()} | {"adam": ADAM * total}
    return Counts(name, total, active, operations, parts, memory, dict(model.published), model.note)


def table(counts: Counts) -> str:
    """The counts as Markdown, as `moe-np count` prints them."""
    lines = [f"# {counts.name}", ""]
    lines += ["| part | parameters | active | operations per token |", "|---|--:|--:|--:|"]
    whole = Part(counts.total, counts.active, counts.operations)
    for name, part in {**counts.parts, "**all**": whole}.items():
        lines.append(f"| {name} | {part.total:,} | {part.active:,} | {part.operations:,} |")
    if counts.published:
        cells = (counts.published.get(key, "") for key in Part._fields)
        lines.append(f"| published | {' | '.join(cells)} |")
    lines += ["", "Operations are multiply-adds, without attention over the context."]
    gigabytes = {dtype: f"{size / 1e9:,.3f} GB" for dtype, size in counts.memory.items()}
    adam = gigabytes.pop("adam")
    sizes = ", ".join(f"{dtype} {size}" for dtype, size in gigabytes.items())
    lines.append(f"Memory: {sizes}; to train with Adam in float32 {adam}.")
    if counts.note:
        lines.append(f"Note: {counts.note}.")
    return "\n".join(lines)
