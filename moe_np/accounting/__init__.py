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

from moe_np.accounting.architectures import (
    LstmMoe,
    Part,
    Transformer,
    choose,
    feed_forward,
    lookup,
    matrix,
    vector,
)
from moe_np.accounting.counting import ADAM, BYTES, Counts, count, table
from moe_np.accounting.published import MODELS

__all__ = [
    "ADAM",
    "BYTES",
    "MODELS",
    "Counts",
    "LstmMoe",
    "Part",
    "Transformer",
    "choose",
    "count",
    "feed_forward",
    "lookup",
    "matrix",
    "table",
    "vector",
]
