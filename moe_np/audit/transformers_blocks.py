"""The mixture-of-experts blocks and balance losses of Transformers, made small, for the audit.

    moe-np audit moe_np.audit.transformers_blocks:mixtral

Blocks are made from configurations, with random weights; nothing is downloaded. Each function takes
sizes and gives a module of PyTorch. The losses are functions of the logits of the layers. Wanted is
Transformers 5 or later, in which the experts of a block are stacked.
"""

import importlib
from typing import Any

import numpy as np

from moe_np.base.checks import InputError

HIDDEN = 12  # width of the experts


def _block(model: str, block: str, config: str, **sizes: Any) -> Any:
    """A block of a model file, with normal weights of deviation 1/√fan_in."""
    try:
        torch = importlib.import_module("torch")
        transformers = importlib.import_module("transformers")
        modeling = importlib.import_module(f"transformers.models.{model}.modeling_{model}")
    except ImportError as error:
        raise InputError(f"{error.name}: wanted Transformers 5 or later with PyTorch") from error
    module = getattr(modeling, block)(getattr(transformers, config)(**sizes))
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.tensor(rng.normal(size=tuple(p.shape)) / np.sqrt(p.shape[-1])))
    return module


def mixtral(d_model: int, n_experts: int, k: int = 2, jitter: float = 0.1) -> Any:
    """Mixtral's block, with its jitter."""
    return _block(
        *("mixtral", "MixtralSparseMoeBlock", "MixtralConfig"),
        hidden_size=d_model,
        intermediate_size=HIDDEN,
        num_local_experts=n_experts,
        num_experts_per_tok=k,
        router_jitter_noise=jitter,
    )


def mixtral_without_jitter(d_model: int, n_experts: int, k: int = 2) -> Any:
    """Mixtral's block as the published model has it."""
    return mixtral(d_model, n_experts, k, jitter=0.0)


def olmoe(d_model: int, n_experts: int, k: int = 2) -> Any:
    """OLMoE's block."""
    return _block(
        *("olmoe", "OlmoeSparseMoeBlock", "OlmoeConfig"),
        hidden_size=d_model,
        intermediate_size=HIDDEN,
        num_experts=n_experts,
        num_experts_per_tok=k,
    )


def qwen2_moe(d_model: int, n_experts: int, k: int = 2) -> Any:
    """Qwen2-MoE's block, with its shared expert."""
    return _block(
        *("qwen2_moe", "Qwen2MoeSparseMoeBlock", "Qwen2MoeConfig"),
        hidden_size=d_model,
        moe_intermediate_size=HIDDEN,
        shared_expert_intermediate_size=HIDDEN,
        num_experts=n_experts,
        num_experts_per_tok=k,
    )


def qwen3_moe(d_model: int, n_experts: int, k: int = 2) -> Any:
    """Qwen3-MoE's block, renormalised as in the published models."""
    return _block(
        *("qwen3_moe", "Qwen3MoeSparseMoeBlock", "Qwen3MoeConfig"),
        hidden_size=d_model,
        moe_intermediate_size=HIDDEN,
        num_experts=n_experts,
        num_experts_per_tok=k,
        norm_topk_prob=True,
    )


def deepseek_v2(d_model: int, n_experts: int, k: int = 2) -> Any:
    """DeepSeek-V2's block, greedy, with shared experts."""
    return _block(
        *("deepseek_v2", "DeepseekV2Moe", "DeepseekV2Config"),
        hidden_size=d_model,
        moe_intermediate_size=HIDDEN,
        n_routed_experts=n_experts,
        n_shared_experts=1,
        num_experts_per_tok=k,
        routed_scaling_factor=1.0,
        num_attention_heads=1,
    )


def deepseek_v3(d_model: int, n_experts: int, k: int = 2) -> Any:
    """DeepSeek-V3's block: sigmoid scores, a bias in the selection, shared experts."""
    return _block(
        *("deepseek_v3", "DeepseekV3MoE", "DeepseekV3Config"),
        hidden_size=d_model,
        moe_intermediate_size=HIDDEN,
        n_routed_experts=n_experts,
        n_shared_experts=1,
        num_experts_per_tok=k,
        n_group=1,
        topk_group=1,
        routed_scaling_factor=1.0,
    )


def switch(d_model: int, n_experts: int, jitter: float = 0.1, capacity: int = 5) -> Any:
    """Switch's block, with jitter; the capacity is a number of tokens per sequence."""
    block = _block(
        *("switch_transformers", "SwitchTransformersSparseMLP", "SwitchTransformersConfig"),
        d_model=d_model,
        d_ff=HIDDEN,
        num_experts=n_experts,
        expert_capacity=capacity,
        router_jitter_noise=jitter,
        dropout_rate=0.0,
    )
    # the block casts its own parameters to this type, and gradients would end there
    block.router.dtype = block.router.classifier.weight.double().dtype
    return block


def switch_without_jitter(d_model: int, n_experts: int, capacity: int = 5) -> Any:
    """Switch's block without jitter."""
    return switch(d_model, n_experts, jitter=0.0, capacity=capacity)


# --- losses ---------------------------------------------------------------------------------------


def mixtral_loss(layers: list[Any], k: int = 2) -> Any:
    """The balance loss of Mixtral, OLMoE and Qwen-MoE, of all layers of a model."""
    modeling = importlib.import_module("transformers.models.mixtral.modeling_mixtral")
    return modeling.load_balancing_loss_func(tuple(layers), layers[0].shape[-1], k)


def switch_loss(logits: Any, k: int = 1) -> Any:
    """The balance loss of Switch, of one sequence."""
    modeling = importlib.import_module(
        "transformers.models.switch_transformers.modeling_switch_transformers"
    )
    probs = logits.softmax(dim=-1)[None]
    return modeling.load_balancing_loss_func(probs, probs.argmax(dim=-1))


def switch_z_loss(logits: Any) -> Any:
    """The router z-loss of Switch, of one sequence."""
    modeling = importlib.import_module(
        "transformers.models.switch_transformers.modeling_switch_transformers"
    )
    return modeling.router_z_loss_func(logits[None])
