"""Numbers of system calls, against the kernel's headers where these are installed."""

import pathlib
import re

import pytest

from moe_np.coursework.sandbox import syscalls

HEADERS = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",
}


@pytest.mark.parametrize("machine", HEADERS)
def test_the_numbers_are_those_of_the_kernel(machine):
    header = pathlib.Path(HEADERS[machine])
    if not header.exists():
        pytest.skip(f"without {header}")
    lines = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\b", header.read_text())
    known = {name: int(number) for name, number in lines}
    newest = max(known.values())
    for name in syscalls.NUMBERS:
        number = syscalls.number(name, machine)
        older = number is None or number <= newest
        assert not older or known.get(name) == number, name
