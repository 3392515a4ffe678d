"""The lock of a folder: one run at a time, and free again when the run has ended."""

import subprocess
import sys

import pytest

from moe_np.language import folder_lock

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no lock here")

PROGRAM = """
import pathlib, sys
from moe_np.language import folder_lock
with folder_lock.held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_holder_is_refused_until_the_first_ends(tmp_path):
    first = folder_lock.held(tmp_path)
    first.__enter__()
    message = "folder: wanted a folder in which no training runs"
    with pytest.raises(ValueError, match=message), folder_lock.held(tmp_path):
        pass
    first.__exit__(None, None, None)
    with folder_lock.held(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_another_process_is_refused_and_a_kill_frees_the_folder(tmp_path):
    program = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(ValueError, match="no training runs"), folder_lock.held(tmp_path):
        pass
    process.kill()
    process.communicate()
    with folder_lock.held(tmp_path):
        pass
