"""The encoder-decoder and its checkpoints against Transformers, and against a second statement in
PyTorch.

Transformers, float32    random small Switch Transformers: it writes a folder, which is loaded here;
                         logits, balance loss, z-loss and the gradient of every parameter are equal
                         to 1e-4 of the largest entry. What is saved here it loads
PyTorch, float64         tests/support/torch_encoder_decoder.py: to 1e-9

Without padding in the balance loss, and with a capacity that drops nothing: Transformers routes
padding, and counts a capacity per sequence.
"""

import numpy as np
import pytest

from moe_np.base import params as nested
from moe_np.layers import balance
from moe_np.models import checkpoint_switch, checkpoints, encoder_decoder
from tests.support.encoder_decoders import SMALL, pairs, params

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", "5.24")
from tests.support import torch_encoder_decoder  # noqa: E402

pytestmark = pytest.mark.parity

SIZES = {
    "vocab_size": 37,
    "d_model": 24,
    "d_kv": 5,
    "d_ff": 11,
    "num_layers": 4,
    "num_sparse_encoder_layers": 2,
    "num_decoder_layers": 2,
    "num_sparse_decoder_layers": 1,
    "num_heads": 4,
    "num_experts": 5,
    "expert_capacity": 64,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 9,
    "decoder_start_token_id": 3,
}
CASES = {
    "every other layer, tied": {},
    "every layer, untied": {
        "tie_word_embeddings": False,
        "num_layers": 2,
        "num_sparse_encoder_layers": 2,
        "num_sparse_decoder_layers": 2,
    },
    "gelu, other buckets and epsilon": {
        "dense_act_fn": "gelu",
        "relative_attention_num_buckets": 16,
        "relative_attention_max_distance": 12,
        "layer_norm_epsilon": 1e-3,
        "router_jitter_noise": 0.0,
    },
}
every_case = pytest.mark.parametrize("name", CASES)
padded = pytest.mark.parametrize("is_padded", [False, True], ids=["whole", "padded"])


