"""The process of a contestant: answers, failures, memory."""

import threading
from multiprocessing import Pipe

import numpy as np
import pytest

from moe_np.experiments.layer_speed.processes import Runner
from moe_np.experiments.model_speed import decoder_contestants, serving
from moe_np.experiments.model_speed.workload import Workload

TINY = Workload("prefill", 64, 1, 4, 1, 2, 20)


def answers(prepare, messages, monkeypatch):
    """What a process that serves `prepare` answers, in a thread of this one."""
    monkeypatch.setattr(serving.signal, "signal", lambda *_: None)
    ours, its = Pipe()
    thread = threading.Thread(target=serving.serve, args=(prepare, its))
    thread.start()
    received = []
    for message in messages:
        ours.send(message)
        received.append(ours.recv())
    ours.send(None)
    thread.join()
    return received


def test_it_prepares_times_and_measures_memory(monkeypatch):
    messages = [("prepare", TINY), ("time", 0.01), ("peak",)]
    result, seconds, peak = answers(decoder_contestants.mixture, messages, monkeypatch)
    assert result.shape == (20,) and 0 < seconds < 10 and peak > 1e6


def test_an_error_is_an_answer(monkeypatch):
    def prepare(w):
        raise RuntimeError("no compiler\nin two lines")

    (answer,) = answers(prepare, [("prepare", TINY)], monkeypatch)
    assert isinstance(answer, serving.FailureText) and answer == "RuntimeError: no compiler"


def test_the_peak_forgets_what_was_before():
    large = np.ones(1 << 24)
    before = serving.peak()
    del large
    serving.forget_peak()
    assert serving.peak() <= before


def test_only_what_is_installed_takes_part(monkeypatch):
    monkeypatch.setattr(serving.importlib.util, "find_spec", lambda name: None)
    assert serving.installed() == ["moe_np", "dense"]
    monkeypatch.setattr(serving.importlib.util, "find_spec", lambda name: name == "torch")
    monkeypatch.setattr(serving.shutil, "which", lambda name: None)
    assert serving.installed() == ["moe_np", "dense", "torch eager"]


@pytest.mark.slow
def test_a_process_that_does_not_answer_is_ended():
    with Runner(["moe_np"], serving.CONTESTANTS, serving.serve) as runner:
        with pytest.raises(ChildProcessError, match="moe_np: no answer in 0 s"):
            runner.ask("moe_np", "prepare", TINY, timeout=0.0)
        with pytest.raises(ChildProcessError, match="its process ended"):
            runner.ask("moe_np", "peak")
