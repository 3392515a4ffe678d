"""Training over ranks: the same parameters on any number of ranks, to the bit."""

import numpy as np
import pytest

from moe_np.base import optim
from moe_np.base.params import leaves
from moe_np.models import decoder
from moe_np.parallel import decoder_parallel, in_process, placement
from moe_np.parallel import training_over_ranks as training
from moe_np.parallel.exchanges import RankError
from moe_np.training import loop
from moe_np.training.loop import Options
from tests.parallel.test_decoder_parallel import MODELS, SMALL

PIECES = 7
OPTIONS = Options(updates=20, warmup=3, learning_rate=1e-2, clip=0.5)


def begun(name="mixtral", dtype=np.float64, uneven=False, **values):
    """uneven: the minibatches of an update have different numbers of valid targets."""
    config = SMALL._replace(**MODELS[name])
    state = loop.initial_state(decoder.init(np.random.default_rng(0), config, dtype=dtype))
    text = np.arange(400) ** 2 % config.vocabulary  # it repeats itself

    def minibatch_of(rng):
        starts = rng.integers(0, 390, PIECES + 1)
        windows = text[starts[:, None] + np.arange(7)]
        valid = starts[:, None] % 7 >= np.arange(6) if uneven else True
        return windows[:, :-1], np.where(valid, windows[:, 1:], -1)

    def plan(ranks):
        placed = training.placed_on(config, ranks)
        return training.Plan(config, PIECES, minibatch_of, values, placed)

    return config, state, minibatch_of, plan


def trained(name, ranks, dtype=np.float64, options=OPTIONS, uneven=False, **values):
    _, state, _, plan = begun(name, dtype, uneven, **values)
    world = training.in_this_process(ranks)
    return list(training.train(state, plan(ranks), options, world))


def bits(state):
    trees = {"p": state.params, "m": state.optimiser.m, "v": state.optimiser.v}
    return {
        f"{n} {path}": leaf.tobytes() for n, t in trees.items() for path, leaf in leaves(t).items()
    }


@pytest.mark.parametrize("ranks", [2, 3, 4, 7])
@pytest.mark.parametrize(
    "name", ["mixtral", "tied, dense first layer, shared experts", "noisy, dropout", "dense"]
)
def test_twenty_updates_have_the_bits_of_one_process(name, ranks):
    dtype = np.float32 if ranks in (2, 7) else np.float64
    wanted, got = (trained(name, n, dtype) for n in (1, ranks))
    assert [step.losses.task for step in wanted] == [step.losses.task for step in got]
    assert [step.gradient_norm for step in wanted] == [step.gradient_norm for step in got]
    assert wanted[-1].number == got[-1].number == got[-1].state.optimiser.t == 20
    assert bits(wanted[-1].state) == bits(got[-1].state)
    assert wanted[-1].losses.task < wanted[0].losses.task


@pytest.mark.seconds
def test_every_rank_has_the_same_parameters_after_twenty_updates():
    """Each rank by itself, not only the one that is returned; `whole` compares what is common."""
    config, state, _, plan = begun()
    placed = placement.contiguous(8, 3)
    states = [training.divided(state, config, rank, placed) for rank in range(3)]
    for _ in range(20):
        steps = in_process.run(
            [training.update(s, plan(3), r, 3, OPTIONS) for r, s in enumerate(states)]
        )
        states = [step.state for step in steps]
    for path, leaf in leaves(states[0].params).items():
        if not decoder_parallel.is_divided(path, config):
            for other in states[1:]:
                assert leaves(other.params)[path].tobytes() == leaf.tobytes()
    wholes = in_process.run([training.whole(s, config, r, placed) for r, s in enumerate(states)])
    assert len({str(bits(whole)) for whole in wholes}) == 1
    states[1].params["layers"][0]["router"]["w"][0, 0] += 1e-12
    with pytest.raises(RankError, match=r"rank 1: params, layers/0/router/w: wanted the same"):
        in_process.run([training.whole(s, config, r, placed) for r, s in enumerate(states)])


@pytest.mark.seconds
def test_it_is_the_loop_of_one_process_to_rounding():
    config, state, minibatch_of, _ = begun()

    def gradients_of(params, minibatch, rng):
        return decoder.loss_and_grads(params, *minibatch, config)

    wanted = list(loop.train(state, gradients_of, minibatch_of, OPTIONS))
    got = trained("mixtral", 3)
    np.testing.assert_allclose(
        [s.losses.task for s in got], [s.losses.task for s in wanted], rtol=1e-9
    )
    np.testing.assert_allclose(got[0].gradient_norm, wanted[0].gradient_norm, rtol=1e-12)
    assert [s.learning_rate for s in got] == [s.learning_rate for s in wanted]


