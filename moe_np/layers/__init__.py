"""Layers: the sparse mixture-of-experts layer and what belongs to it.

sparse_layer      dispatch, experts, combine: the same for every router
few_tokens        the same for few tokens, without a backward pass: generation
experts           linear, feed-forward (ReLU, GELU), SwiGLU and cubic experts
shared_experts    the routing of experts that every token passes
nested            a mixture as the expert of a mixture
soft_moe          slots that are averages of tokens, instead of routing
balance           load-balancing losses (auxiliary losses)
embedding         a row of a matrix per token number
norms             RMSNorm, also with the residual before it, and layer normalisation
rotary            rotary position embedding
position_bias     the relative position bias of T5
attention         multi-head attention: causal, windows, cross, grouped queries
projections       queries, keys and values by head, for attention
attention_step    attention of one position in generation
key_values        keys and values of earlier positions, for generation
products          of many rows with a matrix, divided among the threads
lstm              long short-term memory, with a projection
attentive_lstm    an LSTM layer that attends to another sequence
dropout           random units are 0 in training
cross_entropy     the loss of a softmax: ignored targets, label smoothing, soft targets
diagnostics       how the experts are used
"""
