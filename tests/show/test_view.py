"""`view`: buttons and slider move, every state has a picture, text is printed without a kernel."""

import re
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from moe_np.base.checks import InputError
from moe_np.layers import experts, lstm
from moe_np.mixtures import em
from moe_np.mixtures.jacobs1991 import init_mixture
from moe_np.models import decoder
from moe_np.show import walk
from moe_np.show.steps import Steps, Trail
from moe_np.show.view import array_pictures, attention_pictures, pictures, view
from moe_np.show.view.page import MAX_STATES, Page
from tests.support import routers

PNG = b"\x89PNG"


def vowels(every=None):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 2))
    params = init_mixture(rng, 3)
    return walk.vowels(params, x, (x[:, :1] > 0) * 1.0, lr=0.1, every=every)


def router(name="switch capacity"):
    case = routers.CASES[name]
    params, x = routers.setup(case)
    routing, _ = case.router.route(params, x, **case.options)
    return routing, walk.route(case.router, params, x, **case.options)


def numbers(n):
    """A walk of n states, and the list of those that were computed."""
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


@pytest.mark.seconds
def test_buttons_and_slider_walk_along(viewer):
    steps, _ = numbers(5)
    list(steps), steps.goto(0)
    v = viewer(steps)
    assert v.slider.max == 4 and "step 0" in v.table.value
    for _ in range(3):
        v.forward.click()
    v.back.click()
    assert steps.at == v.slider.value == 2 and "step 2" in v.table.value
    assert v.position.value == "state 2 of 4"
    v.slider.value = 3
    assert steps.now.phase == "step 3" and bytes(v.picture.value).startswith(PNG)
    first = v.picture.value
    v.slider.value = 4
    assert v.picture.value != first
    v.slider.value = 3
    assert v.picture.value == first, "a picture is drawn once"
    assert next(steps).phase == "step 4", "the walk itself has moved along"


@pytest.mark.seconds
def test_the_ends_are_shown_and_forward_computes_states(viewer):
    steps, made = numbers(4)
    _ = steps[1]
    v = viewer(steps)
    assert v.slider.max == 1 and len(made) == 2
    v.back.click()
    assert v.slider.value == 0 and "first" in v.position.value
    v.forward.click(), v.forward.click()
    assert v.slider.max == v.play.max == 2 and len(made) == 3
    v.forward.click(), v.forward.click()
    assert v.slider.value == 3 and "the last one" in v.position.value


def test_a_limited_number_of_states_is_computed_in_advance(viewer, monkeypatch):
    monkeypatch.setenv("MOE_NP_VIEW", "widgets")
    steps, made = numbers(1000)
    view(steps)
    assert len(made) == 61 and steps.at == 0
    steps, made = numbers(1000)
    picture, table = view(steps, last=7).children[2].children
    assert bytes(picture.value).startswith(PNG) and "step 0" in table.value and len(made) == 8
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
    steps, _ = numbers(30)
    list(steps)
    shown = Page(steps).numbers()
    assert len(shown) == MAX_STATES == 13 and shown[0] == 0 and shown[-1] == 29
    assert view(steps).numbers() == shown
    monkeypatch.setenv("MOE_NP_VIEW", "film")
    with pytest.raises(InputError, match="MOE_NP_VIEW: wanted"):
        view(numbers(2)[0])


def test_a_given_picture_replaces_the_usual_ones(viewer):
    steps, _ = numbers(3)
    list(steps), steps.goto(0)
    drawn = []
    steps.draw = lambda ax, state, history: drawn.append((state.phase, len(history)))
    v = viewer(steps)
    v.forward.click()
    assert drawn == [("step 0", 1), ("step 1", 2)]
    viewer(steps, draw=lambda ax, state, history: ax.plot([0, 1]))
    assert len(drawn) == 2, "the argument comes first"


# --- Which picture --------------------------------------------------------------------------------


def draw(steps, number):
    """The Axes with the picture of a state; the tests look at the data in it."""
    state = steps.seen[number]
    ax = Figure().add_subplot()
    pictures.choose(state)(ax, state, steps.seen[: number + 1])
    return ax


