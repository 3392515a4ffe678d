"""Atomic writes, and the removal of folders of any depth."""

import os

import pytest

from moe_np.base.files import remove_folder, write_atomically


def test_a_write_is_atomic(tmp_path):
    path = tmp_path / "new" / "file.txt"
    write_atomically(path, "one\n")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "broken \ud800")
    assert path.read_bytes() == b"one\n" and list(path.parent.iterdir()) == [path]


@pytest.mark.seconds
def test_a_folder_deeper_than_any_path_is_removed(tmp_path):
    before = os.getcwd()
    try:
        os.chdir(tmp_path)
        os.mkdir("top")
        os.chdir("top")
        for _ in range(1500):
            with open("file", "w"):
                os.mkdir("folder")
                os.chdir("folder")
    finally:
        os.chdir(before)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "top" / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "top" / "closed").mkdir(mode=0)
    remove_folder(tmp_path / "top")
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept" / "file").exists()
