"""The filter: both processors refuse the same calls, and its jumps lead where they should."""

import pytest

from moe_np.coursework.sandbox import seccomp, syscalls

ALLOWED = seccomp.ALLOW
REFUSED = seccomp.ERROR | seccomp.EPERM
MISSING = seccomp.ERROR | seccomp.ENOSYS
PID = 4711

machines = pytest.mark.parametrize("machine", sorted(seccomp.AUDIT_ARCHITECTURES))


def verdict(machine, number, *arguments, architecture=None):
    """What the filter returns for a system call: the instructions, one by one."""
    words = {
        seccomp.NUMBER: number,
        seccomp.ARCHITECTURE: architecture or seccomp.AUDIT_ARCHITECTURES[machine],
        seccomp.ARGUMENT_1: (*arguments, 0, 0)[0],
        seccomp.ARGUMENT_2: (*arguments, 0, 0)[1],
    }
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
        else:
            true = {
                seccomp.JUMP_EQUAL: loaded == value,
                seccomp.JUMP_GREATER: loaded > value,
                seccomp.JUMP_ANY_BIT: bool(loaded & value),
            }[code]
            position += if_true if true else if_false


@machines
def test_denied_calls_are_refused_and_others_are_not(machine):
    for group in seccomp.DENIED.values():
        for name in group.split():
            number = syscalls.number(name, machine)
            assert number is None or verdict(machine, number) == REFUSED, name
    for number in (0, 1, 3, 9, 60 if machine == "x86_64" else 93):  # read, write, close, mmap, exit
        assert verdict(machine, number) == ALLOWED


@machines
def test_calls_that_depend_on_their_arguments(machine):
    def call(name, *arguments):
        return verdict(machine, syscalls.number(name, machine), *arguments)

    assert call("clone3") == MISSING
    assert call("clone", 0x10000000) == REFUSED and call("clone", 17) == ALLOWED
    assert call("prctl", seccomp.PR_SET_PDEATHSIG) == REFUSED and call("prctl", 15) == ALLOWED
    assert call("tgkill", PID) == ALLOWED and call("tgkill", 1) == REFUSED
    for name in ("prlimit64", "sched_setaffinity"):
        assert call(name, 0) == ALLOWED and call(name, PID) == REFUSED
    for command in seccomp.FCNTL_OWNERS:
        assert call("fcntl", 3, command) == REFUSED
    assert call("fcntl", 3, 1) == ALLOWED


@machines
def test_calls_of_another_processor_are_refused(machine):
    assert verdict(machine, 0, architecture=0x40000003) == REFUSED  # 32-bit x86
    assert verdict(machine, seccomp.X32_NUMBERS + 1) == REFUSED
