# %% [markdown]
# # 21 · After training: copy, remove, merge, distil, fine-tune
#
# Afterwards you can turn a dense model into one with experts that gives the same answers, take experts out again, merge
# them, and teach a small model by a large one; and you know for each of these steps what is *exactly* equal and what is
# only hoped for.
#
# Training a large model costs millions, so nobody begins anew for every purpose. Articles tell of many ways to change a
# trained mixture, and mostly of their results. We ask first what must hold to rounding. It is a test that costs
# nothing, and it finds the line that is wrong before any result is believed.
#
# | symbol | in code | shape | meaning |
# |---|---|---|---|
# | $F$ | `network` | | the feed-forward net of a dense layer |
# | $N, D, H, E, k$ | | | tokens, features, hidden units, experts, choices per token |
# | $w_i$ | `weight` | (N, k) | the weight of a chosen expert |
# | $p, q$ | `p, q` | (N, V) | probabilities of the next token: of the student, of the teacher |
# | $V$ | | | tokens in the vocabulary |
# | $s$ | `soft` | | share of the teacher's probabilities in the targets |

# %%
import matplotlib.pyplot as plt
import numpy as np

from moe_np import plots
from moe_np.adapt import distillation, fine_tuning, layer_parts, merging, removing, upcycling
from moe_np.base.machine import one_blas_thread
from moe_np.base.numerics import softmax
from moe_np.coursework import self_check
from moe_np.data.text import bible
from moe_np.data.text.windows import random_windows
from moe_np.language import corpus, shipped_model
from moe_np.layers import experts, sparse_layer
from moe_np.models import decoder
from moe_np.models.decoder_config import Config
from moe_np.routing import top_k
from moe_np.show.steps import Steps, state
from moe_np.show.view import view
from moe_np.training import loop

plt.rcParams.update(plots.STYLE)

# %% [markdown]
# ## 1. A dense net becomes eight experts
#
# **Upcycling** (Komatsuzaki and others 2022, arXiv 2212.05055): every expert begins as a copy of the feed-forward net $F$,
# and the router is new, that is random. A token then goes to $k$ copies of the same net:
#
# $$ y = \sum_i w_i\,F(x) = F(x) \sum_i w_i . $$
#
# **Predict.** The router is random. For which of these weights is the output equal to $F(x)$: (a) a softmax over the two
# chosen logits, as in Mixtral; (b) the two probabilities as they are; (c) the one probability of Switch, $k = 1$? How far
# off are the others with eight experts?

# %%
rng = np.random.default_rng(0)
N, D, H, E = 6, 4, 8, 8
x = rng.normal(size=(N, D))
network = experts.SWIGLU.init(rng, D, 1, H)  # one net: arrays (1, ...)
copies = {name: np.repeat(p, E, axis=0) for name, p in network.items()}
gate = {"w": 0.3 * rng.normal(size=(D, E))}


def upcycled():
    """The way from F(x) to the output of eight copies, as states."""
    dense, _ = experts.SWIGLU.forward(network, x, np.array([0, N]))
    before = state("dense", r"F(x)", {"F": dense})
    yield before
    probs = softmax(x @ gate["w"])
    before = state("probabilities", r"p = \mathrm{softmax}(x w)", {"p": probs}, before=before)
    yield before
    chosen = np.argsort(-probs, axis=1)[:, :2]
    kept = np.take_along_axis(probs, chosen, axis=1)
    before = state("as they are", r"w_i = p_i", {"weight": kept}, before=before)
    yield before
    sums = kept.sum(axis=1, keepdims=True)
    before = state("output", r"y = F \sum_i w_i", {"y": dense * sums}, before=before)
    yield before
    weight = kept / sums
    before = state("renormalised", r"w_i = p_i / \sum_j p_j", {"weight": weight}, before=before)
    yield before
    y = dense * weight.sum(axis=1, keepdims=True)
    yield state("output", r"y = F \sum_i w_i", {"y": y}, before=before)


steps = Steps(upcycled())
next(steps)

# %%
next(steps)

# %%
view(steps)

