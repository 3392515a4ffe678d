"""The contestants of the bench of whole models, and the loop of the process that each of them has.

name                    impl            needs                computes
moe_np                  moe_np
dense                   dense
torch eager             torch           torch
torch compile           torch           torch, a C++ compiler    train, prefill
transformers IMPL       transformers    torch, transformers      batched_mm: generate
"""

import contextlib
import gc
import importlib.util
import re
import resource
import shutil
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import NamedTuple

from moe_np import kernels
from moe_np.experiments.layer_speed.problem import least_time
from moe_np.experiments.model_speed import (
    decoder_contestants,
    torch_decoder,
    transformers_decoder,
)
from moe_np.experiments.model_speed.workload import Workload

WHATS = ("train", "prefill", "generate")
PEERS = ("torch", "transformers")


class Contestant(NamedTuple):
    impl: str  # of several contestants of one impl the fastest counts
    variant: str
    prepare: Callable[[Workload], decoder_contestants.Prepared]
    libraries: tuple[str, ...] = ()  # which it needs
    whats: tuple[str, ...] = WHATS


def _transformers(variant, prepare, whats=WHATS):
    return Contestant("transformers", variant, prepare, PEERS, whats)


CONTESTANTS = {
    "moe_np": Contestant("moe_np", kernels.backend(), decoder_contestants.mixture),
    "dense": Contestant("dense", kernels.backend(), decoder_contestants.dense),
    "torch eager": Contestant("torch", "eager", torch_decoder.eager, ("torch",)),
    "transformers eager": _transformers("eager", transformers_decoder.eager),
    "transformers grouped_mm": _transformers("grouped_mm", transformers_decoder.grouped),
    "transformers batched_mm": _transformers(
        "batched_mm", transformers_decoder.batched, ("generate",)
    ),
    "torch compile": Contestant(
        "torch", "compile", torch_decoder.compiled, ("torch",), ("train", "prefill")
    ),  # last, because it takes long
}


def installed() -> list[str]:
    """The contestants whose libraries are there, and the compiler where one is needed."""
    return [
        name
        for name, contestant in CONTESTANTS.items()
        if all(importlib.util.find_spec(library) for library in contestant.libraries)
        and (contestant.variant != "compile" or shutil.which("c++") or shutil.which("g++"))
    ]


class FailureText(str):
    """The answer of a contestant that cannot do what was asked."""


def serve(prepare: Callable[[Workload], decoder_contestants.Prepared], pipe: Connection) -> None:
    """The loop of a contestant's process. It answers, until it gets None:

    ("prepare", workload)    what the contestant computes, for comparison, after a first call
    ("time", at_least)       the least time of a call in seconds
    ("peak",)                the most memory since the last "prepare", in bytes
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this
    call = None
    while (message := pipe.recv()) is not None:
        try:
            if message[0] == "prepare":
                call = None  # frees the arrays of the last workload
                gc.collect()
                forget_peak()
                call, answer = prepare(message[1])
            elif message[0] == "time":
                assert call is not None, "prepare comes first"
                answer = least_time(call, at_least=message[1])
            else:
                answer = peak()
        except Exception as error:  # of a library, for example without a compiler
            answer = FailureText(f"{type(error).__name__}: {error}".splitlines()[0][:200])
        pipe.send(answer)


def forget_peak() -> None:
    """Let `peak` count from here on, where the system can (Linux)."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def peak() -> int:
    """The most resident memory of this process, in bytes."""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as file:
        kilobytes = re.search(r"VmHWM:\s+(\d+) kB", file.read())
        if kilobytes:
            return 1024 * int(kilobytes[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
