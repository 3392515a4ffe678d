"""The names of the arrays of published checkpoints, as tables, and what a leaf of the parameters is
made of. `moe_np.models.checkpoints` reads and writes with them.

Matrices in files are (out, in), here (in, out). A table has a row per leaf; those of a layer lie
behind "model.layers.i." in a file and behind "layers.i." here. Files that Transformers 5 writes
with `save_original_format=False` have the experts of a layer in two arrays, whatever the family:
`gate_up_proj` (E, 2H, D), w1 above w3, and `down_proj` (E, D, H).
"""

from collections.abc import Mapping
from typing import NamedTuple

from moe_np.base.types import Array
from moe_np.models.decoder_config import Config, is_dense


class Row(NamedTuple):
    """Where a leaf of the parameters is in a file.

    kind   "whole"  the array of this name, transposed if it is a matrix
           "rows"   the same without transposing
           "stack"  one array per expert; {} in the name is its number
           "first", "second"  the upper or lower half of the rows of one array of all experts
           "cut"    the experts side by side in one matrix, along the axis of H
    """

    leaf: str
    name: str
    shape: str  # in the file, by letters: "H D"
    kind: str = "whole"


MODEL = (
    Row("embed.w", "model.embed_tokens.weight", "V D", "rows"),
    Row("norm.g", "model.norm.weight", "D"),
)
HEAD = (Row("head.w", "lm_head.weight", "V D"),)
LAYER = (  # behind "layers.i." and "model.layers.i."
    Row("norm1.g", "input_layernorm.weight", "D"),
    Row("norm2.g", "post_attention_layernorm.weight", "D"),
    Row("attention.wq", "self_attn.q_proj.weight", "Q D"),
    Row("attention.wk", "self_attn.k_proj.weight", "K D"),
    Row("attention.wv", "self_attn.v_proj.weight", "K D"),
    Row("attention.wo", "self_attn.o_proj.weight", "D Q"),
)
BIASES = (
    Row("attention.bq", "self_attn.q_proj.bias", "Q"),
    Row("attention.bk", "self_attn.k_proj.bias", "K"),
    Row("attention.bv", "self_attn.v_proj.bias", "K"),
)
NORMS = {
    "none": (),
    "whole": (
        Row("attention.q_norm.g", "self_attn.q_norm.weight", "Q"),
        Row("attention.k_norm.g", "self_attn.k_norm.weight", "K"),
    ),
    "head": (
        Row("attention.q_norm.g", "self_attn.q_norm.weight", "d"),
        Row("attention.k_norm.g", "self_attn.k_norm.weight", "d"),
    ),
}
DENSE = (
    Row("experts.w1", "mlp.gate_proj.weight", "F D", "cut"),
    Row("experts.w3", "mlp.up_proj.weight", "F D", "cut"),
    Row("experts.w2", "mlp.down_proj.weight", "D F", "cut"),
)
MIXTRAL_EXPERTS = (
    Row("router.w", "block_sparse_moe.gate.weight", "E D"),
    Row("experts.w1", "block_sparse_moe.experts.{}.w1.weight", "H D", "stack"),
    Row("experts.w3", "block_sparse_moe.experts.{}.w3.weight", "H D", "stack"),
    Row("experts.w2", "block_sparse_moe.experts.{}.w2.weight", "D H", "stack"),
)
MLP_EXPERTS = (
    Row("router.w", "mlp.gate.weight", "E D"),
    Row("experts.w1", "mlp.experts.{}.gate_proj.weight", "H D", "stack"),
    Row("experts.w3", "mlp.experts.{}.up_proj.weight", "H D", "stack"),
    Row("experts.w2", "mlp.experts.{}.down_proj.weight", "D H", "stack"),
)
FUSED_EXPERTS = (
    Row("router.w", "mlp.gate.weight", "E D"),
    Row("experts.w1", "mlp.experts.gate_up_proj", "E 2H D", "first"),
    Row("experts.w3", "mlp.experts.gate_up_proj", "E 2H D", "second"),
    Row("experts.w2", "mlp.experts.down_proj", "E D H"),
)
QWEN_SHARED = (
    Row("shared.w1", "mlp.shared_expert.gate_proj.weight", "nS D", "cut"),
    Row("shared.w3", "mlp.shared_expert.up_proj.weight", "nS D", "cut"),
    Row("shared.w2", "mlp.shared_expert.down_proj.weight", "D nS", "cut"),
    Row("shared_gate.w", "mlp.shared_expert_gate.weight", "1 D"),
)
DEEPSEEK_SHARED = (
    Row("shared.w1", "mlp.shared_experts.gate_proj.weight", "nS D", "cut"),
    Row("shared.w3", "mlp.shared_experts.up_proj.weight", "nS D", "cut"),
    Row("shared.w2", "mlp.shared_experts.down_proj.weight", "D nS", "cut"),
)