# %%
dense_out, dense_cache = experts.SWIGLU.forward(network, x, np.array([0, N]))
for name, k, renormalise in (("Mixtral", 2, True), ("as they are", 2, False), ("Switch", 1, False)):
    routing, _ = top_k.route(gate, x, k=k, renormalise=renormalise)
    out, cache = sparse_layer.forward(copies, x, routing, experts.SWIGLU)
    ratio = out / dense_out
    print(f"{name:12s} y / F(x) from {ratio.min():.3f} to {ratio.max():.3f}")
    assert np.allclose(ratio, 1) == (name == "Mixtral")

# %% [markdown]
# **Answer.** Only (a). With Switch's weight the layer is three to six times too small at the first step. Nothing
# crashes, the loss goes down again, and a part of what was paid for is lost. (Hence the paper normalises the weights.)
#
# A second thing is exact. Each copy gets a part of the tokens, with a weight. **Together their gradients are the gradient
# of the dense net**:

# %%
routing, _ = top_k.route(gate, x, k=2, renormalise=True)
out, cache = sparse_layer.forward(copies, x, routing, experts.SWIGLU)
dout = rng.normal(size=out.shape)
_, of_copies, _ = sparse_layer.backward(dout, cache)
_, of_network = experts.SWIGLU.backward(dout, dense_cache)
for name, g in of_network.items():
    assert np.allclose(of_copies[name].sum(axis=0), g[0])
print("the gradients of the copies add up to that of the net: yes")
print("tokens per copy:", np.bincount(routing.expert, minlength=E))

# %% [markdown]
# So the copies part *only* because they get different tokens. With $k = E$ and equal weights they would stay
# equal (lesson 12).
#
# Now a whole model. We train a small dense decoder on the King James Bible, upcycle it, and let both go on for as many
# updates, beside a model with experts that begins anew.
#
# **Predict.** After 100 further updates: which is best of dense, upcycled and new? And which one would be best after a
# hundred times as many?

# %%
shipped, tokeniser = shipped_model.load()
text = corpus.shipped()
english = np.array(tokeniser.encode(text.train[:200_000]))
unseen = np.array(tokeniser.encode(text.validation[:9_000]))  # books that no model has read


def cut(tokens, n, length=64):
    """n windows one after the other: ids and targets (n, length)."""
    return tokens[: n * length].reshape(n, length), tokens[1 : n * length + 1].reshape(n, length)


def held_out(config, params, tokens=unseen):
    """Nats per token on 1,024 tokens."""
    return fine_tuning.held_out_loss(config, params, *cut(tokens, 16))


def train(config, params, updates, learning_rate, length=32):
    """Ordinary training, as in every lesson: minibatch, gradients, update."""

    def gradients_of(params, minibatch, rng):
        return decoder.loss_and_grads(params, *minibatch, config)

    def minibatch_of(rng):
        return random_windows(english, rng, batch=8, length=length)

    options = loop.Options(updates=updates, learning_rate=learning_rate, warmup=10)
    begun = loop.initial_state(params)
    with one_blas_thread():  # small matrices: several threads only wait for each other
        for step in loop.train(begun, gradients_of, minibatch_of, options):
            if step.number % 100 == 0:
                print(f"    update {step.number}: loss {step.losses.task:.2f}", flush=True)
    return step.state.params


small = Config(
    *(1024, 32, 2, 2, 2, 16),  # vocabulary, features, layers, heads, heads of keys, their width
    **{"experts": 1, "hidden": 64, "context": 64, "tied": True},
)
print("a dense model, about three seconds")
dense = train(small, decoder.init(np.random.default_rng(0), small), 200, 1e-2)
sparse_config, sparse = upcycling.upcycle(small, dense, experts=8, rng=np.random.default_rng(1))
switch_like = {"k": 2, "renormalise": False}
unnormalised_config, unnormalised = upcycling.upcycle(
    small, dense, experts=8, rng=np.random.default_rng(1), options=switch_like
)
print(
    f"dense {held_out(small, dense):.6f}, upcycled {held_out(sparse_config, sparse):.6f}, ", end=""
)
print(f"not renormalised {held_out(unnormalised_config, unnormalised):.6f}")
assert np.isclose(held_out(small, dense), held_out(sparse_config, sparse), atol=1e-5)
assert upcycling.exact(sparse_config) and not upcycling.exact(unnormalised_config)

