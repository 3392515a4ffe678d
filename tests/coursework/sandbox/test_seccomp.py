"""The filter: both processors refuse the same calls, and its jumps lead where they should.

A filter runs here through an interpreter of its instructions: of the two processors one is at hand.
"""

import itertools

import pytest

from moe_np.coursework.sandbox import seccomp, syscalls

ALLOWED = seccomp.ALLOW
REFUSED = seccomp.ERROR | seccomp.EPERM
MISSING = seccomp.ERROR | seccomp.ENOSYS
PID = 4711
# operations of classic BPF as the kernel defines them: 0x35 is JGE, at least
CONDITIONS = {
    0x15: lambda loaded, value: loaded == value,
    0x35: lambda loaded, value: loaded >= value,
    0x45: lambda loaded, value: bool(loaded & value),
}

machines = pytest.mark.parametrize("machine", sorted(seccomp.AUDIT_ARCHITECTURES))


def verdict(machine, number, *arguments, architecture=None):
    """What the filter returns for a system call: the instructions, one by one."""
    words = {0: number, 4: architecture or seccomp.AUDIT_ARCHITECTURES[machine]}
    for i, argument in enumerate((*arguments, *[0] * 6)[:6]):
        words[16 + 8 * i] = argument & 0xFFFFFFFF
        words[20 + 8 * i] = argument >> 32 & 0xFFFFFFFF
    lines = seccomp.program(machine, PID)
    position = 0
    loaded = None
    while True:
        code, if_true, if_false, value = lines[position]
        position += 1
        if code == seccomp.RETURN:
            return value
        if code == seccomp.LOAD:
            loaded = words[value]
        elif code == seccomp.AND:
            loaded &= value
        else:
            position += if_true if CONDITIONS[code](loaded, value) else if_false


@machines
def test_the_kernel_takes_the_filter(machine):
    """As its checker does: jumps forward only, to an instruction that is there, to an end."""
    lines = seccomp.program(machine, PID)
    assert len(lines) <= 4096 and lines[-1][0] == seccomp.RETURN
    for position, (code, if_true, if_false, value) in enumerate(lines):
        assert code in (*CONDITIONS, seccomp.LOAD, seccomp.AND, seccomp.RETURN)
        assert 0 <= if_true < 256 and 0 <= if_false < 256 and 0 <= value < 2**32
        assert position + 1 + max(if_true, if_false) < len(lines) or code == seccomp.RETURN
        assert code != seccomp.LOAD or (value % 4 == 0 and value < 64)


@machines
def test_denied_calls_are_refused_and_others_are_not(machine):
    for group in seccomp.DENIED.values():
        for name in group.split():
            number = syscalls.number(name, machine)
            assert number is None or verdict(machine, number) == REFUSED, name
    for number in (0, 1, 3, 9, 60 if machine == "x86_64" else 93):  # read, write, close, mmap, exit
        assert verdict(machine, number) == ALLOWED


@machines
def test_calls_that_are_newer_than_the_list_are_missing(machine):
    new = {"mseal": 462, "setxattrat": 463, "removexattrat": 466, "file_setattr": 469}
    for number in (*new.values(), 453, 1000, 0x40000000, 0x40000001, 2**32 - 1):
        assert verdict(machine, number) == MISSING
    first, last = syscalls.UNUSED[machine]
    for number in (first, 336, last):
        assert verdict(machine, number) == MISSING
    for number in (first - 1, 436, 439):  # close_range, faccessat2
        assert verdict(machine, number) == ALLOWED
    pairs = syscalls.NUMBERS.values()
    numbers = [pair[machine != "x86_64"] for pair in pairs]
    used = sorted(number for number in numbers if number is not None)
    assert len(used) == len(set(used)) and max(used) == syscalls.LAST_KNOWN
    assert not [number for number in used if first <= number <= last]


@machines
def test_calls_that_depend_on_their_arguments(machine):
    def call(name, *arguments):
        return verdict(machine, syscalls.number(name, machine), *arguments)

    assert call("clone3") == MISSING and call("openat2") == MISSING
    assert call("clone", 0x10000000) == REFUSED and call("clone", 17) == ALLOWED
    assert call("prctl", 1) == REFUSED and call("prctl", 15) == ALLOWED  # PDEATHSIG, NAME
    assert call("prctl", 999) == REFUSED, "what is not known"
    assert call("tgkill", PID) == ALLOWED and call("tgkill", 1) == REFUSED
    for name in ("prlimit64", "sched_setaffinity"):
        assert call(name, 0) == ALLOWED and call(name, PID) == REFUSED
    for command in (8, 10, 15, 1026, 1031):  # F_SETOWN, _SETSIG, _SETOWN_EX, _NOTIFY, _SETPIPE_SZ
        assert call("fcntl", 3, command) == REFUSED
    assert call("fcntl", 3, 1) == ALLOWED and call("fcntl", 3, 1030) == ALLOWED
    # FIOSETOWN, SIOCSPGRP, FIOASYNC, FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR, TIOCSTI; TCGETS, FIONREAD
    for command in (0x8901, 0x8902, 0x5452, 0x40086602, 0x401C5820, 0x5412):
        assert call("ioctl", 3, command) == call("ioctl", 3, command | 1 << 32) == REFUSED
    assert call("ioctl", 3, 0x5401) == ALLOWED and call("ioctl", 3, 0x541B) == ALLOWED


@machines
def test_nothing_is_sent_to_an_address(machine):
    def send(*arguments):
        return verdict(machine, syscalls.number("sendto", machine), *arguments)

    assert send(3, 1 << 40, 5, 0, 0, 0) == ALLOWED  # send() of a pair of sockets
    for address in (1, 1 << 32, (1 << 47) + 16):
        assert send(3, 1 << 40, 5, 0, address, 16) == REFUSED


@machines
def test_what_is_not_opened_for_writing_is_not_cut_off(machine):
    calls = [("openat", (0, 0))] + ([("open", (0,))] if machine == "x86_64" else [])
    accesses, truncations = (0, 1, 2, 3), (0, 0o1000)
    for (name, before), access, truncation, other in itertools.product(
        calls, accesses, truncations, (0, 0o2000000, 0o100)
    ):
        number = syscalls.number(name, machine)
        hidden = truncation and access in (0, 3)
        result = verdict(machine, number, *before, access | truncation | other)
        assert result == (REFUSED if hidden else ALLOWED)


@machines
def test_calls_of_another_processor_are_refused(machine):
    assert verdict(machine, 0, architecture=0x40000003) == REFUSED  # 32-bit x86
