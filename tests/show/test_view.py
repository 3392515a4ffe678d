"""`view`: buttons and slider walk along, every state has a picture, and without a kernel the state
is printed.
"""

import re
import sys

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.layers import experts
from moe_np.mixtures import jacobs1991 as model
from moe_np.show import walk
from moe_np.show.steps import Steps, Trail
from moe_np.show.view import pictures, view
from tests.support import routers

PNG = b"\x89PNG"


def vowels(every=None):
    rng = np.random.default_rng(0)
    x, params = rng.normal(size=(30, 2)), model.init_mixture(rng, 3)
    return walk.vowels(params, x, (x[:, :1] > 0) * 1.0, lr=0.1, every=every)


def router(name="switch capacity"):
    case = routers.CASES[name]
    params, x = routers.setup(case)
    return case.router.route(params, x, **case.options)[0], walk.route(
        case.router, params, x, **case.options
    )


def numbers(n):
    """A walk of n states that says how many were made."""
    made = []

    def states():
        trail = Trail()
        for i in range(n):
            made.append(i)
            yield trail.see(f"step {i}", "", {"i": i})

    return Steps(states()), made


@pytest.fixture
def viewer():
    pytest.importorskip("ipywidgets")
    from moe_np.show.view.viewer import Viewer

    return Viewer


# --- Widgets --------------------------------------------------------------------------------------


def test_buttons_and_slider_walk_along(viewer):
    steps, _ = numbers(5)
    list(steps), steps.goto(0)
    v = viewer(steps)
    assert v.slider.max == 4 and "step 0" in v.table.value
    for _ in range(3):
        v.forward.click()
    v.back.click()
    assert (
        steps.at == v.slider.value == 2
        and "step 2" in v.table.value
        and v.place.value == "state 2 of 0 to 4"
    )
    v.slider.value = 3
    assert steps.now.phase == "step 3" and bytes(v.picture.value).startswith(PNG)
    first = v.picture.value
    v.slider.value = 4
    assert v.picture.value != first
    v.slider.value = 3
    assert v.picture.value == first, "a picture is drawn once"
    assert next(steps).phase == "step 4", "the walk itself has moved along"


def test_ends_are_said_and_forward_computes_more(viewer):
    steps, made = numbers(4)
    _ = steps[1]
    v = viewer(steps)
    assert v.slider.max == 1 and len(made) == 2
    v.back.click()
    assert v.slider.value == 0 and "first" in v.place.value
    v.forward.click(), v.forward.click()
    assert v.slider.max == v.play.max == 2 and len(made) == 3
    v.forward.click(), v.forward.click()
    assert v.slider.value == 3 and "the last one" in v.place.value


def test_a_walk_is_looked_ahead_but_not_without_end(viewer, monkeypatch):
    monkeypatch.setenv("MOE_NP_VIEW", "widgets")
    steps, made = numbers(1000)
    view(steps)
    assert len(made) == 61 and steps.at == 0
    steps, made = numbers(1000)
    assert bytes(view(steps, last=7).children[1].value).startswith(PNG) and len(made) == 8
    with pytest.raises(InputError, match="wanted at least one state"):
        view([])


# --- Without --------------------------------------------------------------------------------------


def test_without_a_kernel_it_is_text(capsys):
    steps, _ = numbers(3)
    assert view(steps) is None and "step 0" in capsys.readouterr().out
    next(steps)
    assert view(steps) is None
    shown = capsys.readouterr().out
    assert "step 1" in shown and "next(steps) goes on" in shown and steps.at == 1


def test_without_ipywidgets_it_is_text(monkeypatch, capsys):
    class Shell:
        kernel = None

    ipython = pytest.importorskip("IPython")
    monkeypatch.setattr(ipython, "get_ipython", Shell)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    view(numbers(2)[0])
    assert "step 0" in capsys.readouterr().out


def test_a_page_needs_no_kernel(monkeypatch):
    monkeypatch.setenv("MOE_NP_VIEW", "page")
    page = view(numbers(3)[0])._repr_html_()
    assert page.count("class='moe-state'") == 3 and "step 0" in page and "step 2" in page
    assert not re.search(r"(src|href)='http", page) and page.count("data:image/png") == 3
    shown = view(numbers(30)[0]).numbers()
    assert len(shown) == 13 and shown[0] == 0 and shown[-1] == 29, "of a long walk some"
    monkeypatch.setenv("MOE_NP_VIEW", "film")
    with pytest.raises(InputError, match="MOE_NP_VIEW: wanted"):
        view(numbers(2)[0])


def test_a_picture_of_ones_own(viewer):
    steps, _ = numbers(3)
    list(steps), steps.goto(0)
    seen = []
    steps.draw = lambda ax, state, history: seen.append((state.phase, len(history)))
    v = viewer(steps)
    v.forward.click()
    assert seen == [("step 0", 1), ("step 1", 2)]
    viewer(steps, draw=lambda ax, state, history: ax.plot([0, 1]))
    assert len(seen) == 2, "the argument comes first"


# --- Which picture --------------------------------------------------------------------------------


class Recorder:
    """An Axes that draws and remembers: of the pictures it is the data that is tested."""

    def __init__(self):
        from matplotlib.figure import Figure

        self.ax = Figure().add_subplot()

    def draw(self, steps, number):
        state = steps.seen[number]
        pictures.choose(state)(self.ax, state, steps.seen[: number + 1])
        return self.ax