# %% [markdown]
# The first two losses are equal to the last printed digit, the third is not. (It differs by little, because a residual
# goes past every layer, and this small model has learned little that is in its layers.)

# %%
print("three times 100 updates, about three seconds")
fresh = decoder.init(np.random.default_rng(3), sparse_config)
after = {
    "dense goes on": held_out(small, train(small, dense, 100, 3e-3)),
    "upcycled": held_out(sparse_config, train(sparse_config, sparse, 100, 3e-3)),
    "experts, begun anew": held_out(sparse_config, train(sparse_config, fresh, 100, 1e-2)),
}
for name, loss in after.items():
    print(f"{name:20s} {loss:.3f} nats per token")
assert after["upcycled"] < after["experts, begun anew"]

# %% [markdown]
# **Answer.** Upcycled and dense are close together, and the new one is far behind, since it has to pay for the first 200
# updates as well. That is the purpose of upcycling: it saves what was spent. How long the lead lasts is disputed:
# Komatsuzaki and others (2022) report more than the whole price of the dense model, OLMoE (Muennighoff and others 2024,
# arXiv 2409.02060) that the new one catches up after a quarter of it. `moe-np run upcycling` draws the curves, with
# intervals over seeds; a single run as here proves nothing about a difference of some hundredths.
#
# ## 2. Take experts out
#
# The small Mixtral of this package has 4 layers of 8 experts. To remove an expert is two lines: its arrays, and its
# column of the router. The weights of the others are renormalised over what is left.


# %%
def without(layer, gone):
    """A layer without one expert."""
    stay = [m for m in range(len(layer["experts"]["w1"])) if m != gone]
    of_experts = {name: p[stay] for name, p in layer["experts"].items()}
    return {**layer, "experts": of_experts, "router": {"w": layer["router"]["w"][:, stay]}}


def outputs(layer, h):
    routing, _ = top_k.route(layer["router"], h, k=2, renormalise=True)
    return sparse_layer.forward(layer["experts"], h, routing, experts.SWIGLU)[0]


config, params = shipped.config, shipped.params
some_text, _ = cut(english, 16)  # 1,024 tokens
seen = layer_parts.on_text(config, params, some_text)  # what each layer reads and chooses
h, layer = seen[3].h, params["layers"][3]
wants_5 = seen[3].routing.demand[:, 5]
change = np.abs(outputs(without(layer, 5), h) - outputs(layer, h)).max(axis=1)
print(f"expert 5 of the last layer is removed; {wants_5.sum()} of {len(h)} tokens had chosen it")
print(
    f"largest change: {change[wants_5].max():.2f} for these, {change[~wants_5].max():.1e} for the others"
)
assert change[~wants_5].max() < 1e-5 < change[wants_5].max()

# %% [markdown]
# That is the exact part: **who did not want the expert does not notice**. (Only with renormalised weights. Otherwise the
# softmax over fewer experts makes all weights larger.)
#
# For the others it matters *which* expert goes. Three rules: keep those that are **used** most; keep the set that changes
# the **output** of the layer least on a text (Lu and others 2024, arXiv 2402.14800); or draw lots, as a control.
#
# And a fourth way: **merge** experts in place of removing them. Their mean makes sense only after one thing is put right.
# A net whose hidden units stand in another order is the same function, and the mean of two such nets is not.
#
# **Predict.** Two copies of one expert, the second with its hidden units shuffled. How far is their mean from the
# expert: equal, 10 % off, or useless?

# %%
expert = layer_parts.expert_of(layer, 0)  # {w1 (D, H), w3 (D, H), w2 (H, D)}
order = np.random.default_rng(0).permutation(config.hidden)
shuffled = {"w1": expert["w1"][:, order], "w3": expert["w3"][:, order], "w2": expert["w2"][order]}


