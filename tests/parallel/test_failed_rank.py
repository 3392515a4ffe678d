"""Which rank failed: told by what it wrote, by its process, and by what mpiexec prints."""

import pytest

from moe_np.parallel import failed_rank, progress

MPICH = "=   PID 12 RUNNING AT host\n=   EXIT CODE: {}\n"


@pytest.mark.parametrize(
    ("waiting", "gone", "printed", "message"),
    [
        ([1, 0, 1], [], "", "rank 1: its process was killed"),
        ([1, 0, 1], [], MPICH.format(9), "rank 1: its process was killed"),  # 12 is of rank 2
        ([1, 0, 0], [], MPICH.format(9), "rank 1, 2: ended early after it came to exchange 3"),
        ([1, 0, 0], [[1], [0, 2]], MPICH.format(9), "rank 1: its process was killed"),
        ([1, 0, 1], [[0], [1], [2]], MPICH.format(9), "rank 0: its process was killed"),
        ([1, 0, 0], [[0, 1, 2]], MPICH.format(9), "rank 1, 2: ended early"),
        ([0, 0, 0], [], MPICH.format(9), "rank 0, 1, 2: ended early"),
        ([0, 0, 0], [], MPICH.format(3), "rank 2: its process was killed"),
        ([0, 0, 0], [], "Abort(3) on node 1", "rank 1: its process was killed"),
        ([1, 1, 1], [], "", "rank 0, 1, 2: ended early"),
    ],
)
def test_who_waits_is_not_who_failed(tmp_path, waiting, gone, printed, message):
    """MPICH kills the other ranks within milliseconds, and may then name one of these."""
    lines = progress.create(tmp_path / "ranks", 3)
    lines["pid"] = [10, 11, 12]
    lines["exchanges"] = 3
    lines["name"] = b"combine"
    lines["waiting"] = waiting
    assert failed_rank.message(lines, printed, gone, 9).startswith(message)


def test_a_rank_between_two_runs_works_while_others_are_in_the_next(tmp_path):
    lines = progress.create(tmp_path / "ranks", 3)
    lines["ended"] = [0, 1, 0]
    lines["waiting"] = [1, 0, 1]
    lines["exchanges"] = [5, 4, 5]
    assert failed_rank.working(lines) == [1]
    assert failed_rank.first_gone(lines, [[1], [0]]) == [1]
    lines["ended"], lines["waiting"], lines["exchanges"] = 1, 0, 5
    assert failed_rank.working(lines) == failed_rank.first_gone(lines, [[1], [0]]) == []
