"""`moe-np parallel`: what it prints, by one process and by MPI, and what it refuses."""

import json

import pytest

from moe_np.cli import main
from moe_np.parallel import cli, launch, layer_step
from moe_np.parallel.layer_step import Sizes

SMALL = ["--tokens", "40", "--d-model", "8", "--hidden", "8"]


def test_one_process_where_there_is_no_mpi(capsys, monkeypatch):
    monkeypatch.setattr(launch, "find", lambda: (None, "mpi4py is not installed"))
    assert main(["parallel", "--ranks", "3", "--check", *SMALL]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("3 ranks, one process, because mpi4py is not installed; float64")
    for name in ("out", "dx", "experts.w1", "experts.w3", "experts.w2", "router.w"):
        assert f"\n{name:<12} equal to the bit, beside one process" in printed


def test_the_digest_does_not_depend_on_the_ranks_but_on_the_pieces(capsys):
    def digest(*arguments):
        assert main(["parallel", "--in-process", "--json", *SMALL, *arguments]) == 0
        return json.loads(capsys.readouterr().out)["digest"]

    digests = {digest("--ranks", str(ranks)) for ranks in range(1, 8)}
    assert len(digests) == 1
    assert digest("--ranks", "2", "--pieces", "3") not in digests
    assert digest("--ranks", "2", "--dtype", "float32") not in digests


def test_json_has_every_exchange_of_every_rank(capsys):
    assert main(["parallel", "--in-process", "--check", "--json", "--ranks", "4", *SMALL]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["tokens"] == [10, 10, 10, 10]
    assert report["experts"] == [2, 2, 2, 2]
    assert [len(clock) for clock in report["exchanges"]] == [11] * 4
    assert report["exchanges"][0][0]["name"] == "counts"
    assert set(report["differences"].values()) == {None}


def test_a_difference_is_printed_and_ends_with_1(capsys, monkeypatch):
    one_process = layer_step.in_one_process

    def moved(given):
        result = one_process(given)
        result.out[0, 0] += 1e-9
        return result

    monkeypatch.setattr(layer_step, "in_one_process", moved)
    assert main(["parallel", "--in-process", "--check", *SMALL]) == 1
    printed = capsys.readouterr().out
    assert "\nout          differs by 1.0e-09, beside one process" in printed
    assert "\ndx           equal to the bit" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ranks", "9"], "ranks: wanted at most one per expert, 8, got 9"),
        (["--ranks", "5", "--pieces", "4"], "ranks: wanted at most one per piece, 4, got 5"),
        (["--ranks", "0"], "--ranks: wanted a whole number of at least 1, got 0"),
        (["--k", "9"], "k: wanted a whole number of at least 1 and at most 8, got 9"),
        (["--tokens", "-1"], "tokens: wanted a whole number of at least 0, got -1"),
        (["--in-process", "--skew", "nan"], "skew: wanted a finite number, got nan"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, message):
    assert main(["parallel", *arguments]) == 2
    assert capsys.readouterr().err == f"moe-np: error: {message}\n"


def test_an_error_of_a_rank_is_one_line(capsys, monkeypatch):
    whole = layer_step.whole

    def fails(given, rank, ranks):
        if rank == 1:
            raise ValueError("broken")
        return (yield from whole(given, rank, ranks))

    monkeypatch.setattr(layer_step, "whole", fails)
    assert main(["parallel", "--in-process", *SMALL]) == 1
    assert capsys.readouterr().err == "moe-np: error: rank 1: ValueError: broken\n"


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ranks_of_mpi_are_checked(capfd, ranks):
    found, reason = launch.find()
    if found is None:
        pytest.skip(reason)
    assert main(["parallel", "--ranks", str(ranks), "--check", "--json", *SMALL]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["by"].startswith("MPI")
    assert set(report["differences"].values()) == {None}
    assert report["ranks"] == ranks
    given = layer_step.problem(Sizes(tokens=40, d_model=8, hidden=8))
    assert report["digest"] == layer_step.digest(layer_step.in_one_process(given))


@pytest.mark.mpi
def test_ranks_with_different_parameters_are_told_at_the_start(capfd, monkeypatch, tmp_path):
    """A rank whose environment has another seed, as a faulty launcher would have it."""
    found, reason = launch.find()
    if found is None:
        pytest.skip(reason)
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from moe_np.cli import main\n"
        "from moe_np.parallel import mpi\n"
        "rank = mpi.world().rank\n"
        "sys.exit(main(['parallel', '--ranks', '3', '--tokens', '40', '--seed', str(rank // 2)]))\n"
    )
    ended = launch.run([str(program)], 3, found)
    wanted = "moe-np: error: rank 2: params, router.w: wanted the same as other ranks have, got"
    assert ended.status == 1
    assert wanted in capfd.readouterr().err


def test_the_table_is_aligned():
    timing = cli.Timing("counts", 0.001, 0.002, 0.003, 4)
    report = cli.Report(1, "one process", {"pieces": 8}, "float64", "0", [3], [2], [[timing]], None)
    header, row = cli.text_of(report).splitlines()[1:3]
    assert len(header) == len(row)
    assert row.split() == ["0", "3", "2", "1.00", "2.00", "3.00", "4"]


def test_what_a_capacity_drops_on_more_ranks_is_printed(capsys):
    assert main(["parallel", "--dropped", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    together, shuffled = rows["documents together"], rows["shuffled"]
    assert [row["ranks"] for row in together] == [row["ranks"] for row in shuffled] == [1, 2, 4, 8]
    assert main(["parallel", "--dropped"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[5].split()[-2] == f"{together[3]['dropped']:.1%}"
    assert together[3]["dropped"] > shuffled[3]["dropped"] + 0.15
