"""`moe-np adapt`: what it prints, writes and refuses."""

import json

import numpy as np
import pytest

from moe_np.adapt import model_folder
from moe_np.cli import main
from tests.support.adapted_folders import CHANGES, CONFIG, TEXT, folder_of


@pytest.fixture
def place(tmp_path):
    folder_of(tmp_path / "dense", CONFIG._replace(experts=1))
    folder_of(tmp_path / "sparse")
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path


def adapt(place, what, source, out, *arguments, text=True):
    command = ["adapt", what, str(place / source), "--out", str(place / out), *arguments]
    return main([*command, *(["--text", str(place / "text.txt")] if text else [])])


SETTINGS = [f for name, value in CHANGES.items() for f in ("--set", f"{name}={value}")]


def test_upcycle(place, capsys):
    assert adapt(place, "upcycle", "dense", "new", "--experts", "4", text=False) == 0
    printed = capsys.readouterr().out
    assert "4 experts, k = 2, model_type mixtral" in printed
    assert float(printed.rsplit(": ", 1)[1]) < 1e-4
    arguments = ["--experts", "4", "--switch", "--redrawn", "0.5", "--layers", "1"]
    assert adapt(place, "upcycle", "dense", "switch", *arguments, text=False) == 0
    assert "do not add up to 1" in capsys.readouterr().out
    config = model_folder.load(place / "switch").config
    assert config.router == "switch" and list(config.dense_layers) == [0]


def last_change(capsys):
    """What the last command printed of the change of the logits, and all of it."""
    printed = capsys.readouterr().out
    return float(printed.split("random tokens: ")[1].split()[0]), printed


def test_add_and_open(place, capsys):
    assert adapt(place, "add", "sparse", "closed", "--experts", "2", text=False) == 0
    change, printed = last_change(capsys)
    assert change < 1e-5 and "6 experts, k = 2" in printed and "gates are closed" in printed
    closed = model_folder.load(place / "closed")
    assert (closed.config.experts, closed.config.router) == (6, "biased_top_k")
    assert adapt(place, "open", "closed", "opened", text=False) == 0
    change, printed = last_change(capsys)
    assert change > 1e-5 and "model_type mixtral" in printed and "opened 4 gates" in printed
    assert model_folder.load(place / "opened").config.router == "top_k"
    arguments = ["--experts", "2", "--open", "0"]
    assert adapt(place, "add", "sparse", "at_once", *arguments, text=False) == 0
    assert last_change(capsys)[0] == change, "the same seed draws the same experts"
    assert adapt(place, "add", "sparse", "copy", "--source", "3", text=False) == 0
    experts = model_folder.load(place / "copy").params["layers"][0]["experts"]
    assert np.array_equal(experts["w1"][4], experts["w1"][3])


def test_an_open_gate_may_have_a_bias(place, capsys):
    assert adapt(place, "add", "sparse", "new", "--open", "-2.5", text=False) == 0
    router = model_folder.load(place / "new").params["layers"][0]["router"]
    assert router["bias"].tolist() == [0, 0, 0, 0, -2.5]
    assert "closed" not in capsys.readouterr().out


