"""The sparse layer as a Keras layer in TensorFlow: a loop over experts, `tf.GradientTape`."""

import os
from typing import Any

from moe_np.base.params import leaves
from moe_np.experiments.frameworks.layer_problem import OUT, Problem, Step


def layer(p: Problem) -> Any:
    """A `keras.layers.Layer` with the four weights, in the order of `params.leaves`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras
    import tensorflow as tf

    class SparseLayer(keras.layers.Layer):
        def __init__(self, arrays, k):
            super().__init__()
            self.k = k
            self.router, self.w1, self.w3, self.w2 = (
                self.add_weight(shape=array.shape, name=path.replace(".", "_"))
                for path, array in arrays.items()
            )
            self.set_weights(list(arrays.values()))

        def call(self, x):
            logits, chosen = tf.math.top_k(x @ self.router, self.k)
            weight = tf.nn.softmax(logits, axis=1)
            y = tf.zeros_like(x)
            for m in range(self.w1.shape[0]):
                place = tf.where(chosen == m)  # (rows, 2): token, and which of its choices
                rows = tf.gather(x, place[:, 0])
                hidden = tf.nn.silu(rows @ self.w1[m]) * (rows @ self.w3[m])
                out = tf.gather_nd(weight, place)[:, None] * (hidden @ self.w2[m])
                y = tf.tensor_scatter_nd_add(y, place[:, :1], out)
            return y

    return SparseLayer(leaves(p.params), p.k)


def step_of(p: Problem) -> Step:
    """The step in TensorFlow, as a compiled graph."""
    sparse_layer = layer(p)
    import tensorflow as tf

    x, dy = tf.constant(p.x), tf.constant(p.dy)

    @tf.function
    def compute(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = sparse_layer(x)
        variables = sparse_layer.trainable_variables
        dx, *grads = tape.gradient(y, [x, *variables], output_gradients=dy)
        return y, dx, [tf.convert_to_tensor(grad) for grad in grads]

    def step():
        y, dx, grads = compute(x)
        arrays = zip(leaves(p.params), (grad.numpy() for grad in grads), strict=True)
        return {OUT: y.numpy(), "x": dx.numpy(), **dict(arrays)}

    return step
