"""`moe-np cost`: what it prints and refuses."""

import json

import pytest

from moe_np.cli import main
from moe_np.parallel import cost
from moe_np.parallel.cost import Machine, Work


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mixtral-8x7b", "--devices", "12"], "devices: wanted a divisor or a multiple of 8"),
        (["t5-base"], "model: wanted a Transformer with experts, got 't5-base'"),
        (["moe-256"], "model: wanted a Transformer with experts, got 'moe-256'"),
        (["nobody"], "model: wanted one of mixtral-8x7b, "),
        (["mixtral-8x7b", "--bandwidth", "0"], "bandwidth: wanted a finite number above 0, got 0"),
        (["mixtral-8x7b", "--tokens", "0"], "tokens: wanted a whole number of at least 1, got 0"),
        (["mixtral-8x7b", "--node", "0"], "node: wanted a whole number of at least 1, got 0"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, message):
    assert main(["cost", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"moe-np: error: {message}")


def test_the_command_prints_a_table_or_json(capsys):
    assert main(["cost", "mixtral-8x7b", "--devices", "64", "--bandwidth", "50"]) == 0
    text = capsys.readouterr().out
    assert "64 devices, training step of 4,096 tokens per device" in text
    assert [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")] == [
        *("parallelism", "data", "tensor", "expert"),
    ]
    assert main(["cost", "mixtral-8x7b", "--devices", "64", "--json", "--inference"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["devices"] == 64
    assert facts["bandwidth"] == 25e9
    wanted = cost.plans("mixtral-8x7b", 64, Machine(), Work(training=False))
    assert [plan["seconds"] for plan in facts["plans"]] == [plan.seconds for plan in wanted]