def output_of(expert, h):
    return experts.SWIGLU.forward(
        {n: p[None] for n, p in expert.items()}, h, np.array([0, len(h)])
    )[0]


def error(expert_):
    return np.linalg.norm(output_of(expert_, h) - output_of(expert, h)) / np.linalg.norm(
        output_of(expert, h)
    )


naive = {name: (expert[name] + shuffled[name]) / 2 for name in expert}
back = merging.alignment(shuffled, expert)  # which unit of `shuffled` is most like each of `expert`
aligned = {name: (expert[name] + merging.permuted(shuffled, back)[name]) / 2 for name in expert}
print(
    f"shuffled: {error(shuffled):.0e}, mean: {error(naive):.2f}, mean after alignment: {error(aligned):.0e}"
)
assert error(shuffled) < 1e-5 and error(naive) > 0.5 and error(aligned) < 1e-5
assert np.array_equal(order[back], np.arange(config.hidden))

# %% [markdown]
# **Answer.** Useless: off by most of its length. After the units are matched, the mean of a thing with itself is itself.
# For *different* experts the match is the best there is, and not exact.
#
# **Predict.** From 8 to 6 and to 4 experts per layer, without any training afterwards. Put four ways in order: by use, by
# the layer's output, at random, merged. Is "keep what is used most" better than drawing lots?

# %%
print("about three seconds; nats per token on unseen books")
before = held_out(config, params)
ways = {way: [before] for way in ("by use", "by output", "at random", "merged")}
for keep in (6, 4):
    for way, by in (("by use", "use"), ("by output", "loss")):
        ways[way].append(held_out(*removing.prune(config, params, keep=keep, by=by, ids=some_text)))
    lots = [
        held_out(
            *removing.prune(config, params, keep=keep, by="random", rng=np.random.default_rng(i))
        )
        for i in range(4)
    ]
    ways["at random"].append(np.mean(lots))
    print(f"{keep} left, four draws of lots:", *(f"{loss:.2f}" for loss in lots))
    groups, use = merging.groups_by_use(config, params, some_text, keep=keep)
    ways["merged"].append(held_out(*merging.merge_groups(config, params, groups, use)))
    print(
        f"{keep} left:",
        *(f"{way} {losses[-1]:.2f}" for way, losses in ways.items()),
        sep="   ",
        flush=True,
    )


def draw_ways():
    _, ax = plt.subplots(figsize=(7, 3.8))
    for (way, losses), colour in zip(ways.items(), plots.COLOURS, strict=False):
        ax.plot((8, 6, 4), losses, "o-", color=colour, linewidth=2, label=way)
    ax.set(xlabel="experts per layer that are left", ylabel="nats per token")
    ax.set_xticks((8, 6, 4))
    ax.invert_xaxis()
    ax.legend(frameon=False)
    plt.show()


draw_ways()
assert ways["by use"][1] > before

# %% [markdown]
# **Answer.** For this model "use" is the *worst* of the four, worse than the mean of the lots. Its router was trained to be balanced, so no expert
# is idle, and one that few tokens choose may be one that those tokens cannot do without. The rule that looks at the outputs
# is better than use, but no better than the mean of four draws of lots, which lie far apart. (A rule that was never
# compared with lots has not been tested.) All ways cost more here than in large models: Lu and others lose 2.9 points
# of accuracy when 2 of Mixtral's 8 experts go. `moe-np run changing_experts` has more seeds, and training afterwards.
#
# ## 3. Distil
#
# A small **student** learns from a large **teacher**: not only which token came next, but all of the teacher's
# probabilities $q$. Fedus et al. (2021) mix both, with $s = 0.25$:
#
# $$ \text{loss} = (1 - s)\,(-\log p_{\text{target}}) + s \Big(-\sum_v q_v \log p_v\Big) $$
#
# **Predict.** What is the gradient of the second part with respect to the student's logits? (You know it for one hot
# target: $p$ minus the target.) At which $p$ is it 0?

