"""Predictions are kept, and shown below the outcome of the next cell."""

import pytest

from moe_np.base.checks import InputError
from moe_np.coursework import lesson_progress, predict, predictions


def test_without_a_notebook_it_only_answers(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    predict("09.1")
    assert "write it between the quotes" in capsys.readouterr().out
    predict("09.1", "a third")
    assert "Prediction 09.1: kept" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="text: wanted text in quotes, got int"):
        predict("09.1", 3)


def test_it_is_written_where_there_is_a_file_and_stays(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / lesson_progress.FILE).write_text("damaged {", encoding="utf-8")
    predict("09.1", "  a third ")
    assert lesson_progress.read()["predictions"] == {"09.1": "a third"}
    capsys.readouterr()
    predict("09.1")
    assert "kept" in capsys.readouterr().out
    assert lesson_progress.read()["predictions"] == {"09.1": "a third"}, (
        "an empty text erases nothing"
    )


@pytest.fixture
def shell(monkeypatch):
    pytest.importorskip("IPython")
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.setattr(InteractiveShell, "_instance", None, raising=False)
    shell = InteractiveShell()
    monkeypatch.setattr(predictions, "_shell", lambda: shell)
    return shell


def test_the_next_cell_shows_it_once(shell, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shell.run_cell("from moe_np.coursework import predict\npredict('09.1', 'a third')")
    assert "You expected" not in capsys.readouterr().out
    shell.run_cell("print('the outcome: .4')")
    lines = capsys.readouterr().out.split("\n")
    assert lines.index("the outcome: .4") < lines.index("You expected (09.1): a third")
    shell.run_cell("print('later')")
    assert "You expected" not in capsys.readouterr().out


def test_a_prediction_that_is_written_anew_replaces_the_waiting_one(shell, capsys, tmp_path):
    for text in ("a third", "a half"):
        shell.run_cell(f"from moe_np.coursework import predict\npredict('09.1', {text!r})")
    shell.run_cell("0")
    out = capsys.readouterr().out
    assert "You expected (09.1): a half" in out and "(09.1): a third" not in out