def model_of(name, seed=0):
    """A model of Transformers with random parameters, none of them at its initial value."""
    config = transformers.SwitchTransformersConfig(
        **{**SIZES, **CASES[name]}, attn_implementation="eager"
    )
    torch.manual_seed(seed)
    model = transformers.SwitchTransformersForConditionalGeneration(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.3 if parameter.ndim == 1 else 1.2 / parameter.shape[-1] ** 0.5
            center = 1.0 if parameter.ndim == 1 else 0.0
            parameter.copy_(center + scale * torch.randn_like(parameter))
        for side in (model.encoder, model.decoder):  # here there is one embedding
            side.embed_tokens.weight.copy_(model.shared.weight)
    return model


def largest_error(result, expected):
    return np.abs(result - expected).max() / np.abs(expected).max()


def far_from_ties(p, source, inputs, config, **options):
    """Whether the two largest probabilities of every token lie apart."""
    _, cache = encoder_decoder.forward(p, source, inputs, config, **options)
    gaps = [1.0]
    for block in (*cache.encoder.blocks, *cache.decoder.blocks):
        routing = block.mixture.mixture.routing
        if routing.logits is not None:
            falling = -np.sort(-routing.probs, axis=1)
            gaps.append((falling[:, 0] - falling[:, 1]).min())
    return min(gaps) > 1e-4


def without_ties(p, config, is_padded, S=12, T=9):
    valid = np.arange(S) < np.array([[S], [S - 4], [S - 1]]) if is_padded else None
    for seed in range(30):
        source, targets = pairs(config, B=3, S=S, T=T, seed=seed)
        inputs = encoder_decoder.shift_right(targets, config.start)
        if far_from_ties(p, source, inputs, config, source_valid=valid):
            return source, targets, inputs, valid
    raise AssertionError("every input is near a tie")


def save_as(model, folder, **options):
    model.save_pretrained(folder, **options)
    return folder


def of_transformers(model, source, inputs, valid, **options):
    mask = None if valid is None else torch.tensor(valid).long()
    ids = {"input_ids": torch.tensor(source), "decoder_input_ids": torch.tensor(inputs)}
    return model(**ids, attention_mask=mask, **options)


def task_of(logits, targets):
    flat = torch.tensor(np.where(targets < 0, -100, targets)).ravel()
    return torch.nn.functional.cross_entropy(logits.reshape(len(flat), -1), flat)


def compare(grads, expected, tolerance):
    assert set(grads) == set(expected) and len(grads) > 30
    for path, g in expected.items():
        assert np.abs(g).max() > 0, path
        assert largest_error(grads[path], g) < tolerance, path


@pytest.mark.usefixtures("backend")
@padded
@every_case
def test_logits_and_gradients_are_those_of_transformers(name, is_padded, tmp_path):
    model = model_of(name)
    folder = save_as(model, tmp_path / "model", max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1, "several shards"
    config, p = checkpoints.load(folder)
    assert isinstance(config, encoder_decoder.Config)
    source, targets, inputs, valid = without_ties(p, config, is_padded)
    expected = of_transformers(model, source, inputs, valid).logits
    logits, _ = encoder_decoder.forward(p, source, inputs, config, source_valid=valid)
    assert largest_error(logits, expected.detach().numpy()) < 1e-4

    quiet = config._replace(options={}, dropout=0.0, expert_dropout=0.0)
    options = {"losses": (), "source_valid": valid, "valid": np.ones(targets.shape, bool)}
    loss, grads = encoder_decoder.loss_and_grads(p, source, targets, quiet, **options)
    task = task_of(expected, targets)
    assert loss.task == pytest.approx(task.item(), rel=1e-5)
    task.backward()
    compare(nested.leaves(grads), gradients_of(model, tmp_path / "gradients"), 1e-4)


def gradients_of(model, folder):
    """Of a model of Transformers by the names used here: through the same files."""
    with torch.no_grad():
        parts = {name: torch.zeros_like(a) for name, a in model.named_parameters()}
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                parts[name] += parameter.grad
        # not tied, it has an embedding per stack: here both are one, with the sum of the gradients
        embeddings = [name for name in parts if name.endswith("embed_tokens.weight")]
        total = sum((parts[name] for name in embeddings), parts["shared.weight"])
        parts |= dict.fromkeys([*embeddings, "shared.weight"], total)
        for name, parameter in model.named_parameters():
            parameter.copy_(parts[name])
    return nested.leaves(checkpoints.load(save_as(model, folder))[1])


def test_teacher_forcing_is_that_of_transformers():
    model = model_of("every other layer, tied")
    _, targets = pairs(SMALL)
    labels = torch.tensor(np.where(targets < 0, -100, targets))
    expected = model.prepare_decoder_input_ids_from_labels(labels).numpy()
    inputs = encoder_decoder.shift_right(targets, 3)
    is_token = np.pad(targets[:, :-1] >= 0, ((0, 0), (1, 0)), constant_values=True)
    np.testing.assert_array_equal(inputs[is_token], expected[is_token])


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_losses_of_the_routers(side, tmp_path):
    """Transformers puts the layers of a stack behind each other along the tokens, and takes the
    mean over sequences; for one sequence and one layer with experts it is ours.
    """
    model = model_of("every other layer, tied")
    config, p = checkpoints.load(save_as(model, tmp_path))
    quiet = config._replace(options={}, dropout=0.0, expert_dropout=0.0)
    n = {"encoder": 4, "decoder": 2}[side]
    source, targets = pairs(config, B=1, S=12, T=9, seed=5)
    targets[targets < 0] = 4
    inputs = encoder_decoder.shift_right(targets, config.start)
    result = of_transformers(model, source, inputs, None, output_router_logits=True)
    losses = ((1.0, balance.switch), (1.0, balance.z_loss))
    loss, _ = encoder_decoder.loss_and_grads(p, source, targets, quiet, losses=losses)
    terms = loss.terms[:4] if side == "encoder" else loss.terms[4:]
    sparse = [term for term in terms if term["z_loss"]]
    assert len(terms) == n and len(sparse) == n // 2
    z = np.mean([term["z_loss"] for term in sparse])
    router_z = encoder_decoder_z(result, side)
    assert router_z == pytest.approx(z, rel=1e-5)
    if side == "decoder":  # one layer with experts
        probs = torch.softmax(result.decoder_router_logits[0], -1)
        chosen = probs.argmax(-1)
        module = transformers.models.switch_transformers.modeling_switch_transformers
        theirs = module.load_balancing_loss_func(probs, chosen).item()
        assert theirs == pytest.approx(sparse[0]["switch"], rel=1e-5)


def encoder_decoder_z(result, side):
    routers = getattr(result, f"{side}_router_logits")
    module = transformers.models.switch_transformers.modeling_switch_transformers
    return module.router_z_loss_func(torch.cat(routers, dim=1)).item()


@every_case
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_transformers_loads_what_is_saved(name, dtype, tmp_path):
    config, p = checkpoints.load(save_as(model_of(name), tmp_path / "a"))
    checkpoints.save(tmp_path / "b", config, p, dtype=dtype, shard_bytes=9000)
    read, stored = checkpoints.load(tmp_path / "b")
    assert read == config
    family = transformers.SwitchTransformersForConditionalGeneration
    options = {"dtype": torch.float32, "attn_implementation": "eager"}
    model, info = family.from_pretrained(tmp_path / "b", output_loading_info=True, **options)
    problems = {key: names for key, names in info.items() if names}
    assert not problems, problems
    source, _, inputs, _ = without_ties(stored, config, False)
    logits, _ = encoder_decoder.forward(stored, source, inputs, config)
    expected = of_transformers(model.eval(), source, inputs, None).logits.detach().numpy()
    assert largest_error(logits, expected) < 1e-4


@pytest.mark.parametrize("expert", ["relu", "gelu"])
def test_transformers_loads_a_dense_model(expert, tmp_path):
    config = SMALL._replace(experts=1, expert=expert, tied=expert == "relu")
    p = params(config, dtype=np.float32)
    checkpoints.save(tmp_path, config, p)
    family = transformers.SwitchTransformersForConditionalGeneration
    options = {"attn_implementation": "eager", "output_loading_info": True}
    model, info = family.from_pretrained(tmp_path, **options)
    assert not any(info.values()), info
    source, _, inputs, _ = without_ties(p, config, False)
    logits, _ = encoder_decoder.forward(p, source, inputs, config)
    expected = of_transformers(model.eval(), source, inputs, None).logits.detach().numpy()
    assert largest_error(logits, expected) < 1e-4


def test_the_number_of_parameters_is_that_of_transformers():
    config = transformers.SwitchTransformersConfig(
        num_sparse_encoder_layers=6, num_sparse_decoder_layers=6
    )
    with torch.device("meta"):
        model = transformers.SwitchTransformersForConditionalGeneration(config)
    settings = {**config.to_dict(), "decoder_start_token_id": 0}
    of_files = checkpoint_switch.parts(checkpoint_switch.config_of(settings))
    shapes = {piece.name: piece.shape for some in of_files.values() for piece in some}
    expected = {name: tuple(a.shape) for name, a in model.state_dict().items()}
    copies = checkpoint_switch.copies(checkpoint_switch.config_of(settings))
    assert shapes == {name: shape for name, shape in expected.items() if name not in copies}


# --- the second statement -------------------------------------------------------------------------

STATED = {
    "switch": SMALL,
    "untied, four layers": SMALL._replace(tied=False, encoder_layers=4, encoder_dense=(1,)),
    "dense, gelu": SMALL._replace(experts=1, expert="gelu", dense_hidden=9),
}


@pytest.mark.usefixtures("backend")
@padded
@pytest.mark.parametrize("layout", STATED)
def test_the_second_statement_to_nine_digits(layout, is_padded):
    config = STATED[layout]
    p = params(config, seed=4)
    source, targets, inputs, valid = without_ties(p, config, is_padded)
    tensors = {path: torch.tensor(a, requires_grad=True) for path, a in nested.leaves(p).items()}
    ids = (torch.tensor(source), torch.tensor(inputs))
    mask = None if valid is None else torch.tensor(valid)
    expected = torch_encoder_decoder.logits(tensors.__getitem__, *ids, config, mask)
    logits, _ = encoder_decoder.forward(p, source, inputs, config, source_valid=valid)
    assert largest_error(logits, expected.detach().numpy()) < 1e-9
    options = {"losses": (), "source_valid": valid, "valid": np.ones(targets.shape, bool)}
    loss, grads = encoder_decoder.loss_and_grads(p, source, targets, config, **options)
    task = task_of(expected, targets)
    task.backward()
    assert loss.task == pytest.approx(task.item(), rel=1e-12)
    compare(nested.leaves(grads), {path: t.grad.numpy() for path, t in tensors.items()}, 1e-9)
