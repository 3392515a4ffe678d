"""Architectures as sums of parts: what is stored, what a token uses, and the operations for it.

A part has three numbers. Matrices have one multiply-add per weight, a looked-up row none; biases
and gains are stored and used, and their few operations are not counted.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple


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
    """A Transformer with experts in place of some feed-forward layers, which have no biases.

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
    output_norms: bool = False  # with `norms`, one after each sublayer too
    query_biases: bool = False  # biases of queries, keys and values
    query_gains: int = 0  # scales of the norms of queries and keys of one layer, together
    d_shared: int = 0  # hidden units of a shared expert; 0: d_expert
    shared_gate: bool = False  # a row of d_model weights that gates the shared experts
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
        biases = vector((self.heads + 2 * self.kv_heads) * self.d_head * self.query_biases)
        attention = queries * 2 + keys * 2 + biases + vector(self.query_gains)
        expert = feed_forward(d, self.d_expert, self.gated_experts)
        shared = feed_forward(d, self.d_shared or self.d_expert, self.gated_experts) * self.shared
        shared += matrix(d, int(self.shared_gate))
        sublayers = (self.attentions + layers) * (2 if self.output_norms else 1)
        return {
            "embedding": lookup(self.vocab, d),
            "attention": attention * self.attentions,
            "feed-forward": feed_forward(d, self.d_ff, self.gated) * (layers - self.moe_layers),
            "experts": choose(self.k, self.experts, expert) * self.moe_layers,
            "shared experts": shared * self.moe_layers,
            "router": matrix(d, self.experts) * self.moe_layers,
            "norms": vector(d) * (sublayers + stacks if self.norms else 0),
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
