"""A learner in a real browser: open lessons 04 and 09 in JupyterLab, run all, step on and back, and
find a prediction below its outcome.

    python -m pytest -m browser tests/browser     with the extra `browser` and a Chromium

Takes chromium, chromium-browser or google-chrome, or what MOE_NP_BROWSER names. The lessons are
copied first, since JupyterLab saves what it runs. Screenshots go to the folder MOE_NP_SCREENSHOTS,
if it is set.
"""

import contextlib
import json
import os
import pathlib
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = os.environ.get("MOE_NP_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {
        "windowingMode": "none"
    },  # cells that are out of sight stay in the page
}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium found; MOE_NP_BROWSER names one"),
]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def lab(tmp_path):
    """(address, token, folder) of a JupyterLab of its own on a copy of the lessons, without the
    settings of the person.
    """
    pytest.importorskip("jupyterlab")
    shutil.copytree(
        ROOT / "lessons", tmp_path / "lessons", ignore=shutil.ignore_patterns("out", "__pycache__")
    )
    for name, values in SETTINGS.items():
        path = (
            tmp_path
            / "config"
            / "lab"
            / "user-settings"
            / "@jupyterlab"
            / f"{name}.jupyterlab-settings"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")
    port, token = free_port(), secrets.token_hex(16)
    folders = {
        f"JUPYTER_{kind}_DIR": str(tmp_path / kind.lower())
        for kind in ("CONFIG", "DATA", "RUNTIME")
    }
    options = [
        "--no-browser",
        "--allow-root",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
    ]
    options += ["--ServerApp.ip=127.0.0.1", f"--IdentityProvider.token={token}"]
    command = [sys.executable, "-m", "jupyter", "lab", *options]
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(
            command, cwd=tmp_path / "lessons", env={**os.environ, **folders}, stdout=log, stderr=log
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(f"{address}/api?token={token}", server, tmp_path / "log")
            yield address, token, tmp_path / "lessons"
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(20)
            server.kill()


def wait_for(url, server, log, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(url, timeout=2).read()
        time.sleep(0.3)
    raise AssertionError(f"JupyterLab did not come up:\n{log.read_text()[-2000:]}")


@pytest.fixture
def page():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def open_and_run(page, lab, name):
    """Open a lesson, run all its cells from the menu, wait until the last one is done."""
    address, token, _ = lab
    page.goto(f"{address}/lab/tree/{name}.ipynb?token={token}")
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    page.locator("text=Python 3").first.wait_for()  # the kernel is there
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
    page.locator(".lm-Menu-itemLabel", has_text="Run All Cells").first.click()
    page.wait_for_function(
        """() => {
            const prompts = '.jp-Notebook .jp-CodeCell .jp-InputPrompt';
            const cells = [...document.querySelectorAll(prompts)];
            return cells.length > 5 && cells.every(c => /\\[\\d+\\]/.test(c.textContent));
        }""",
        timeout=120_000,
    )


def shot(page, name):
    if folder := os.environ.get("MOE_NP_SCREENSHOTS"):
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(pathlib.Path(folder) / f"{name}.png"))


def test_lesson_04_is_run_and_stepped_through(page, lab):
    open_and_run(page, lab, "04_vowels")
    assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    first = page.locator(".jp-OutputArea-output", has_text="epoch 0: start").first
    first.scroll_into_view_if_needed()
    shot(page, "04_state")
    assert "(N = 400, D = 2)" in first.inner_text()

    walk = page.locator(
        ".jp-OutputArea-output", has=page.locator("button", has_text="forward")
    ).first
    walk.scroll_into_view_if_needed()
    forward, back = (walk.locator("button", has_text=name) for name in ("forward", "back"))
    assert re.search(r"state 0 of \d+\b", walk.inner_text()) and "epoch 0" in walk.inner_text()
    for number in (1, 2, 3):
        forward.click()
        walk.locator("text=" + f"state {number} of").wait_for()
    walk.locator("text=epoch 75").first.wait_for()
    back.click()
    walk.locator("text=state 2 of").wait_for()
    walk.locator("text=epoch 50").first.wait_for()
    assert walk.locator("img").evaluate("image => image.naturalWidth") > 300, "the picture is there"
    assert walk.locator("mjx-container").count() > 0, "the equation is typeset"
    walk.evaluate("e => e.closest('.jp-Cell').scrollIntoView()")
    shot(page, "04_view")
    page.locator("text=one_epoch: not yet").first.wait_for()


def test_lesson_09_shows_a_prediction_below_its_outcome_and_the_flow_of_its_arrays(page, lab):
    path = lab[2] / "09_balance.ipynb"
    written = path.read_text(encoding="utf-8").replace(r"\"09.2\", \"\"", r"\"09.2\", \"a third\"")
    assert "a third" in written
    path.write_text(written, encoding="utf-8")
    open_and_run(page, lab, "09_balance")
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    outcome = page.locator(".jp-CodeCell", has_text="You expected (09.2): a third").first
    outcome.wait_for()
    assert "CV² of" in outcome.inner_text(), "below the output of the next cell"
    walk = page.locator(
        ".jp-OutputArea-output", has=page.locator("button", has_text="forward")
    ).first
    walk.scroll_into_view_if_needed()
    assert walk.locator(".moe-flow").count() == 1 and "←" in walk.inner_text()
    shot(page, "09_view")
    names = ("img", "table:not(.moe-flow table)")
    picture, table = (walk.locator(name).first.bounding_box() for name in names)
    assert table["x"] > picture["x"] + 200, "the arrays stand beside the picture"
    page.locator("summary", has_text="Hint 1").first.wait_for()