# %%
logits = rng.normal(size=(5, 7))
teacher = rng.normal(size=(5, 7))
target = np.array([0, 3, 6, 1, 2])
_, loss_cache = distillation.loss_forward(logits, target, teacher, soft=1.0)
p, q = softmax(logits), softmax(teacher)
assert np.allclose(distillation.loss_backward(1.0, loss_cache), (p - q) / len(logits))
_, loss_cache = distillation.loss_forward(teacher, target, teacher, soft=1.0)
print("gradient at p = q:", np.abs(distillation.loss_backward(1.0, loss_cache)).max())

# %% [markdown]
# **Answer.** $p - q$, over the number of tokens: the same as ever, with soft targets.
#
# The student here is dense, with the operations of the teacher. It can begin anew, or with everything of the teacher that
# is not an expert: embedding, attention, norms. In most reports both come together with the soft targets. So we need a
# **control**: copied weights and *no* distillation.
#
# **Predict.** Which of the two does more: copying weights, or soft targets?

# %%
print("six times 30 updates, about three seconds")
ways_to_teach = {"anew": ("new", 0.0), "copied": ("copied", 0.0), "copied, soft": ("copied", 0.25)}
taught = {name: [] for name in ways_to_teach}
for name, (way, soft) in ways_to_teach.items():
    for seed in (0, 1):
        student_config, student = distillation.student(
            way, config, params, rng=np.random.default_rng(seed)
        )

        def gradients_of(params_, minibatch, rng, soft=soft, config_=student_config):
            return distillation.loss_and_grads(
                params_, *minibatch, config_, teacher=(config, params), soft=soft
            )

        def minibatch_of(rng):
            return random_windows(english, rng, batch=4, length=32)

        options = loop.Options(updates=30, learning_rate=3e-3, warmup=10, seed=seed)
        begun = loop.initial_state(student)
        with one_blas_thread():
            *_, step = loop.train(begun, gradients_of, minibatch_of, options)
        taught[name].append(held_out(student_config, step.state.params))
    print(f"{name:14s}", *(f"{loss:.3f}" for loss in taught[name]), "nats per token", flush=True)
print(f"{'teacher':14s} {before:.3f}")
assert max(taught["copied"]) < min(taught["anew"])

# %% [markdown]
# **Answer.** Copying, by far, after so few updates. The soft targets add a little on top. A report without the control
# would have given all of it to distillation. (In Fedus et al.'s Table 6 the control comes out the other way: copied weights
# without distillation are no better than none. That is what a control is for; `moe-np run distillation` has all rows.)
#
# ## 4. Fine-tune
#
# The model has never seen Spanish. We give it 1,024 tokens of the same Bible in Spanish, 30 updates, and train all
# parameters, all but the experts, or the experts with their router alone. What is *frozen* gets the gradient 0 and keeps its
# bits.
#
# **Predict.** Three losses: on the 1,024 tokens themselves, on other Spanish books, and on English. Which will go down,
# which up? Which subset forgets English least?

# %%
print("three times 30 updates, about three seconds")
split = bible.split()
spanish = np.array(tokeniser.encode(bible.running_text(split.train, "spanish")[:4_000]))
spanish_unseen = np.array(tokeniser.encode(bible.running_text(split.validation, "spanish")[:9_000]))
few = cut(spanish, 16)
at_first = [fine_tuning.held_out_loss(config, params, *few)]
at_first += [held_out(config, params, spanish_unseen), held_out(config, params)]
curves = {}
for subset in ("all", "all but experts", "experts"):
    trained = fine_tuning.trained_leaves(config, params, fine_tuning.SUBSETS[subset])

    def gradients_of(params_, minibatch, rng, trained=trained):
        losses, grads = decoder.loss_and_grads(params_, *minibatch, config)
        return losses, fine_tuning.frozen(grads, trained)

    minibatch_of = fine_tuning.minibatches(*few, batch=8)
    options = loop.Options(updates=30, learning_rate=5e-3, warmup=5)
    curves[subset] = [(0, *at_first)]
    with one_blas_thread():
        for step in loop.train(
            *(loop.initial_state(params), gradients_of, minibatch_of, options),
            decays=fine_tuning.decays(trained),
        ):
            if step.number % 10 == 0:
                now = step.state.params
                on_few = fine_tuning.held_out_loss(config, now, *few)
                others = held_out(config, now, spanish_unseen), held_out(config, now)
                curves[subset].append((step.number, on_few, *others))
    print(
        f"{subset:16s} trained on {curves[subset][-1][1]:.2f}, Spanish {curves[subset][-1][2]:.2f}, ",
        end="",
    )
    print(f"English {curves[subset][-1][3]:.2f}", flush=True)
    same = np.array_equal(now["layers"][0]["experts"]["w1"], params["layers"][0]["experts"]["w1"])
    assert same == (subset == "all but experts")  # frozen: equal to the bit


