"""The model that comes with the package: its files, its loss, and a text that it continues."""

import numpy as np
import pytest

from moe_np.base.params import leaves
from moe_np.cli import main
from moe_np.data.text import bible
from moe_np.language import evaluation, model_files, objectives, shipped_model


def test_its_files_are_small_and_have_the_hash():
    sizes = [(shipped_model.FOLDER / name).stat().st_size for name in shipped_model.FILES]
    assert sum(sizes) < 2e6
    assert shipped_model.digest() == shipped_model.SHA256


def test_it_has_learnt_english_that_it_was_not_trained_on():
    """A uniform model has 10 bits per token, which is 3.6 per byte; one of single words 2.2."""
    model, tokeniser = shipped_model.load()
    tokens = tokeniser.encode(bible.running_text(bible.of_books(["Ruth"])))[:2000]
    measured = evaluation.evaluate(
        lambda ids, targets: objectives.logits_and_targets(
            model.module, model.params, ids, targets, model.config
        ),
        tokens,
        tokeniser,
        length=model.config.context,
    )
    assert measured.bits_per_byte < 1.75


def test_it_is_a_mixtral_with_eight_experts():
    model, tokeniser = shipped_model.load()
    assert (model.config.experts, model.config.options["k"]) == (8, 2)
    assert tokeniser.size == model.config.vocabulary == 1024
    assert all(np.isfinite(leaf).all() for leaf in leaves(model.params).values())


def test_the_command_line_knows_it_by_name(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["generate", "shipped", "--prompt", "And God said", "--tokens", "6"]
    assert main([*command, "--temperature", "0"]) == 0
    assert capsys.readouterr().out.startswith("And God said")
    assert main([*command, "--experts"]) == 0
    assert (tmp_path / "generation.html").exists()
    (tmp_path / "shipped").mkdir()  # a folder of this name comes first
    assert model_files.path_of("shipped").resolve() == (tmp_path / "shipped").resolve()


def test_changed_files_are_refused(tmp_path, monkeypatch):
    for name in shipped_model.FILES:
        content = (shipped_model.FOLDER / name).read_bytes()
        (tmp_path / name).write_bytes(content)
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(shipped_model, "FOLDER", tmp_path)
    shipped_model.load.cache_clear()
    with pytest.raises(ValueError, match="wanted files with the SHA-256"):
        shipped_model.load()
    shipped_model.load.cache_clear()
