"""`moe-np generate --memory`: the same text, the line about the cache, and what is refused."""

import re

import pytest

from moe_np.cli import main
from tests.language.test_cli import CHANGES, TEXT


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    command = ["train", str(folder / "run"), "--text", str(folder / "text.txt"), *CHANGES]
    assert main([*command, "--steps", "4"]) == 0
    return folder / "run"


def text_of(folder, capsys, *arguments):
    command = ["generate", str(folder), "--prompt", "the cat", "--tokens", "8", "--seed", "3"]
    assert main([*command, *arguments]) == 0
    return capsys.readouterr()


@pytest.mark.seconds
@pytest.mark.parametrize("policy", ["lru", "lfu"])
def test_the_text_is_the_same_and_the_cache_is_told(folder, capsys, policy):
    whole = text_of(folder, capsys)
    assert whole.err == ""
    offloaded = text_of(folder, capsys, "--memory", "20kB", "--policy", policy)
    assert offloaded.out == whole.out
    line = r"experts: (\d+) hits, (\d+) misses \(\d+% hits\); (\d+) of (\d+) in 0.0 MB"
    hits, misses, places, experts = map(int, re.match(line, offloaded.err).groups())
    assert hits > 0 and misses >= places and places < experts


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("lots", "--memory: wanted a size such as 64MB, got 'lots'"),
        ("10", "memory: wanted at least"),
    ],
)
def test_refusals_are_one_line(folder, capsys, size, message):
    assert main(["generate", str(folder), "--prompt", "a", "--memory", size]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_folder_without_a_model(tmp_path, capsys):
    assert main(["generate", str(tmp_path), "--prompt", "a", "--memory", "1MB"]) == 2
    assert str(tmp_path) in capsys.readouterr().err