def test_decision_lines_are_those_of_the_experts_and_the_past_fades():
    steps = vowels(every=5)
    state = steps[8]
    assert pictures.choose(state) is pictures.decision_lines
    ax = draw(steps, 8)
    lines = [line for line in ax.lines if line.get_label().startswith("expert")]
    assert len(lines) == 3 and len(ax.lines) == 3 * (1 + pictures.FADING)
    for m, line in enumerate(lines):
        ends = np.stack(line.get_data(), axis=1)
        np.testing.assert_allclose(ends @ state["W"][m, :, 0] + state["b"][m, 0], 0, atol=1e-10)
        share = state["p"][:, m].mean()
        assert f"{100 * share:.0f} %" in line.get_label()
        assert line.get_linewidth() == pytest.approx(1 + 4 * share)
    assert "mean squared error" in ax.get_title() and len(ax.images) == 1


def test_posteriors_are_the_colours_of_the_cases():
    steps = vowels()
    state = steps[5]
    assert pictures.choose(state) is pictures.posteriors
    ax = draw(steps, 5)
    for m, dots in enumerate(ax.collections):
        part = state["resp"].argmax(axis=1) == m
        assert np.array_equal(dots.get_offsets(), state["x"][part])
        assert f"{100 * state['resp'][:, m].mean():.0f} %" in dots.get_label()


@pytest.mark.parametrize("D", [1, 2])
def test_an_expert_that_is_first_for_no_case_is_drawn_too(D):
    rng = np.random.default_rng(0)
    resp = np.tile([0.6, 0.4, 0.0], (6, 1))
    arrays = {"x": rng.normal(size=(6, D)), "resp": resp}
    if D == 1:
        shapes = {"y": (6, 1), "W": (3, 1, 1), "b": (3, 1)}
        arrays |= {name: rng.normal(size=shape) for name, shape in shapes.items()}
    steps = Steps([Trail().see("E step", "", arrays)])
    assert pictures.choose(steps[0]) is (pictures.regression if D == 1 else pictures.posteriors)
    ax = draw(steps, 0)
    assert sum(len(dots.get_offsets()) for dots in ax.collections) == 6
    assert len(ax.get_legend().get_texts()) == 3


def test_a_routing_is_dots_for_rows_and_crosses_for_what_was_dropped():
    routing, steps = router()
    states = list(steps)
    number = next(i for i, s in enumerate(states) if s.phase == "routing")
    ax = draw(steps, number)
    dots, crosses = ax.collections
    assert np.array_equal(dots.get_offsets(), np.stack([routing.expert, routing.token], axis=1))
    assert len(crosses.get_offsets()) == routing.demand.sum() - len(routing.token) > 0
    assert np.array_equal(ax.images[0].get_array(), routing.probs)


def test_a_sort_stays_a_sort_when_it_is_done():
    states = list(walk.dispatch(router("top_k")[0], per_assignment=True))
    last = next(s for s in states if s.phase == "order")
    assert not last.changed and pictures.choose(last) is pictures.sorting


def test_what_is_newest_is_a_map_bars_or_a_line():
    _, steps = router()
    for number, state in enumerate(steps):
        if state.phase == "logits":
            ax = draw(steps, number)
            assert ax.get_title() == "logits"
            assert np.array_equal(ax.images[0].get_array(), state["logits"])
            assert (ax.get_ylabel(), ax.get_xlabel()) == ("N", "E")
    steps, _ = numbers(4)
    list(steps)
    assert draw(steps, 3).lines[0].get_ydata() == pytest.approx([0, 1, 2, 3])


def decoder_walk(**options):
    sizes = {"vocabulary": 10, "d_model": 8, "layers": 1, "heads": 2, "kv_heads": 1, "d_head": 4}
    config = decoder.Config(**sizes, experts=3, hidden=5, **options)
    params = decoder.init(np.random.default_rng(0), config, dtype=np.float64)
    ids = np.array([[3, 1, 4, 1, 5, 9]])
    return walk.transformer(params, ids, np.roll(ids, -1, axis=1), config)