def draw_fine_tuning():
    _, axes = plt.subplots(1, 3, figsize=(10, 3.3), sharey=True)
    titles = ("trained on", "Spanish, unseen", "English, unseen")
    for place, (ax, title) in enumerate(zip(axes, titles, strict=True), start=1):
        for (subset, rows), colour in zip(curves.items(), plots.COLOURS, strict=False):
            numbers, losses = [row[0] for row in rows], [row[place] for row in rows]
            ax.plot(numbers, losses, color=colour, linewidth=2, label=subset)
        ax.set(title=title, xlabel="updates")
    axes[0].set_ylabel("nats per token")
    axes[0].legend(frameon=False, fontsize=11)
    plt.show()


draw_fine_tuning()
final = {subset: rows[-1] for subset, rows in curves.items()}
assert final["all"][1] < min(row[2] for row in curves["all"]) < final["all"][2]
assert final["experts"][3] < final["all"][3]

# %% [markdown]
# **Answer.** The 1,024 tokens are learned by heart (left), while Spanish that was not seen gets better for some ten
# updates and then worse: overfitting, and the reason for *early stopping*. English is forgotten on the way. Who trains
# the experts alone forgets least, because attention, embedding and norms stay as they were.
#
# Do mixtures overfit *more* than dense models when fine-tuned, as articles say? This cell cannot tell: there is no dense
# model in it, one seed, one learning rate. `moe-np run fine_tuning` has them, tuned alike for both.
#
# ## Your turn
#
# The gradient of the distillation loss with respect to the student's logits, for hard and soft targets together. The loss
# is the mean over tokens.


# %%
def distillation_gradient(logits, targets, teacher, soft):
    """logits and teacher's logits (N, V), targets (N,) whole numbers -> dlogits (N, V)."""
    # your code here
    return None


def reference(logits, targets, teacher, soft):
    _, cache = distillation.loss_forward(logits, targets, teacher, soft=soft)
    return distillation.loss_backward(1.0, cache)


def cases(rng):
    for N, V, soft in ((4, 5, 0.25), (1, 3, 1.0), (6, 4, 0.0), (3, 2, 0.5)):
        yield rng.normal(size=(N, V)), rng.integers(0, V, N), 3 * rng.normal(size=(N, V)), soft


self_check(distillation_gradient, reference, cases)

# %% [markdown]
# ## Exercises
#
# 1. **Change the code.** Split instead of copy: make of every expert of a layer two finer ones with half of the hidden units
#    each, and let a token choose four in place of two. What must happen to `w2`, and to the router, so that the outputs
#    are equal? Show it on `h` of section 2.
# 2. **Derive.** With a temperature $T$, $p(T) = \mathrm{softmax}(\text{logits}/T)$ and $q(T)$ likewise. Derive the gradient of the soft
#    part. Why is the loss multiplied by $T^2$? (Look at large $T$, where $e^{a/T} \approx 1 + a/T$.)
# 3. **Break it.** Merge the eight experts of each layer into one *without* alignment, and with it, and measure both
#    (`merging.to_dense`, `align=False`). Then do the same with an upcycled model whose experts you shuffle. Why is the
#    answer so different?
#
# Solutions: `lessons/solutions/21_after_training.py`.
#
# Next: [22, many processes](22_many_processes.ipynb).