def test_split(place, capsys):
    assert adapt(place, "split", "sparse", "fine", "--parts", "4", text=False) == 0
    change, printed = last_change(capsys)
    assert change < 1e-5 and "16 experts, k = 8, model_type mixtral" in printed
    config = model_folder.load(place / "fine").config
    assert (config.experts, config.hidden) == (16, CONFIG.hidden // 4)


@pytest.mark.seconds
def test_what_was_added_can_be_trained(place, capsys):
    assert adapt(place, "add", "sparse", "new", "--open", "0", text=False) == 0
    before = model_folder.load(place / "new").params["layers"][0]
    train = ["--train", "experts", "router", "--steps", "2", "--checkpoint-every", "2", *SETTINGS]
    assert adapt(place, "finetune", "new", "tuned", *train) == 0
    after = model_folder.load(place / "tuned" / "best")
    assert after.config.experts == 5 and "held-out loss" in capsys.readouterr().out
    layer = after.params["layers"][0]
    assert not np.array_equal(layer["router"]["w"][:, -1], before["router"]["w"][:, -1])
    assert np.array_equal(layer["norm2"]["g"], before["norm2"]["g"])


@pytest.mark.parametrize("by", ["use", "loss", "random"])
def test_prune(place, capsys, by):
    assert adapt(place, "prune", "sparse", "new", "--keep", "3", "--by", by) == 0
    printed = capsys.readouterr().out
    assert "3 experts, k = 2, model_type mixtral" in printed
    assert "layer 1: kept experts" in printed and "nats per token" in printed
    assert model_folder.load(place / "new").config.experts == 3


def test_merge(place, capsys):
    assert adapt(place, "merge", "sparse", "new", "--keep", "2", "--unaligned") == 0
    assert model_folder.load(place / "new").config.experts == 2
    assert adapt(place, "merge", "sparse", "one", "--keep", "1", "--tokens", "200") == 0
    assert "wrote" in capsys.readouterr().out
    assert model_folder.load(place / "one").config.experts == 1


@pytest.mark.seconds
def test_distil_and_finetune(place, capsys):
    steps = ["--steps", "3", "--checkpoint-every", "2", *SETTINGS]
    assert adapt(place, "distil", "sparse", "small", "--student", "merged", *steps) == 0
    printed = capsys.readouterr()
    assert "held-out loss" in printed.out and "3/3" in printed.err
    assert (place / "small" / "curves.png").exists()
    train = ["--train", "norms", "attention", "--patience", "5", "--mask", "0.1"]
    assert adapt(place, "finetune", "small", "tuned", *train, *steps) == 0
    assert (place / "tuned" / "best" / "model.safetensors").exists()
    stored = json.loads((place / "tuned" / "run.json").read_text())
    assert stored["groups"] == ["norms", "attention"]
    before = (place / "tuned" / "metrics.jsonl").read_text()
    capsys.readouterr()
    assert adapt(place, "finetune", "small", "tuned", *train, *steps) == 0
    assert (place / "tuned" / "metrics.jsonl").read_text() == before
    assert "held-out loss" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["prune", "sparse", "--keep", "1"], "keep: wanted from k = 2 to 4 experts"),
        (["prune", "sparse", "--keep", "0"], "keep: wanted from k = 2 to 4 experts"),
        (["prune", "dense", "--keep", "1"], "wanted a model with several experts"),
        (["add", "dense"], "wanted a model with several experts"),
        (["add", "sparse", "--experts", "0"], "experts: wanted a whole number of at least 1"),
        (
            ["add", "sparse", "--source", "4"],
            "source: wanted a whole number of at least 0 and at most 3, got 4",
        ),
        (["add", "sparse", "--open", "nan"], "bias: wanted"),
        (["open", "sparse"], "wanted a model with closed gates, got none"),
        (["split", "sparse", "--parts", "3"], "parts: wanted a divisor of the 8 hidden units"),
        (["split", "sparse", "--parts", "1"], "parts: wanted a whole number of at least 2, got 1"),
        (["merge", "sparse", "--keep", "5"], "keep: wanted from k = 2 to 4 experts"),
        (["prune", "none", "--keep", "2"], "wanted a folder with a model"),
        (["distil", "dense"], "wanted a model with several experts"),
        (["finetune", "dense", "--train", "experts"], "wanted a group that this model has"),
        (["finetune", "sparse", "--examples", "0"], "got an empty set"),
        (["finetune", "sparse", "--set", "hidden=3"], "--set: wanted one of dropout"),
    ],
)
def test_bad_input_is_one_line(place, capsys, command, message):
    what, source, *arguments = command
    text = what not in ("add", "open", "split")
    assert adapt(place, what, source, "out", *arguments, text=text) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1