def test_attention_is_a_map_per_head_with_its_hidden_part():
    steps = decoder_walk(window=3)
    drawn = {}
    for number, state in enumerate(steps):
        if pictures.choose(state) is attention_pictures.attention:
            ax = drawn[state.phase] = draw(steps, number)
            (image,) = ax.images
            name = ax.get_title().split()[0]
            assert name in state.changed
            heads = np.concatenate(state[name][0], axis=1)
            assert np.array_equal(image.get_array().filled(-np.inf), heads)
            texts = [text.get_text() for text in ax.texts]
            assert "head 0" in texts and "head 1" in texts
            assert (ax.get_ylabel(), ax.get_xlabel()) == ("query, position t", "key, position s")
    names = ["layer 0: scores", "layer 0: mask", "layer 0: probabilities"]
    names += ["backward, layer 0: probabilities", "backward, layer 0: scores"]
    assert list(drawn) == names
    hidden = [len(ax.patches) for ax in drawn.values()]
    visible = 1 + 2 + 3 * 4
    assert hidden == [0, 2 * (36 - visible), 2 * (36 - visible), 0, 2 * (36 - visible)]


def test_a_rotation_is_arrows_before_and_after():
    steps = decoder_walk()
    phase = "layer 0: queries rotated"
    number = next(i for i, state in enumerate(steps) if state.phase == phase)
    assert pictures.choose(steps[number]) is attention_pictures.rotation
    before, after = draw(steps, number).collections
    assert before.U.size == 2 * 6, "two pairs at six positions"
    turn = np.arctan2(-after.V, after.U) - np.arctan2(-before.V, before.U)
    t, i = before.XY.T
    np.testing.assert_allclose(np.exp(1j * turn), np.exp(1j * t * 10000 ** (-2 * i / 4)))
    np.testing.assert_allclose(np.hypot(after.U, after.V), 0.45)


def test_an_array_by_head_is_one_map_with_lines_between_the_heads():
    steps = decoder_walk()
    number = next(i for i, state in enumerate(steps) if state.phase == "layer 0: queries")
    assert pictures.choose(steps[number]) is array_pictures.newest
    ax = draw(steps, number)
    q = steps[number]["q"]
    assert ax.get_title() == "q" and (ax.get_ylabel(), ax.get_xlabel()) == ("T", "Hq, d")
    assert np.array_equal(ax.images[0].get_array(), q.reshape(6, 8))
    assert [line.get_xdata()[0] for line in ax.lines] == [3.5]


def lstm_walk():
    rng = np.random.default_rng(0)
    params = lstm.init(rng, 3, 4, 2)
    return walk.lstm(params, rng.normal(size=(2, 2, 3)), dh=rng.normal(size=(2, 2, 2)))


def em_walk():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (40, 1))
    y = np.abs(x) + 0.1 * rng.normal(size=x.shape)
    return walk.em(x, y, 2, family=em.Gaussian(), rng=rng, max_iter=2)


def layer_walk():
    rng = np.random.default_rng(0)
    params = experts.SWIGLU.init(rng, 5, 4, 3)
    x = rng.normal(size=(12, 5))
    return walk.layer(params, x, router("top_k")[0], experts.SWIGLU)


WALKS = {
    "pieces": lambda: Steps(vowels()[i] for i in range(12)),
    "noisy_top_k": lambda: router("noisy_top_k")[1],
    "hierarchical": lambda: router("hierarchical")[1],
    "layer": layer_walk,
    "epochs": lambda: Steps(vowels(every=3)[i] for i in range(3)),
    "dispatch": lambda: walk.dispatch(router("top_k")[0]),
    "switch loss": lambda: walk.balance("switch", router("top_k")[0]),
    "z loss": lambda: walk.balance("z_loss", router("top_k")[0]),
    "em": em_walk,
    "decoder": decoder_walk,
    "lstm": lstm_walk,
}
MANY_STATES = ("pieces", "noisy_top_k", "hierarchical", "layer", "decoder", "lstm")
NAMES = [
    pytest.param(name, marks=pytest.mark.slow if name in MANY_STATES else ()) for name in WALKS
]


@pytest.mark.parametrize("name", NAMES)
def test_every_state_of_every_walk_has_a_picture(name):
    steps = WALKS[name]()
    for number, _ in enumerate(steps):
        assert draw(steps, number).has_data()
    assert pictures.png(steps, number).startswith(PNG)
