"""The site: every module has a page and a topic, the code of the topics runs, links resolve,
docstrings come through unharmed, and nothing is fetched from outside.

CI builds all of it with warnings as errors (`python3 run.py site`); here is what can be tested
without Sphinx.
"""

import importlib
import inspect
import json
import pathlib
import re
import sys

import numpy as np
import pytest

sys.path.insert(
    0, str(pathlib.Path(__file__).resolve().parents[2])
)  # lessons is a folder of the checkout
animations = importlib.import_module("lessons.site.animations")
builder = importlib.import_module("lessons.site.__main__")
conf = importlib.import_module("lessons.site.conf")
course = importlib.import_module("lessons.site.course")
glossary_links = importlib.import_module("lessons.site.glossary_links")
links = importlib.import_module("lessons.site.links")
pages = importlib.import_module("lessons.site.pages")
reference = importlib.import_module("lessons.site.reference")
topics = importlib.import_module("lessons.site.topics")


# --- pages of modules -----------------------------------------------------------------------------


def defined(name):
    """The public functions and classes that a module defines, as Python sees them."""
    module = importlib.import_module(name)
    for thing_name, thing in vars(module).items():
        is_callable = (
            inspect.isclass(thing) or inspect.isroutine(thing) or hasattr(thing, "py_func")
        )
        is_own = is_callable and (thing.__module__, thing.__name__) == (name, thing_name)
        if is_own and not thing_name.startswith("_"):
            yield thing_name


@pytest.mark.slow
def test_every_public_function_of_every_module_has_an_entry():
    pytest.importorskip("numba")  # to import the kernels
    names = links.documented()
    assert {"moe_np.routing.top_k", "moe_np.mixtures.em"} < set(names)
    assert "moe_np.__main__" not in names
    for name in names:
        text = reference.page(name)
        for thing in defined(name):
            assert re.search(rf":: {thing}(\(|$)", text, re.MULTILINE), (name, thing)


def test_prose_stays_prose_and_tables_stay_as_they_are():
    text = (
        "Σ_i w* of `x_i`\nis |a|, *one* a*b*c.\n\n    paper   here\n    x       y\n\nend  aligned"
    )
    lines = reference.described(text, 0, "moe_np")
    assert r"Σ\_i w\* of \ ``x_i``\  is \|a\|, *one* a\*b\*c." in lines
    assert "       paper   here" in lines and lines.count(".. code-block:: text") == 2


@pytest.mark.seconds
def test_a_signature_has_the_names_of_its_types():
    page = reference.page("moe_np.routing.top_k")
    types = "moe_np.base.types"
    assert f".. py:function:: route(params: {types}.Params, x: {types}.ArrayND, *, k: int," in page
    assert "-> tuple[moe_np.routing.contract.Routing, moe_np.routing.top_k.Cache]" in page
    assert f"dtype: {types}.DType = np.float64" in page
    for name in links.documented():
        entries = [line for line in reference.page(name).splitlines() if ".. py:" in line]
        assert not [line for line in entries if "Annotated[" in line or "<class" in line], name


def test_a_class_shows_its_fields_and_methods_and_a_module_its_constants():
    contract = reference.page("moe_np.routing.contract")
    assert re.search(r"^ +token +ArrayA +row of x$", contract, re.MULTILINE)
    assert ".. py:method:: Fit.bic() -> float" in reference.page("moe_np.mixtures.em_fit")
    types = reference.page("moe_np.base.types")
    assert ".. py:type:: ArrayND\n   :canonical: Array['N, D']" in types
    experts = reference.page("moe_np.layers.experts.linear")
    assert ".. py:data:: LINEAR\n   :value: Expert(" in experts


def test_the_source_of_a_definition_begins_at_its_decorator_and_ends_with_it():
    text, places = reference.source("moe_np.mixtures.em_fit")
    lines = text.splitlines()
    for name in ("Fit", "Fit.bic"):
        kind, first, last = places[name]
        assert kind == ("class" if name == "Fit" else "def")
        assert re.match(rf" *(@|{kind} {name.rpartition('.')[2]}\b)", lines[first - 1])
        assert first < last and lines[last - 1].strip()
    text, places = reference.source("moe_np.kernels.machine.blas")
    assert any(text.splitlines()[first - 1].startswith("@") for _, first, _ in places.values())


