"""The command line as a whole: one line and a status for every failure. Its commands are tested
beside their rooms, in the `test_cli.py` there.
"""

import importlib
import io
import sys

import pytest

from moe_np import cli


def test_the_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out.startswith("moe-np 0.")


def test_every_command_has_its_two_functions():
    for command in cli.COMMANDS.values():
        module = importlib.import_module(command.module)
        assert callable(getattr(module, command.add_arguments))
        assert callable(getattr(module, command.run))


def test_what_the_parser_refuses_is_one_line_as_well(capsys):
    assert cli.main(["run", "jacobs1991", "--seeds", "many"]) == 2
    printed = capsys.readouterr().err
    assert "--seeds" in printed and "many" in printed and printed.count("\n") == 1


@pytest.mark.parametrize(
    ("raised", "status", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted; finished runs are stored"),
        (
            OSError(28, "No space left on device", "results/x.json"),
            1,
            "results/x.json: No space left on device",
        ),
    ],
)
def test_failures_of_the_system_are_one_line(raised, status, words, capsys):
    def main(_):
        raise raised

    assert cli.guarded(main, [], "moe-np") == status
    printed = capsys.readouterr().err
    assert words in printed and printed.count("\n") == 1


@pytest.mark.parametrize(("encoding", "printed"), [("ascii", rb"\xb1"), ("cp1252", b"\xb1")])
def test_a_narrow_encoding_of_the_output_is_no_error(encoding, printed, monkeypatch):
    """± is in cp1252 and not in ASCII."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding, write_through=True))
    assert cli.guarded(lambda _: print("±", end=""), [], "moe-np") == 0
    assert written.getvalue() == printed


def test_programming_errors_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        cli.guarded(lambda _: 1 / 0, [], "moe-np")
