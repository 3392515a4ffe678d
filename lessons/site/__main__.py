"""All lessons rendered, the reference and the figures report as web pages: `python3 run.py site`.

    python -m lessons.site [--out DIR]

The pages go to lessons/site/out; open index.html there. They need no network. Lessons are run, each
in a kernel of its own, and run again only when they or the package change. The figures are those of
figures/out, or quick ones, made now.
"""

import argparse
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def gather(source):
    """Put everything that Sphinx reads into one folder."""
    from lessons.site import conf, reference

    for name in ("conf.py", "index.md"):
        shutil.copy(HERE / name, source)
    shutil.copy(ROOT / "figures" / "readme.png", source / "cover.png")
    (source / "_static").mkdir()
    shutil.copy(HERE / "site.css", source / "_static")
    shutil.copy(conf.mathjax(), source / "_static")
    copy(ROOT / "lessons", ["[0-9]*.ipynb", "references.md"], source / "lessons")
    copy(
        ROOT / "lessons" / "assignments",
        ["TEACHING.md", "STUDENTS.md", "README.md"],
        source / "teaching",
    )
    copy(report(), ["REPORT.md", "*.png"], source / "figures")
    reference.write(source / "reference")


def copy(folder, patterns, to):
    to.mkdir(parents=True)
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            shutil.copy(path, to)


def report():
    """The folder of the figures report: the whole one if it was made, otherwise the quick one."""
    out = ROOT / "figures" / "out"
    if (out / "REPORT.md").exists():
        return out
    if not (out / "quick" / "REPORT.md").exists():
        print("no figures yet: making quick ones", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "figures", "--quick"], cwd=ROOT, check=True)
    return out / "quick"


def fingerprint():
    """Changes with the package, so that lessons are run again when it does."""
    files = sorted((ROOT / "moe_np").rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def fetched_from_outside(out):
    """(page, address) of every script, style or picture that a browser would ask another machine
    for.
    """
    pattern = re.compile(
        r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']((?:https?:)?//[^\"']+)|"
        r"<link\b[^>]*\brel=[\"'](?:stylesheet|preload|icon)[\"'][^>]*\bhref=[\"']((?:https?:)?//[^\"']+)"
    )
    for page in sorted(out.rglob("*.html")):
        for found in pattern.finditer(page.read_text(encoding="utf-8")):
            yield page.relative_to(out), found[1] or found[2]


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m lessons.site", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--out", type=pathlib.Path, default=HERE / "out", metavar="DIR", help="default: %(default)s"
    )
    out = parser.parse_args(argv).out.resolve()
    try:
        from sphinx.cmd.build import build_main
    except ImportError:
        sys.exit(
            "lessons.site: wanted Sphinx (the extra `site`), got none; python3 run.py site installs it"
        )
    work = HERE / "build"
    source = work / "source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    gather(source)
    # of our own: no start-up scripts of the user's, no remarks on transport
    profile = work / "ipython" / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "ipython_kernel_config.py").write_text(
        "c.IPKernelApp.log_level = 40\n", encoding="utf-8"
    )
    os.environ["IPYTHONDIR"] = str(work / "ipython")
    os.environ["MOE_NP_VIEW"] = "page"  # a walk becomes one piece of HTML
    cache = work / f"cache-{fingerprint()}"
    for old in set(work.glob("cache-*")) - {cache}:
        shutil.rmtree(old)
    options = [
        "-q",
        "-W",
        "--keep-going",
        "-j",
        str(os.cpu_count() or 1),
        "-d",
        str(work / "trees"),
    ]
    status = build_main([*options, "-D", f"nb_execution_cache_path={cache}", str(source), str(out)])
    for page, address in fetched_from_outside(out):
        status = 1
        print(f"lessons.site: {page} would fetch {address}", file=sys.stderr)
    if status == 0:
        print(out / "index.html")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
