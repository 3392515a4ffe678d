"""A text that a model continues: the same as step by step, with the experts of every token."""

import json

import numpy as np
import pytest

from moe_np.data.text import tokenisers
from moe_np.language import continuation
from moe_np.language.model_files import Model
from moe_np.models import decoder, encoder_decoder, lstm_moe, translation

BYTES = tokenisers.train("bytes", "", 256)
DECODER = decoder.Config(256, 8, 2, 2, 1, 4, experts=4, hidden=8, context=40)
LSTM = lstm_moe.Config(vocabulary=256, d_model=8, experts=4, expert_hidden=8, options={"k": 2})


def model_of(module, config):
    params = module.init(np.random.default_rng(3), config)
    params["embed"]["w"] *= 3  # so that the logits differ
    return Model(module, config, params)


MODELS = {"decoder": model_of(decoder, DECODER), "lstm_moe": model_of(lstm_moe, LSTM)}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]


def pieces(model, prompt="In pr", **options):
    options = {"tokens": 7, "rng": np.random.default_rng(0), **options}
    return list(continuation.continue_text(model, BYTES, prompt, **options))


def test_the_prompt_comes_first_and_the_text_is_whole(model):
    found = pieces(model)
    assert "".join(piece.text for piece in found).startswith("In pr")
    assert [piece.probability for piece in found[:5]] == [1.0] * 5
    assert all(0 < piece.probability <= 1 for piece in found[5:])


def test_the_most_probable_continuation_is_that_of_whole_passes(model):
    text = "".join(piece.text for piece in pieces(model, temperature=0, tokens=5, rng=None))
    ids = BYTES.encode("In pr")
    for _ in range(5):
        logits, _ = model.module.forward(model.params, ids[None], model.config)
        ids = np.append(ids, logits[0, -1].argmax())
    assert text == BYTES.decode(ids)


def test_the_experts_are_those_of_the_whole_pass(model):
    found = [piece for piece in pieces(model, temperature=0, tokens=5, rng=None) if piece.text]
    ids = BYTES.encode("".join(piece.text for piece in found))
    if len(ids) != len(found):
        pytest.skip("a byte that is no character")
    _, cache = model.module.forward(model.params, ids[None], model.config)
    if model.module is decoder:
        routings = tuple(block.mixture.routing for block in cache.blocks)
    else:
        routings = (cache.mixture.mixture.routing,)
    assert [piece.experts for piece in found] == continuation.experts_of(routings, len(ids))
    assert {len(row) for piece in found for row in piece.experts} == {2}


def test_the_same_seed_draws_the_same_text(model):
    assert pieces(model) == pieces(model)
    assert pieces(model) != pieces(model, rng=np.random.default_rng(1))


def test_a_token_that_ends_the_text_is_the_last(model):
    first = next(p for p in pieces(model, temperature=0, rng=None)[5:])
    ids = BYTES.encode(first.text)
    if len(ids) != 1:
        pytest.skip("a byte that is no character")
    stop = continuation.Ends(None, (int(ids[0]),))
    found = pieces(model, temperature=0, rng=None, ends=stop)
    assert "".join(piece.text for piece in found) == "In pr" + first.text


def test_the_token_of_the_beginning_stands_there_once(model):
    """Whoever calls adds it, once: the tokeniser never does."""
    first = continuation.Ends(65, ())
    found = pieces(model, ends=first, tokens=0)
    assert "".join(piece.text for piece in found) == "AIn pr"


def test_experts_are_listed_by_falling_weight_and_dense_layers_are_left_out():
    model = model_of(decoder, DECODER._replace(layers=3, dense_layers=(1,), context=20))
    ids = BYTES.encode("abcd")
    _, cache = decoder.forward(model.params, ids[None], model.config)
    routings = tuple(block.mixture.routing for block in cache.blocks)
    found = continuation.experts_of(routings, 4)
    assert [len(experts) for experts in found] == [2, 2, 2, 2]
    firsts = [routing.probs.argmax(axis=1) for routing in (routings[0], routings[2])]
    assert [[row[0] for row in experts] for experts in found] == np.transpose(firsts).tolist()


def test_what_a_hugging_face_folder_says_of_the_ends(tmp_path):
    assert continuation.ends(tmp_path) == continuation.NO_ENDS
    (tmp_path / "config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}))
    assert continuation.ends(tmp_path) == continuation.Ends(None, (2,))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 3]}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True}))
    assert continuation.ends(tmp_path) == continuation.Ends(1, (2, 3))
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json: wanted JSON"):
        continuation.ends(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": ""}, "prompt: wanted some text to continue, got none"),
        ({"rng": None}, "rng: wanted a numpy.random.Generator"),
        ({"temperature": -1}, "temperature: wanted"),
        ({"top_k": 0}, "top_k: wanted"),
        ({"top_p": 1.5}, "top_p: wanted"),
        ({"tokens": -1}, "tokens: wanted"),
    ],
)
def test_bad_input_is_refused_at_once(model, options, message):
    options = {"tokens": 3, "rng": np.random.default_rng(0), **options}
    prompt = options.pop("prompt", "In pr")
    with pytest.raises(ValueError, match=message):
        continuation.continue_text(model, BYTES, prompt, **options)


def test_more_than_the_context_is_refused_at_once():
    with pytest.raises(ValueError, match="tokens: wanted at most the 35 that the context leaves"):
        continuation.continue_text(
            MODELS["decoder"], BYTES, "In pr", tokens=36, rng=np.random.default_rng(0)
        )


def test_a_tokeniser_of_another_model_is_refused():
    small = model_of(decoder, DECODER._replace(vocabulary=100))
    with pytest.raises(ValueError, match="tokeniser: wanted at most the 100 tokens"):
        continuation.continue_text(small, BYTES, "a", rng=np.random.default_rng(0))


def test_an_encoder_decoder_writes_what_follows_the_prompt():
    config = encoder_decoder.Config(256, 8, 2, 2, 2, 4, experts=4, hidden=8, context=20)
    model = model_of(encoder_decoder, config)
    found = pieces(model, temperature=0, rng=None, tokens=3)
    assert "".join(piece.text for piece in found[:5]) == "In pr"
    assert {len(piece.experts) for piece in found} == {1}  # one sparse layer in each stack
    ids = BYTES.encode("In pr")[None]
    inputs = np.array([[config.start]])
    for _ in range(3):
        logits, _ = encoder_decoder.forward(model.params, ids, inputs, config)
        inputs = np.append(inputs, [[logits[0, -1].argmax()]], axis=1)
    text = "".join(piece.text for piece in found[5:])
    assert text == BYTES.decode(inputs[0, 1:])


def test_a_model_that_continues_no_text_is_refused():
    other = MODELS["decoder"]._replace(module=translation)
    with pytest.raises(ValueError, match="wanted a model that continues a text, got translation"):
        continuation.continue_text(other, BYTES, "a", rng=np.random.default_rng(0))


@pytest.mark.parametrize("token", [2.5, "x", [1, "x"], -1])
def test_a_token_of_the_end_that_is_no_number_is_refused(tmp_path, token):
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": token}))
    with pytest.raises(ValueError, match="eos_token_id: wanted a whole number"):
        continuation.ends(tmp_path)