MICRO_BATCHES = OPTIONS._replace(updates=4, micro_batches=3)


@pytest.mark.seconds
@pytest.mark.parametrize(
    ("name", "dtype", "values"),
    [
        ("mixtral", np.float32, {}),
        ("noisy, dropout", np.float64, {}),
        ("capacity", np.float32, {"group": "batch"}),
        ("dense", np.float64, {}),
    ],
)
def test_micro_batches_have_the_same_bits_on_any_ranks(name, dtype, values):
    wanted, *rest = (
        trained(name, ranks, dtype, MICRO_BATCHES, uneven=True, **values) for ranks in (1, 2, 3, 7)
    )
    for got in rest:
        assert [step.losses.task for step in got] == [step.losses.task for step in wanted]
        assert [step.gradient_norm for step in got] == [step.gradient_norm for step in wanted]
        assert bits(got[-1].state) == bits(wanted[-1].state)


def test_micro_batches_count_by_their_valid_targets_as_in_the_loop():
    """To rounding. Load-balancing losses are over a minibatch in both."""
    _, state, minibatch_of, _ = begun(uneven=True)
    config = SMALL._replace(**MODELS["mixtral"])
    counts = []

    def gradients_of(params, minibatch, rng):
        losses, grads = decoder.loss_and_grads(params, *minibatch, config)
        counts.append(losses.tokens)
        return losses, grads

    wanted = list(loop.train(state, gradients_of, minibatch_of, MICRO_BATCHES))
    got = trained("mixtral", 3, options=MICRO_BATCHES, uneven=True)
    assert len(set(counts[:3])) == 3
    assert [step.tokens for step in got] == [step.tokens for step in wanted]
    for name in ("gradient_norm", "learning_rate"):
        values = [[getattr(step, name) for step in steps] for steps in (got, wanted)]
        np.testing.assert_allclose(*values, rtol=1e-9)
    np.testing.assert_allclose(
        [step.losses.task for step in got], [step.losses.task for step in wanted], rtol=1e-9
    )


def test_every_piece_of_an_update_has_a_generator_of_its_own():
    ids = np.zeros((8, 2), int)
    pieces = [
        piece
        for n in range(2)
        for rank in range(2)
        for piece in decoder_parallel.pieces_of(ids, ids, 4, rank, 2, seed=[0, 1], before=4 * n)
    ]
    assert len({piece.rng.random() for piece in pieces}) == 8


@pytest.mark.seconds
def test_it_goes_on_from_a_whole_state_on_other_ranks():
    _, state, _, plan = begun()
    wanted = trained("mixtral", 1)[-1].state
    first = training.train(
        *(state, plan(2), OPTIONS, training.in_this_process(2)),
        is_wanted=lambda number: number % 8 == 0,
    )
    half = [next(first) for _ in range(8)][-1].state
    rest = training.train(half, plan(5), OPTIONS, training.in_this_process(5))
    assert bits(list(rest)[-1].state) == bits(wanted)


def test_the_state_is_there_when_it_is_wanted_and_a_stop_ends_all():
    _, state, _, plan = begun()
    asked = []
    steps = training.train(
        *(state, plan(2), OPTIONS, training.in_this_process(2)),
        is_wanted=lambda number: number == 2,
        stop=lambda: asked.append(1) or len(asked) >= 7,
    )
    steps = list(steps)
    assert [step.number for step in steps] == [1, 2, 3, 4]
    assert [step.state.params is not None for step in steps] == [False, True, False, True]


def test_the_norm_is_that_of_all_leaves():
    config, state, _, _ = begun()
    placed = placement.replicated(np.array([9.0, *[1] * 7]), 3, 10)
    norms = in_process.run(
        [
            training.global_norm(
                decoder_parallel.of_rank(state.params, config, r, placed), config, r, placed
            )
            for r in range(3)
        ]
    )
    assert len(set(norms)) == 1
    np.testing.assert_allclose(norms[0], optim.global_norm(state.params), rtol=1e-12)


def test_what_is_not_finite_and_what_differs_is_told():
    _, state, _, plan = begun()
    state.params["embed"]["w"][:] = 1e300
    with pytest.raises(RankError, match="wanted"):
        list(training.train(state, plan(2), OPTIONS, training.in_this_process(2)))
    with pytest.raises(ValueError, match="micro_batches: wanted a whole number of at least 1"):
        trained("mixtral", 2, options=OPTIONS._replace(micro_batches=0))
    with pytest.raises(ValueError, match="ranks: wanted at most one per expert, 8, got 9"):
        training.placed_on(SMALL, 9)
