"""The site: `python3 run.py site` builds the lessons, run, and the reference as web pages.

    python -m lessons.site [--out DIR]

The pages go to lessons/site/out; open index.html there. They need no network. Lessons and topics
are run, each in a kernel of its own, and run again only when they or the package change. The
figures are those of figures/out, or quick ones, made now. pages.py gathers what is built.
"""

import argparse
import concurrent.futures
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
    from lessons.site import animations, conf, pages

    shutil.copy(HERE / "conf.py", source)
    shutil.copy(ROOT / "figures" / "readme.png", source / "cover.png")
    (source / "_static").mkdir()
    shutil.copy(HERE / "site.css", source / "_static")
    shutil.copy(HERE / "site.js", source / "_static")
    shutil.copy(conf.mathjax(), source / "_static")
    with concurrent.futures.ProcessPoolExecutor(1) as pool:  # beside the texts
        pictures = pool.submit(animations.make, source / "_static")
        pages.write_texts(source)
        pages.write_report(report(), source)
        pages.write_speed(source)
        pictures.result()


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
    """A hash of the package: when it changes, lessons are run again."""
    files = sorted((ROOT / "moe_np").rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def prepare_kernels(work):
    """Settings for the kernels that run the notebooks; returns the folder of their results."""
    import jupyter_cache

    # a profile of their own: no start-up scripts of the user, no remarks on transport
    profile = work / "ipython" / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    settings = "c.IPKernelApp.log_level = 40\n"
    (profile / "ipython_kernel_config.py").write_text(settings, encoding="utf-8")
    os.environ["IPYTHONDIR"] = str(work / "ipython")
    os.environ["MOE_NP_VIEW"] = "page"  # a walk becomes one piece of HTML
    cache = work / f"cache-{fingerprint()}"
    for old in set(work.glob("cache-*")) - {cache}:
        shutil.rmtree(old)
    jupyter_cache.get_cache(cache).db  # noqa: B018 - made here, once, and not by each process
    return cache


STOPPED = 2  # the status of Sphinx after an exception; after warnings it is 1

OUTSIDE = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']((?:https?:)?//[^\"']+)"
    r"|<link\b[^>]*\brel=[\"'](?:stylesheet|preload|icon)[\"'][^>]*"
    r"\bhref=[\"']((?:https?:)?//[^\"']+)"
)


def fetched_from_outside(out):
    """(page, address) of every script, style or picture that a browser would fetch from another
    machine.
    """
    for page in sorted(out.rglob("*.html")):
        for match in OUTSIDE.finditer(page.read_text(encoding="utf-8")):
            yield page.relative_to(out), match[1] or match[2]


def build(work):
    """Build the pages into work/html; returns the exit status."""
    source = work / "source"
    html = work / "html"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    gather(source)
    options = ["-q", "-W", "--keep-going", "-j", str(os.cpu_count() or 1)]
    options += ["-d", str(work / "trees")]
    options += ["-D", f"nb_execution_cache_path={prepare_kernels(work)}"]
    command = [sys.executable, "-m", "sphinx", *options, str(source), str(html)]
    status = subprocess.run(command, cwd=ROOT).returncode
    if status == STOPPED:
        # two kernels that start at once may be given one port; what was run is not run again
        print("lessons.site: stopped; it is tried once more", file=sys.stderr)
        status = subprocess.run(command, cwd=ROOT).returncode
    for page, address in fetched_from_outside(html):
        status = 1
        print(f"lessons.site: {page} would fetch {address}", file=sys.stderr)
    return status


def main(argv):
    summary = __doc__.partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m lessons.site", description=summary)
    place = {"type": pathlib.Path, "default": HERE / "out", "metavar": "DIR"}
    parser.add_argument("--out", help="default: %(default)s", **place)
    out = parser.parse_args(argv).out.resolve()
    try:
        import sphinx  # noqa: F401
    except ImportError:
        sys.exit("lessons.site: wanted Sphinx, got none; `python3 run.py site` installs it")
    status = build(HERE / "build")
    if status == 0:
        shutil.copytree(HERE / "build" / "html", out, dirs_exist_ok=True)
        print(out / "index.html")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