def test_a_type_is_traced_to_the_module_that_defines_it():
    home = importlib.import_module("lessons.site.signatures").home
    assert home("moe_np.layers.balance", "BalanceLoss") == "moe_np.routing.contract.BalanceLoss"
    assert home("moe_np.layers.balance", "noisy_top_k.Cache") == "moe_np.routing.noisy_top_k.Cache"
    assert home("moe_np.plots", "Axes") == "matplotlib.axes.Axes"
    assert home("moe_np.plots", "np.ndarray") == "np.ndarray"


# --- topics ---------------------------------------------------------------------------------------


def test_every_topic_page_has_its_place_in_the_order():
    files = {path.stem for path in topics.FOLDER.glob("*.md")} - {"index"}
    assert sorted(files) == sorted(topics.names())


def test_every_module_stands_in_exactly_one_topic():
    lines = [line for topic in topics.names() for line in topics.listed(topic)]
    assert len(lines) == len(set(lines))
    unknown = [n for n in lines if not n.endswith(".*") and n not in links.documented()]
    assert not unknown
    modules = [name for topic in topics.names() for name in topics.modules(topic)]
    assert sorted(modules) == sorted(links.documented()), "add what is missing to a topic page"


def test_the_longest_line_lists_a_module():
    assert topics.lines_of_modules()["moe_np.routing.contract"] == "moe_np.routing.contract"
    assert topics.lines_of_modules()["moe_np.routing"] == "moe_np.routing.*"
    assert topics.fits("moe_np.routing.new", "moe_np.routing.*")
    assert not topics.fits("moe_np.routing_new", "moe_np.routing.*")


@pytest.mark.parametrize("topic", topics.names())
def test_a_topic_is_short_and_complete(topic):
    text = topics.text(topic)
    assert len(text.splitlines()) <= 60
    assert topics.code(topic) and topics.listed(topic)
    assert "](../reference/" in topics.page(topic)


@pytest.mark.parametrize("topic", topics.names())
def test_the_code_of_a_topic_runs(topic, monkeypatch):
    if "% needs numba" in topics.text(topic):
        pytest.importorskip("numba")
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.close("all")
    monkeypatch.setenv("MOE_NP_VIEW", "text")
    with plt.rc_context({"backend": "Agg"}):
        exec(compile(topics.code(topic), f"{topic}.md", "exec"), {"__name__": topic})
    for ax in (ax for number in plt.get_fignums() for ax in plt.figure(number).axes):
        is_colorbar = ax.get_label() == "<colorbar>"
        assert ax.get_xlabel() or ax.get_ylabel() or is_colorbar, "wanted the names of the axes"
    plt.close("all")


# --- links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("(errata 3)", "([errata 3](../lessons/errata.md#errata-3))"),
        (
            "errata 7, 17",
            "[errata 7](../lessons/errata.md#errata-7), [17](../lessons/errata.md#errata-17)",
        ),
        ("Lessons 07 and 99", "[Lessons 07](../lessons/07_sparse.ipynb) and 99"),
        (
            "Lessons 01 to 02",
            "[Lessons 01](../lessons/01_why_one_averages.ipynb) to [02](../lessons/02_gate.ipynb)",
        ),
        ("arXiv 2401.04088", "[arXiv 2401.04088](https://arxiv.org/abs/2401.04088)"),
        (
            "`moe_np.routing.top_k`",
            "[`moe_np.routing.top_k`](../reference/moe_np.routing.top_k.rst)",
        ),
        (
            "`moe_np/routing/top_k.py`",
            "[`moe_np/routing/top_k.py`](../reference/moe_np.routing.top_k.rst)",
        ),
        ("`top_k.route` and `errata 3`", "`top_k.route` and `errata 3`"),
        ("# errata 3", "# errata 3"),
        ("```\nerrata 3\n```", "```\nerrata 3\n```"),
        ("[errata 3](there.md)", "[errata 3](there.md)"),
    ],
)
def test_links_are_added_to_markdown(text, wanted):
    assert links.in_markdown(text, "../") == wanted


