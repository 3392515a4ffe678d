"""Transformers' Mixtral in the bench of whole models, with our parameters in it.

A variant is one of its implementations of the experts; attention is its fused one. The parameters
go through a folder that `moe_np.models.checkpoints` writes. Training has no load-balancing loss
here: that of Transformers joins the layers, and would only take more time.
"""

import functools
import tempfile

import numpy as np

from moe_np.base.machine import cores
from moe_np.experiments.model_speed.decoder_contestants import Prepared
from moe_np.experiments.model_speed.workload import (
    CLIP,
    UPDATE,
    Workload,
    config_of,
    params_of,
    text_of,
)
from moe_np.models import checkpoints


def _model(w, implementation):
    import torch
    from transformers import MixtralForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(cores())
    with tempfile.TemporaryDirectory() as folder:
        checkpoints.save(folder, config_of(w), params_of(w), family="mixtral")
        model = MixtralForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="sdpa",
            experts_implementation=implementation,
        )
        state = {name: p.clone() for name, p in model.state_dict().items()}
        model.load_state_dict(state, assign=True)  # the file may go
    return model.eval()


def prepare(w: Workload, implementation: str) -> Prepared:
    """The contestant with one implementation of the experts."""
    import torch

    model = _model(w, implementation)
    ids, targets = (torch.tensor(a) for a in text_of(w))
    if w.what == "train":
        step = _training(model, ids, targets.flatten())
        return step, np.array(step())
    call = _prefill(model, ids) if w.what == "prefill" else _generate(model, ids, w.length)
    result = call()
    return call, result[0, -1] if w.what == "prefill" else result[:, 0]


def _training(model, ids, targets):
    import torch

    leaves = [p.requires_grad_() for p in model.parameters()]
    optimiser = torch.optim.AdamW(leaves, fused=True, **UPDATE)

    def step():
        optimiser.zero_grad(set_to_none=True)
        logits = model(ids, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(leaves, CLIP)
        optimiser.step()
        return float(loss.detach())

    return step


def _prefill(model, ids):
    import torch

    def prefill():
        with torch.inference_mode():
            return model(ids, use_cache=False).logits.numpy()

    return prefill


def _generate(model, ids, length):
    import torch

    numbers = {"max_new_tokens": length, "min_new_tokens": length}
    options = {**numbers, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    mask = torch.ones_like(ids)

    def generate():
        with torch.inference_mode():
            out = model.generate(ids, attention_mask=mask, **options)
        return out[:, ids.shape[1] :].numpy()

    return generate


eager = functools.partial(prepare, implementation="eager")
grouped = functools.partial(prepare, implementation="grouped_mm")
batched = functools.partial(prepare, implementation="batched_mm")