def rows(config: Config, experts: tuple[Row, ...], shared: tuple[Row, ...] = ()) -> list[Row]:
    """All rows of a model, with the numbers of the layers, from those of a layer's experts."""
    every = [*MODEL, *(() if config.tied else HEAD)]
    for i in range(config.layers):
        layer = [*LAYER, *(BIASES if config.biases else ()), *NORMS[config.qk_norm]]
        if is_dense(config, i):
            layer += DENSE
        else:
            layer += [*experts, *(shared if config.shared else ())]
        every += [
            row._replace(leaf=f"layers.{i}.{row.leaf}", name=f"model.layers.{i}.{row.name}")
            for row in layer
        ]
    return every


def sizes(config: Config) -> dict[str, int]:
    """The lengths of the axes by the letters of the tables."""
    shared = config.shared_hidden or config.hidden
    letters = {"V": config.vocabulary, "D": config.d_model, "E": config.experts, "1": 1}
    letters |= {"Q": config.heads * config.d_head, "K": config.kv_heads * config.d_head}
    letters |= {"d": config.d_head, "H": config.hidden, "2H": 2 * config.hidden}
    letters |= {"n": config.shared}
    return letters | {"F": config.dense_hidden or config.hidden, "nS": config.shared * shared}


class Piece(NamedTuple):
    """A part of one array in a file, and the place in a leaf to which it goes."""

    name: str
    shape: tuple[int, ...]  # of the whole array in the file
    expert: int | None  # the place along axis 0 of the leaf; None: all of it
    rows: slice
    columns: slice
    is_matrix: bool  # whether the leaf has it transposed

    def of(self, array: Array) -> Array:
        """The part of the file's array, as the leaf has it."""
        if array.ndim == 1:
            return array
        part = array[..., self.rows, self.columns]
        return part.swapaxes(-1, -2) if self.is_matrix else part


def pieces(row: Row, letters: Mapping[str, int]) -> list[Piece]:
    """What a leaf is made of; `letters` are the lengths of the axes (`sizes`)."""
    axes = row.shape.split()
    shape = tuple(letters[axis] for axis in axes)
    everything = slice(None)
    whole = Piece(row.name, shape, None, everything, everything, row.kind != "rows")
    if row.kind == "stack":
        return [whole._replace(name=row.name.format(e), expert=e) for e in range(letters["E"])]
    if row.kind in ("first", "second"):
        start = 0 if row.kind == "first" else letters["H"]
        return [whole._replace(rows=slice(start, start + letters["H"]))]
    if row.kind != "cut":
        return [whole]
    n = letters["n"] if "nS" in axes else 1
    axis = "rows" if axes[0] in ("nS", "F") else "columns"
    size = shape[0 if axis == "rows" else 1] // n
    cuts = [slice(j * size, (j + 1) * size) for j in range(n)]
    return [whole._replace(expert=j, **{axis: cut}) for j, cut in enumerate(cuts)]


def parts(
    config: Config, experts: tuple[Row, ...], shared: tuple[Row, ...]
) -> dict[str, list[Piece]]:
    """{leaf: what it is made of}, from the rows of a layer's experts."""
    letters = sizes(config)
    return {row.leaf: pieces(row, letters) for row in rows(config, experts, shared)}