def test_links_are_added_to_docstrings():
    text = links.in_rst("see top_k.py (errata 13), and `k`", "moe_np.routing")
    assert r":doc:`top\_k.py </reference/moe_np.routing.top_k>`" in text
    assert ":ref:`errata 13 <errata-13>`" in text and "``k``" in text
    assert links.in_rst("M. I. Jordan", "moe_np") == r"\M. I. Jordan", "not a list"


LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s#]+)(?:#([\w-]+))?\)")
MADE_LATER = (
    "REPORT.md",
    "numbers.md",
    "speed.md",
    "cover.png",
)  # of the figures, when the site is built


def markdown(path):
    """The Markdown of a page or of a notebook's cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    cells = (cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
    return "\n".join("".join(cell["source"]) for cell in cells)


def in_toctrees(text):
    """The documents that the toctrees of a page name, as paths without a suffix."""
    for tree in re.findall(r"^```\{toctree\}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        for line in tree.splitlines():
            if line and not line.startswith(":"):
                yield line.rpartition("<")[2].rstrip(">")


@pytest.mark.seconds
def test_links_resolve(tmp_path):
    pages.write_texts(tmp_path)
    sources = [path for path in sorted(tmp_path.rglob("*")) if path.suffix in (".md", ".ipynb")]
    assert len(sources) > 40
    for path in sources:
        text = markdown(path)
        for target, anchor in LINK.findall(text):
            file = path.parent / target
            assert file.name in MADE_LATER or file.exists(), f"{path.name}: {target}"
            if anchor.startswith("errata-"):
                assert f"({anchor})=" in file.read_text(encoding="utf-8"), f"{path.name}: {anchor}"
        for name in in_toctrees(text):
            made_later = f"{name}.md".endswith(MADE_LATER)
            patterns = (
                [name] if "*" in name else [f"{name}{end}" for end in (".md", ".rst", ".ipynb")]
            )
            files = [file for pattern in patterns for file in path.parent.glob(pattern)]
            assert made_later or files, f"{path.name}: {name}"


# --- what articles say ----------------------------------------------------------------------------

VERDICTS = ("wrong", "wrong citation", "holds under a condition", "without a source")


def articles():
    """[(number, claim, verdict, evidence)] of the page, with the links that the site adds."""
    text = (pages.HERE / "articles.md").read_text(encoding="utf-8")
    items = re.split(r"^### ", links.in_markdown(text, ""), flags=re.MULTILINE)[1:]
    for item in items:
        claim, *_ = item.splitlines()
        number, _, sentence = claim.partition(". ")
        body = re.split(r"^## ", item, flags=re.MULTILINE)[0]
        verdicts = re.findall(r"^\*\*Verdict: ([^.]+)\.\*\* (?=\S)", body, re.MULTILINE)
        evidence = re.findall(r"^\*\*Evidence\.\*\* (.+?)\.$", body, re.MULTILINE | re.DOTALL)
        yield int(number), sentence, verdicts, evidence


def test_every_sentence_of_an_article_has_a_claim_a_verdict_and_evidence():
    items = list(articles())
    assert [number for number, *_ in items] == list(range(1, 27))
    for number, sentence, verdicts, evidence in items:
        assert len(sentence.split()) > 4 and not sentence.endswith("."), number
        assert len(verdicts) == 1 and verdicts[0] in VERDICTS, number
        assert len(evidence) == 1, number
    assert {verdicts[0] for _, _, verdicts, _ in items} == set(VERDICTS)


@pytest.mark.seconds
def test_the_evidence_on_articles_is_one_click_away(tmp_path):
    """Each piece of evidence is a link, and what it names is there."""
    pages.write_texts(tmp_path)
    reference_pages = {f"{name}.rst" for name in links.documented()}
    for number, _, _, (evidence,) in articles():
        targets = re.findall(r"\]\(([^)\s#]+)", evidence)
        assert targets, number
        unlinked = re.sub(r"\[[^\]]*\]\([^)]*\)", "", evidence)
        assert not re.search(r"`|arXiv|errata \d|[Ll]essons? \d", unlinked), (number, unlinked)
        for target in targets:
            is_page = (tmp_path / target).exists() or target.split("/")[-1] in reference_pages
            assert target.startswith("https://") or is_page, (number, target)


def test_the_page_on_articles_can_be_reached():
    for path in (pages.HERE / "index.md", pages.ROOT / "README.md"):
        assert "articles.md)" in path.read_text(encoding="utf-8"), path


# --- what is shipped ------------------------------------------------------------------------------


def test_numbers_are_the_tables_of_the_report_that_have_published_values():
    one = "## One\n\n![p](p.png)\n\nThe published values.\n\n| a |\n|---|\n| 1 |\n\nMore.\n\n"
    two = "## Two\n\nOnly ours.\n\n| b |\n|---|\n| 2 |\n"
    text = pages.tables(f"# R\n\n**Made with `--quick`: few seeds.**\n\n{one}{two}")
    assert text.startswith("**Made with `--quick`") and "### One" in text and "| 1 |" in text
    assert "Two" not in text and "More." not in text and "p.png" not in text


def test_the_page_on_speed_has_the_history_of_the_bench(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    history = importlib.import_module("figures.layer_speed.history")
    monkeypatch.setattr(history, "make", lambda job: f"![p](history.png) in {job.out.name}")
    pages.write_speed(tmp_path)
    text = (tmp_path / "speed.md").read_text(encoding="utf-8")
    assert "![p](figures/history.png) in figures" in text and "@@" not in text


def test_what_a_page_would_fetch_from_outside_is_seen(tmp_path):
    (tmp_path / "a.html").write_text(
        '<script src="https://x/y.js"></script><a href="https://fine">', encoding="utf-8"
    )
    (tmp_path / "b.html").write_text(
        '<link rel="stylesheet" href="//x/s.css"><img src="c.png">', encoding="utf-8"
    )
    fetched = [(str(page), address) for page, address in builder.fetched_from_outside(tmp_path)]
    assert fetched == [("a.html", "https://x/y.js"), ("b.html", "//x/s.css")]


# --- what Sphinx takes long for -------------------------------------------------------------------


def test_each_stretch_of_the_pages_has_as_many_lessons():
    pages_in_order = [f"lessons/{i:02}" for i in range(30)] + [f"reference/{i}" for i in range(570)]
    names = list(pages_in_order)
    conf.spread(None, None, names)
    assert sorted(names) == sorted(pages_in_order)
    stretches = [names[start : start + 60] for start in range(0, 600, 60)]
    for stretch in stretches:
        assert 2 <= sum(name.startswith("lessons/") for name in stretch) <= 4


def test_the_sidebar_opens_the_branch_of_its_page_alone():
    context = {"toctree": lambda **options: options}
    conf.open_one_branch(None, "topics/em", "page.html", context, None)
    shown = context["toctree"](collapse=False, titles_only=True)
    assert shown == {"collapse": True, "titles_only": True}
    conf.open_one_branch(None, "search", "search.html", {}, None)


# --- the course -----------------------------------------------------------------------------------


def test_the_first_page_has_every_lesson_in_order_with_its_time():
    text = pages.index()
    assert "@@" not in text
    rows = re.findall(
        r"^\| (\w+) \| \[.+?\]\(lessons/(\w+)\.ipynb\) \| (.*?) \| (\d+) \|$", text, re.M
    )
    assert [(number, stem) for number, stem, _, _ in rows] == list(links.lesson_names().items())
    assert all(5 <= int(minutes) <= 45 for *_, minutes in rows)


def test_minutes_follow_the_rule():
    prose = " ".join(["word"] * 400) + "\n\n$$a = b$$\n\n**Predict.** What?"
    code = "\n".join([*["x = f(x)"] * 24, "import a", "ax.plot(x)", "assert x", "view(steps)"])
    cells = [("markdown", prose), ("code", code)]
    assert course.minutes(cells) == 2 + 1 + 1 + 2 + 2  # words, formula, prediction, code, stepper
    closed = f"<details><summary>A</summary>\n\n{prose}\n\n</details>"
    after = ("markdown", f"{closed}\n\n## Exercises\n\n{prose}")
    assert course.minutes([*cells, after]) == course.minutes(cells)


def test_lessons_code_and_errata_name_each_other():
    assert "moe_np.layers.balance" in course.modules_of("09_balance")
    assert {5, 6, 7, 17} <= set(course.errata_of("09_balance"))
    assert "09" in course.lessons_with("moe_np.layers.balance") and "15" in course.lessons_with(27)
    assert ":doc:`09 </lessons/09_balance>`" in reference.page("moe_np.layers.balance")
    text = pages.errata((pages.ROOT / "lessons" / "errata.md").read_text(encoding="utf-8"))
    item = text.partition("(errata-27)=")[2].partition("(errata-28)=")[0]
    assert "In the lessons: " in item and "[15](../lessons/15_errata.ipynb)" in item
    for lesson in course.lessons():
        for number in course.errata_of(lesson.stem):
            assert f"(errata-{number})=" in text, (lesson.stem, number)


def test_a_lesson_on_the_site_says_where_it_stands_and_has_nothing_to_fill_in():
    made = json.loads(pages.notebook(pages.ROOT / "lessons" / "09_balance.ipynb"))
    sources = ["".join(cell["source"]) for cell in made["cells"]]
    assert sources[0].startswith("# 09 · ") and "python3 run.py lab 09" in sources[0]
    assert "## Behind this lesson" in sources[-1] and "errata.md#errata-5" in sources[-1]
    assert not [source for source in sources if source.startswith("predict(")]
    (check,) = [cell for cell in made["cells"] if "self_check(s" in "".join(cell["source"])]
    assert check["metadata"]["tags"] == ["remove-output"], "no function is written on a page"
    assert "](solutions/09_balance.md)" in "\n".join(sources)


def test_solutions_are_pages_whose_code_is_not_run():
    text = pages.solution(pages.ROOT / "lessons" / "solutions" / "09_balance.py")
    assert text.startswith("---\norphan: true\n---") and "# 09 · Solutions" in text
    assert "```python\ndef switch_loss" in text and "](../09_balance.ipynb)" in text


# --- moving pictures ------------------------------------------------------------------------------


def test_descent_on_the_landscapes_ends_where_lesson_03_says():
    ends = {error: animations.descent(error, 400)[-1] for error in animations.NAMES}
    assert abs(ends["cooperative"].sum()) < 1e-6
    assert np.allclose(ends["competitive"], 0, atol=1e-6)
    assert np.allclose(ends["mixture"], [2, -2], atol=0.01)
    for error in animations.NAMES:
        start, end = animations.mean_error(error, animations.descent(error, 400)[[0, -1]])
        assert end < start


def test_a_moving_picture_has_frames_and_a_still_one_for_paper(tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(1, 1))
    monkeypatch.setattr(animations, "HELD", 1)
    (line,) = figure.subplots().plot([], [])
    animations.write(figure, lambda frame: line.set_data([0, frame], [0, 1]), 3, tmp_path / "a")
    assert image.open(tmp_path / "a.gif").n_frames >= 3 and (tmp_path / "a.png").exists()


def test_the_pages_of_03_and_04_show_their_moving_pictures():
    for stem, (name, words) in animations.PICTURES.items():
        text = pages.animation(stem)
        assert f"{name}.gif" in text and f"{name}.png" in text and words in text
        assert text.partition("\n")[0].count(words) == 1, "a description for those who cannot see"
        assert (pages.ROOT / "lessons" / f"{stem}.ipynb").exists()
    assert pages.animation("09_balance") == ""


# --- the glossary ---------------------------------------------------------------------------------


def test_a_term_is_linked_where_a_lesson_first_uses_it():
    texts = ["# Router\n\nThe `router` and $router$.", "A router. Routers and a sparse layer."]
    first, second = glossary_links.with_first_uses(texts, "../")
    assert first == texts[0], "headings, code and formulas stay as they are"
    assert second == (
        "A [router](../glossary.md#term-router). Routers and a "
        "[sparse layer](../glossary.md#term-sparse-layer)."
    )


def test_the_longest_term_wins_and_links_stay():
    (text,) = glossary_links.with_first_uses(["Noisy top-k gating; [load](x.md) of experts"], "")
    assert "[Noisy top-k gating](glossary.md#term-noisy-top-k-gating)" in text
    assert "[load](x.md) of [experts](glossary.md#term-expert)" in text


def test_every_link_to_the_glossary_has_a_target():
    page = glossary_links.with_targets(glossary_links.GLOSSARY.read_text(encoding="utf-8"))
    targets = re.findall(r"^\((term-[\w-]+)\)=$", page, re.MULTILINE)
    assert len(targets) == len(set(targets)) > 60
    assert set(glossary_links.terms()) <= set(targets)
