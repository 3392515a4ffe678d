"""`moe-np train` and `moe-np evaluate`: what they print, write and refuse."""

import json
import signal
import subprocess
import sys

import pytest

from moe_np.cli import main
from moe_np.models import safetensors
from tests.language.test_run_folder import SMALL, TEXT

CHANGES = [text for name, value in SMALL.items() for text in ("--set", f"{name}={value}")]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT.replace(" and ", "\n"), encoding="utf-8")
    return str(path)


def train(folder, text, *arguments):
    return ["train", str(folder), "--text", text, *CHANGES, *arguments]


@pytest.mark.seconds
def test_a_model_is_trained_and_evaluated(tmp_path, text, capsys):
    folder = tmp_path / "run"
    assert main(train(folder, text, "--steps", "6", "--checkpoint-every", "3")) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "6/6" in printed.err
    assert "update 3: perplexity" in printed.err
    assert "tokens/s, busiest expert" in printed.err
    assert {"curves.png", "routing.png"} <= {path.name for path in folder.iterdir()}

    assert main(["evaluate", str(folder), "--text", text, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["window"] == 16
    assert found["perplexity"] < 280
    assert main(["evaluate", str(folder / "best"), "--text", text]) == 0
    assert "bits per byte" in capsys.readouterr().out


@pytest.mark.seconds
def test_a_finished_run_goes_on_with_nothing(tmp_path, text, capsys):
    command = train(
        tmp_path / "run", text, "--steps", "2", "--model", "dense", "--set", "experts=1"
    )
    assert main(command) == 0
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "has had all" not in capsys.readouterr().err
    assert main(command) == 0
    assert capsys.readouterr().err.endswith("run has had all of its 2 updates\n")
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before
    assert not (tmp_path / "run" / "routing.png").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of Windows end at once")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_after_the_update_and_the_command_goes_on(tmp_path, text, number):
    command = [sys.executable, "-m", "moe_np", *train(tmp_path / "run", text, "--steps", "2000")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        assert process.poll() is None
    process.send_signal(number)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert out == b""
    assert b"the same command goes on" in error
    state = safetensors.Reader(tmp_path / "run" / "state.safetensors")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert int(state.metadata["updates"]) == json.loads(lines[-1])["step"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "batch"], "--set: wanted NAME=VALUE, got 'batch'"),
        (["--set", "depth=2"], "--set: wanted one of batch"),
        (["--model", "gpt"], "--model: wanted one of"),
        (["--steps", "0"], "--steps: wanted"),
        (["--minutes", "0"], "--minutes: wanted"),
        (["--steps", "3", "--minutes", "1"], "not allowed with argument"),
        (["--checkpoint-every", "0"], "--checkpoint-every: wanted"),
    ],
)
def test_bad_input_is_one_line(tmp_path, text, capsys, arguments, message):
    assert main(train(tmp_path / "run", text, *arguments)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_folder_without_a_model_is_told(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "wanted a folder with a model" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_told(tmp_path, text, capsys):
    (tmp_path / "file").write_text("")
    assert main(train(tmp_path / "file" / "run", text, "--steps", "1")) == 2
    assert "wanted a folder that can be written" in capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    assert main(train(folder / "run", str(folder / "text.txt"), "--steps", "5")) == 0
    return folder / "run"


def test_text_goes_to_stdout_and_everything_else_to_stderr(trained, capsys):
    command = ["generate", str(trained), "--prompt", "the cat", "--tokens", "5", "--seed", "3"]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("the cat")
    assert printed.err == ""
    assert main(command) == 0
    assert capsys.readouterr().out == printed.out
    assert main([*command[:-1], "4"]) == 0
    assert capsys.readouterr().out != printed.out


def test_experts_colour_the_text_and_a_page_is_written(trained, capsys, monkeypatch, tmp_path):
    command = ["generate", str(trained), "--prompt", "the cat", "--tokens", "5", "--experts"]
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "\x1b[30;48;2;" in printed.out
    assert f"wrote {trained / 'generation.html'}" in printed.err
    assert "layer 1" in (trained / "generation.html").read_text(encoding="utf-8")
    monkeypatch.setenv("NO_COLOR", "1")
    page = tmp_path / "pages" / "page.html"
    assert main([*command, "--layer", "0", "--html", str(page)]) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert 'value="0" checked' in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", ""], "prompt: wanted some text to continue"),
        (["--prompt", "the cat" * 20], "at most the 16 tokens of the model's context"),
        (["--prompt", "a", "--tokens", "1000"], "tokens: wanted at most"),
        (["--prompt", "a", "--temperature", "-1"], "temperature: wanted"),
        (["--prompt", "a", "--seed", "-1"], "--seed: wanted"),
        (["--prompt", "a", "--experts", "--layer", "2"], "--layer: wanted"),
        (["--prompt", "a", "--layer", "1"], "--layer: wanted --experts with it"),
        (["--prompt", "a", "--html", "page.html"], "--html: wanted --experts with it"),
        (["--prompt", "a\udcff"], "--prompt: wanted text that UTF-8 can write"),
        (["--prompt", "a", "--experts", "--html", "."], "--html: wanted the name of a file"),
        (["--prompt", "a", "--experts", "--html", __file__ + "/x"], "with --html FILE"),
        ([], "--prompt"),
    ],
)
def test_bad_input_of_generate_is_one_line(trained, capsys, arguments, message):
    assert main(["generate", str(trained), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_text_without_tokens_to_predict_is_told(trained, tmp_path, capsys):
    (tmp_path / "empty.txt").write_text("")
    assert main(["evaluate", str(trained), "--text", str(tmp_path / "empty.txt")]) == 2
    assert "--text: wanted a text of at least two tokens, got 0" in capsys.readouterr().err


def test_a_prompt_that_ends_in_a_space_is_noted(trained, capsys):
    assert main(["generate", str(trained), "--prompt", "the ", "--tokens", "2"]) == 0
    assert "ends in white space" in capsys.readouterr().err


def test_the_help_names_what_can_be_set(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    words = capsys.readouterr().out.split()
    for name in ("batch=16,", "learning_rate=0.003,", "seed=0;", "experts,", "kv_heads,"):
        assert name in words
