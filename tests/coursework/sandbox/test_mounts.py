"""The root of a child is one list, which system calls and bubblewrap make alike."""

import pathlib

from moe_np.coursework.sandbox import mounts, visible_files

LINKS = [("usr/lib", "/lib")]
SHOWN = ["/usr/lib", "/opt/python"]
HIDDEN = ["/usr/lib/site-packages"]
BINDINGS = [("/usr/lib/site-packages/numpy", "/usr/lib/site-packages/numpy"), ("/tmp/x", "/jail/x")]
ROOT = mounts.root_mounts(LINKS, SHOWN, HIDDEN, BINDINGS, "/jail/work")


def test_a_hidden_folder_is_closed_after_the_libraries_in_it_are_shown():
    kinds = [mount.kind for mount in ROOT if mount.path.startswith("/usr/lib")]
    assert kinds == ["show", "hide", "show", "close"]
    paths = [mount.path for mount in ROOT]
    assert paths.index("/usr/lib/site-packages/numpy") > paths.index("/usr/lib/site-packages")


def test_bubblewrap_makes_every_mount_in_the_same_order():
    options = mounts.bubblewrap_options(ROOT, 4096)
    made = ("--symlink", "--ro-bind", "--tmpfs", "--dev-bind", "--remount-ro")
    targets = []
    for i, option in enumerate(options):
        if option in made:
            single = option in ("--tmpfs", "--remount-ro")
            targets.append(options[i + (1 if single else 2)])
    assert targets == [*(mount.path for mount in ROOT), "/"]
    assert options[options.index("--size") + 1] == "4096"


def test_bubblewrap_makes_the_folders_that_are_mounted_on():
    options = mounts.bubblewrap_options(ROOT, 4096)
    folders = {options[i + 1] for i, option in enumerate(options) if option == "--dir"}
    for path in (*SHOWN, "/jail/x", "/dev/null"):
        assert {str(parent) for parent in pathlib.PurePath(path).parents} - {"/"} <= folders


def test_every_library_of_this_python_is_shown(tmp_path):
    with visible_files.VisibleFiles((), ("numpy",)) as files:
        bindings = files.bindings(new_root=True)
        root = mounts.root_mounts(files.links, files.shown, files.hidden, bindings, "/jail/work")
    shown = {mount.path for mount in root if mount.kind == "show"}
    assert files.libraries["numpy"] in shown and "/jail/programs" in shown
    assert not files.base.exists()
