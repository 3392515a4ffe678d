"""The bandwidth term of `moe_np.parallel.cost` against the simulator SimGrid, where Debian's
python3-simgrid is installed. It says nothing of α: its flows cost no time per message.
"""

import pathlib
import subprocess
import sys

import pytest

from moe_np.parallel import cost
from moe_np.parallel.cost import Machine

PROGRAM = pathlib.Path(__file__).resolve().parents[1] / "support" / "simgrid_exchange.py"
PYTHONS = (sys.executable, "/usr/bin/python3")


@pytest.fixture(scope="module")
def python():
    """A Python that has SimGrid."""
    for path in PYTHONS:
        if pathlib.Path(path).exists():
            done = subprocess.run([path, "-c", "import simgrid"], capture_output=True)
            if done.returncode == 0:
                return path
    pytest.skip("SimGrid is not installed (Debian: python3-simgrid)")


@pytest.mark.parametrize(
    ("hosts", "leaf", "over"),
    [(16, 16, 1), (32, 32, 1), (64, 32, 1), (64, 32, 4)],
)
def test_the_bandwidth_term_is_that_of_a_fat_tree(python, hosts, leaf, over):
    """Full bisection: a host's link is the limit. With 1/4 of it between the switches, those links
    are, and the leaf is what the model calls a node.
    """
    n_bytes = 1_000_000
    command = [python, PROGRAM, *map(str, (hosts, n_bytes, leaf, over))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    simulated = float(done.stdout.splitlines()[-1])
    machine = Machine(bandwidth=50e9, node=1, alpha=0.0)
    if over > 1:
        machine = machine._replace(bandwidth=50e9 / over, local_bandwidth=50e9, node=leaf)
    model = cost.all_to_all(hosts * n_bytes, hosts, machine)
    assert simulated == pytest.approx(model, rel=0.02)
    assert simulated > model  # the latency of the links, which α = 0 leaves out