def test_decision_lines_are_those_of_the_experts_and_the_past_fades():
    steps = vowels(every=5)
    state = steps[8]
    assert pictures.choose(state) is pictures.decision_lines
    ax = Recorder().draw(steps, 8)
    lines = [line for line in ax.lines if line.get_label().startswith("expert")]
    assert len(lines) == 3 and len(ax.lines) == 3 * (1 + pictures.FADING)
    for m, line in enumerate(lines):
        on = np.stack(line.get_data(), axis=1) @ state["W"][m, :, 0] + state["b"][m, 0]
        np.testing.assert_allclose(on, 0, atol=1e-10)
        share = state["p"][:, m].mean()
        assert f"{100 * share:.0f} %" in line.get_label() and line.get_linewidth() == pytest.approx(
            1 + 4 * share
        )
    assert "mean squared error" in ax.get_title() and len(ax.images) == 1


def test_posteriors_are_the_colours_of_the_cases():
    steps = vowels()
    state = steps[5]
    assert pictures.choose(state) is pictures.posteriors
    ax = Recorder().draw(steps, 5)
    for m, dots in enumerate(ax.collections):
        assert np.array_equal(dots.get_offsets(), state["x"][state["resp"].argmax(axis=1) == m])
        assert f"{100 * state['resp'][:, m].mean():.0f} %" in dots.get_label()


@pytest.mark.parametrize("D", [1, 2])
def test_an_expert_that_no_case_belongs_to_most_is_drawn_all_the_same(D):
    rng, resp = np.random.default_rng(0), np.tile([0.6, 0.4, 0.0], (6, 1))
    arrays = {"x": rng.normal(size=(6, D)), "resp": resp}
    if D == 1:
        arrays |= {
            "y": rng.normal(size=(6, 1)),
            "W": rng.normal(size=(3, 1, 1)),
            "b": rng.normal(size=(3, 1)),
        }
    steps = Steps([Trail().see("E step", "", arrays)])
    assert pictures.choose(steps[0]) is (pictures.regression if D == 1 else pictures.posteriors)
    ax = Recorder().draw(steps, 0)
    assert sum(len(dots.get_offsets()) for dots in ax.collections) == 6
    assert len(ax.get_legend().get_texts()) == 3


def test_a_routing_is_dots_for_rows_and_crosses_for_what_was_dropped():
    routing, steps = router()
    states = list(steps)
    number = next(i for i, s in enumerate(states) if s.phase == "routing")
    ax = Recorder().draw(steps, number)
    dots, crosses = ax.collections
    assert np.array_equal(dots.get_offsets(), np.stack([routing.expert, routing.token], axis=1))
    assert len(crosses.get_offsets()) == routing.demand.sum() - len(routing.token) > 0
    assert np.array_equal(ax.images[0].get_array(), routing.probs)


def test_a_sort_stays_a_sort_when_it_is_done():
    states = list(walk.dispatch(router("top_k")[0], slowly=True))
    last = next(s for s in states if s.phase == "order")
    assert not last.changed and pictures.choose(last) is pictures.sorting


def test_what_is_newest_is_a_map_bars_or_a_line():
    _, steps = router()
    for number, state in enumerate(steps):
        if state.phase == "logits":
            ax = Recorder().draw(steps, number)
            assert ax.get_title() == "logits" and np.array_equal(
                ax.images[0].get_array(), state["logits"]
            )
            assert (ax.get_ylabel(), ax.get_xlabel()) == ("N", "E")
    steps, _ = numbers(4)
    list(steps)
    assert Recorder().draw(steps, 3).lines[0].get_ydata() == pytest.approx([0, 1, 2, 3])


MANY = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("pieces", "noisy_top_k", "hierarchical", "layer")
]


@pytest.mark.parametrize("name", [*MANY, "epochs", "dispatch", "switch loss", "z loss", "em"])
def test_every_state_of_every_kind_of_walk_has_a_picture(name):
    routing, steps = router("top_k")
    if name == "pieces":
        steps = Steps(vowels()[i] for i in range(12))
    elif name == "epochs":
        steps = Steps(vowels(every=3)[i] for i in range(3))
    elif name in routers.CASES:
        _, steps = router(name)
    elif name == "layer":
        rng = np.random.default_rng(0)
        steps = walk.layer(
            experts.SWIGLU.init(rng, 5, 4, 3), rng.normal(size=(12, 5)), routing, experts.SWIGLU
        )
    elif name == "dispatch":
        steps = walk.dispatch(routing)
    elif name == "em":
        em = pytest.importorskip("moe_np.mixtures.em")
        rng = np.random.default_rng(0)
        x = rng.uniform(-1, 1, (40, 1))
        steps = walk.em(
            x,
            np.abs(x) + 0.1 * rng.normal(size=x.shape),
            2,
            family=em.Gaussian(),
            rng=rng,
            max_iter=2,
        )
    else:
        steps = walk.balance({"switch loss": "switch", "z loss": "z_loss"}[name], routing)
    for number, _ in enumerate(steps):
        ax = Recorder().draw(steps, number)
        assert ax.has_data()
    assert pictures.png(steps, number).startswith(PNG)
