# %% [markdown]
# # 22 · Many processes: experts on several devices
#
# Afterwards you can divide a sparse layer among processes, say what each exchange between them
# carries, keep the result equal to the last bit for any number of processes, and estimate what the
# exchanges cost.
#
# Lesson 14 counted what Mixtral 8x7B needs to be trained with Adam: 747 GB. No device has that. Most
# of it are experts, and experts do not need each other: each can be on another device. This is called
# *expert parallelism*. The processes that share a model are numbered and called **ranks**.
#
# | symbol | in code | shape | meaning |
# |---|---|---|---|
# | $R$ | `R` | | ranks |
# | $N, D, H, E, k$ | `N, D, H, E, k` | | tokens of all ranks, their size, hidden units, experts, choices per token |
# | – | `tokens`, `places` | (R + 1,) | rank r has tokens `tokens[r]` to `tokens[r + 1]`, and experts likewise |
# | – | `rank_of` | (E,) | the rank that has each expert |
# | – | `sent[s][r]` | (n, ...) | what rank s sends to rank r |
# | – | `home`, `at` | (B,) | in the steps of section 2, for the B rows of an exchange: the rank of its token, the rank where it arrives |
# | $C$ | `C` | | capacity: the most tokens that an expert takes |
# | $\alpha, \beta$ | `alpha, beta` | | seconds per message; bytes per second |
# | $F$ | `F` | | operations per second of a device |

# %%
import matplotlib.pyplot as plt
import numpy as np

from moe_np import accounting, plots
from moe_np.coursework import self_check
from moe_np.layers import experts
from moe_np.parallel import cost, dropped, in_process, layer_step
from moe_np.parallel.exchanges import Gather, shares
from moe_np.routing import contract, switch, top_k
from moe_np.show import walk
from moe_np.show.view import view

plt.rcParams.update(plots.STYLE)


def problem(N=96, D=16, H=32, E=6, k=3, seed=0):
    """Tokens, E experts with a ReLU, and a routing of every token to k of them, in float32."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D)).astype(np.float32)
    params = experts.RELU.init(rng, D, E, H, dtype=np.float32)
    router = top_k.init(rng, D, E, dtype=np.float32)
    return params, x, top_k.route(router, x, k=k, renormalise=True)[0]


def one_expert(params, m, rows):
    """Expert m on some rows: (n, D) -> (n, D)."""
    h = np.maximum(rows @ params["w1"][m] + params["b1"][m], 0)
    return h @ params["w2"][m] + params["b2"][m]


# %% [markdown]
# ## 1. The layer in one process, and the same over ranks
#
# Tokens are divided among the ranks, because they come from different texts. Experts are divided
# among the ranks, because they do not fit on one. So a token and its expert are often on different
# ranks, and one of them has to travel.
#
# **Predict.** Of Mixtral, a token is a vector of 4,096 numbers, and an expert has
# $3 \cdot 4096 \cdot 14336$ parameters. Which of them travels? And how many times does a token
# cross the network in one forward pass of one layer?
#
# The exchange in which every rank sends something to every rank is called **all-to-all**. Think of a
# table: row s has what rank s sends, column r has what rank r gets. Rank s holds row s before the
# exchange; rank r holds column r after it. That is a transposed table, and one line of Python.


# %%
def all_to_all(sent):
    """sent[s][r], from rank s to rank r -> arrived[r][s], at rank r from rank s."""
    return [list(column) for column in zip(*sent, strict=True)]


def in_one_process(params, x, routing):
    """Expert by expert (lesson 10)."""
    out = np.zeros_like(x)
    for m in range(routing.demand.shape[1]):
        chosen = routing.expert == m
        token, weight = routing.token[chosen], routing.weight[chosen]
        out[token] += weight[:, None] * one_expert(params, m, x[token])
    return out


def over_ranks(params, x, routing, R, order_of_sum=None):
    """The same with tokens and experts on R ranks. What a rank does uses only what it has."""
    E = routing.demand.shape[1]
    tokens, places = shares(len(x), R), shares(E, R)
    rank_of = np.repeat(np.arange(R), np.diff(places))
    here = [(tokens[s] <= routing.token) & (routing.token < tokens[s + 1]) for s in range(R)]
    token = [routing.token[here[s]] - tokens[s] for s in range(R)]
    expert = [routing.expert[here[s]] for s in range(R)]
    weight = [routing.weight[here[s]] for s in range(R)]
    x_of = [x[tokens[s] : tokens[s + 1]] for s in range(R)]

    # dispatch: rows go to the ranks of their experts, and with them the numbers of the experts
    to = [[rank_of[expert[s]] == r for r in range(R)] for s in range(R)]
    rows = all_to_all([[x_of[s][token[s][to[s][r]]] for r in range(R)] for s in range(R)])
    numbers = all_to_all([[expert[s][to[s][r]] for r in range(R)] for s in range(R)])

    # each rank computes its own experts, and cuts the outputs into a piece per sender
    pieces = []
    for r in range(R):
        arrived, number = np.concatenate(rows[r]), np.concatenate(numbers[r])
        y = np.empty_like(arrived)
        for m in range(places[r], places[r + 1]):
            y[number == m] = one_expert(params, m, arrived[number == m])
        pieces.append(np.split(y, np.cumsum([len(part) for part in rows[r]])[:-1]))

    # combine: the outputs go home, and are added up there, expert by expert
    returned = all_to_all(pieces)
    out = []
    for s in range(R):
        y = np.empty((len(token[s]), x.shape[1]), x.dtype)
        for r in range(R):
            y[to[s][r]] = returned[s][r]
        total = np.zeros_like(x_of[s])
        for m in range(E) if order_of_sum is None else order_of_sum:
            chosen = expert[s] == m
            total[token[s][chosen]] += weight[s][chosen, None] * y[chosen]
        out.append(total)
    return np.concatenate(out)


params, x, routing = problem()
wanted = in_one_process(params, x, routing)
for R in (1, 2, 3, 4, 6):
    got = over_ranks(params, x, routing, R)
    print(f"{R} ranks: largest difference {np.abs(got - wanted).max()}")
    assert np.array_equal(got, wanted)

# %% [markdown]
# **Answer.** The token travels: it is 43,000 times smaller than the expert. It crosses the network
# twice for each of its $k$ experts, there and back, as far as the expert is on another rank. The
# weights stay at home, because the outputs are weighted and added up there.
#
# And the difference is 0, not $10^{-7}$. That is no accident; section 3 says what it takes.
#
# ## 2. Exchange by exchange
#
# In real programs a rank does not see what others send: it calls MPI or `torch.distributed` and
# waits. `moe_np.parallel` writes a rank as a **generator**, which stops at each exchange, says what
# it sends, and goes on when somebody puts in what arrived. The same source then runs in one process,
# under MPI, or here, one exchange at a time. The smallest example:


# %%
def sum_over_ranks(rank):
    """Every rank has a number; all want the sum."""
    gathered = yield Gather(np.array([10.0**rank]), "numbers")
    return sum(float(array[0]) for array in gathered)


print("every rank has", in_process.run([sum_over_ranks(rank) for rank in range(3)]))

# %% [markdown]
# Now a whole training step of a sparse layer: forward, backward, and the router's gradient. There are
# 12 tokens, 6 experts, 2 choices per token and 3 ranks.
#
# **Predict.** How many exchanges does this step have? Which of them carry rows of $D$ numbers? And
# which parameters' gradients have to be added up over ranks: those of the experts, those of the
# router, or both?

# %%
steps = walk.exchange(ranks=3)
next(steps)

# %% [markdown]
# Run the next cell until the states end, or use the slider below it. `counts[s, r]` is the number of
# rows from rank s to rank r.

# %%
next(steps)

# %%
view(steps)


# %%
def draw_exchanges(names):
    """The rows at the ranks where they arrive, in the colours of their homes."""
    states = {state.phase: state for state in walk.exchange(ranks=3)}
    _, axes = plt.subplots(1, len(names), figsize=(9, 3.4), sharey=True)
    for ax, name in zip(axes, names, strict=True):
        steps.draw(ax, states[name])
        ax.set_ylabel("rows that arrived" if name == names[0] else "")
    plt.show()


draw_exchanges(["dispatch", "combine"])
for state in walk.exchange(ranks=3):
    print(f"{state.phase:14s} rows from (line) to (column):", state["counts"].tolist())

# %% [markdown]
# **Answer.** Six. First the **counts**, one whole number per expert, so that every rank knows how many
# rows it has to wait for. Then **dispatch** and **combine** with rows of $D$ numbers, and in the
# backward pass the same two again: the gradient of an output takes the way of the input, and the
# gradient of an input goes home. The last one adds up the gradient of the **router**, of which every
# rank has a copy that saw only this rank's tokens.
#
# The experts need no sum: an expert saw *all* its tokens, whatever their home. Its gradient is
# complete where it is. Nor do the weights need an exchange: the gradient of $w_a$ is
# $\mathrm{dout}_n \cdot y_a$, and the output $y_a$ has come home already, in the first combine.
#
# (And the mean? Here the loss is one sum over the tokens of all ranks, and nothing is divided. Then
# who averages gradients over ranks makes all of them $R$ times too small. Many programs take on each rank
# the mean over *its* $N/R$ tokens, and average the router's gradient over ranks. Then the gradient of
# an expert must be divided by $R$ too, although no other rank has a part of it; where that is
# forgotten, experts learn with $R$ times the gradient.)
#
# In the dispatch rank 2 got 4 rows and rank 1 got 12. All wait for rank 1: **a step takes as long as
# the fullest rank**. This is what balance (lesson 09) is for.
#
# ## 3. Equal to the last bit
#
# A sum of floating-point numbers depends on its order, because each addition is rounded:
# $(a + b) + c \ne a + (b + c)$. So "the same up to rounding" is what most systems promise for another
# number of ranks. It is not enough to find bugs: a wrong gradient can hide in a tolerance.
#
# **Predict.** A token with $k$ experts gets a sum of $k$ rows. On many ranks the rows may arrive in any
# order. For $k = 2$, how many of the numbers differ in some bit between one order and another:
# none, some, most? And for $k = 3$?

# %%
for k in (2, 3, 4):
    case = problem(k=k)
    wanted = over_ranks(*case, R=3)
    got = over_ranks(*case, R=3, order_of_sum=[5, 4, 3, 2, 1, 0])
    differ = (got != wanted).mean()
    largest = np.abs(got - wanted).max()
    print(f"k = {k}: {differ:4.0%} of the outputs differ, at most by {largest:.0e}")
    assert (differ == 0) == (k == 2)

# %% [markdown]
# **Answer.** None for $k = 2$, because $a + b = b + a$ holds exactly. Whoever tests with $k = 2$, as
# Mixtral has it, cannot notice a wrong order. With three rows it shows.
#
# Four rules make the result independent of the ranks. Look for each of them in `over_ranks`:
#
# 1. Tokens and experts are divided in contiguous shares, in the order of the ranks.
# 2. An expert's rows are in the order of (sender, the sender's order), which is that of the tokens.
#    So its matrix products have the same shape and the same rows as in one process.
# 3. Outputs are added in the order of the experts' numbers, not in the order of arrival.
# 4. What all ranks have a part of, such as the router's gradient, is added up in a fixed order: over
#    *pieces* of the batch, whose number is an argument and does not depend on $R$.
#
# Here is the package's own step, forward and backward, as a hash of all bits of the outputs and
# gradients.

# %%
sizes = layer_step.Sizes(tokens=256, d_model=32, experts=8, hidden=64, k=3, pieces=8)
given = layer_step.problem(sizes, dtype=np.float32)
alone = layer_step.digest(layer_step.in_one_process(given))
print("one process:", alone)
for R in (1, 2, 3, 4, 7):
    results = in_process.run([layer_step.whole(given, rank, R) for rank in range(R)])
    digests = {layer_step.digest(result) for result in results}
    print(f"{R} ranks:    ", *digests)
    assert digests == {alone}

# %% [markdown]
# ## 4. The capacity is somebody's
#
# Each expert takes at most $C = \lceil \text{factor} \cdot N k / E \rceil$ tokens (lesson 10). Over how
# many tokens is that counted? In GShard and Switch, over those of one rank: a rank cannot know what
# the others send. But tokens of a rank are alike, if the documents are.
#
# **Predict.** 2,048 tokens of documents on 8 topics, sorted by topic; 8 experts, factor 1.25. On one
# rank 18 % of the tokens are dropped. Are the *same* tokens, with the *same* router, dropped more or
# less on 8 ranks? And if the documents are shuffled first?


# %%
def dropped_share(params, x, R, factor=1.25):
    """The share of tokens that Switch drops where each of R ranks has its own capacity."""
    kept = 0
    for rank in np.split(x, shares(len(x), R)[1:-1]):
        choice = (rank @ params["w"]).argmax(axis=1)
        E = params["w"].shape[1]
        C = contract.capacity(len(rank), E, 1, factor)
        kept += np.minimum(np.bincount(choice, minlength=E), C).sum()
    return 1 - kept / len(x)


def draw_dropped(ranks, curves):
    _, ax = plt.subplots(figsize=(6.5, 3.4))
    for colour, (name, values) in zip((plots.ORANGE, plots.BLUE), curves.items(), strict=True):
        ax.plot(ranks, [100 * v for v in values], "o-", color=colour, linewidth=2)
        ax.text(ranks[-1] * 1.07, 100 * values[-1], name, color=colour, va="center")
    ax.set_xscale("log", base=2)
    ax.set_xticks(ranks, [str(R) for R in ranks])
    ax.set(xlabel="ranks, each with its own capacity", ylabel="dropped tokens, %")
    ax.set(ylim=(0, 55), xlim=(0.9, 22))
    plt.show()


rng = np.random.default_rng(0)
documents = dropped.documents(rng)  # (2048, 32), documents of one topic one after the other
gate = switch.init(rng, 32, 8)
shuffled = rng.permutation(documents)
ranks = (1, 2, 4, 8)
curves = {
    "sorted": [dropped_share(gate, documents, R) for R in ranks],
    "shuffled": [dropped_share(gate, shuffled, R) for R in ranks],
}
draw_dropped(ranks, curves)
print("ranks    ", *(f"{R:7d}" for R in ranks))
for name, values in curves.items():
    print(f"{name:9s}", *(f"{v:7.1%}" for v in values))

package = dropped.dropped_shares(switch, gate, documents, {"capacity_factor": 1.25}, ranks)
np.testing.assert_allclose(curves["sorted"], [row.dropped for row in package])
assert curves["sorted"][-1] > 2 * curves["sorted"][0]

# %% [markdown]
# **Answer.** Much more: 42 % against 18 %. The batch as a whole is as balanced as before, but a rank
# whose documents are all of one topic wants one expert, and the places that are free for it on other
# ranks are out of reach. Shuffled, nothing changes.
#
# So a published "capacity factor 1.25" says little without the number of tokens that it is counted
# over, and a model that is moved to more devices is another model. The same holds for the balance
# loss, which asks every *rank* to use all experts, or the *batch* to do so (Qiu and others 2025,
# arXiv 2501.11873). In `moe_np.parallel.groups` the group is an argument.
#
# ## 5. What it costs
#
# A message takes a fixed time and a time per byte. In an all-to-all among $R$ ranks, a rank sends
# $R - 1$ messages, and keeps its own share of $1/R$:
#
# $$ T = \alpha\,(R - 1) + \left(1 - \frac{1}{R}\right) \frac{\text{bytes}}{\beta} . $$
#
# A rank with $n$ tokens sends $n k D$ numbers of $b$ bytes, four times in a training step (dispatch
# and combine, forward and back). In the same step it computes, of experts with three matrices,
# $2 \cdot 3 D H$ operations per row forward and twice as many backward: $18\,n k D H / F$ seconds.
#
# **Predict.** Divide the two, leaving $\alpha$ aside. Which of $n$, $k$, $D$ and $H$ are left? So: do
# many small experts (DeepSeek-V3, $H = 2048$) cost more or less communication, per operation, than
# few large ones (Mixtral, $H = 14336$)?

# %%
alpha, beta, F, b = 5e-6, 25e9, 125e12, 2  # an A100 with 25 GB/s between the machines; bfloat16


def seconds(n, k, D, H, R):
    """Messages and computing of a training step of one layer, per rank."""
    messages = 4 * (alpha * (R - 1) + (1 - 1 / R) * n * k * D * b / beta)
    return messages, 18 * n * k * D * H / F


print("                     H      D   k   messages  computing  ratio")
for name, D, H, k, R in (("Mixtral 8x7B", 4096, 14336, 2, 8), ("DeepSeek-V3", 7168, 2048, 8, 64)):
    messages, computing = seconds(4096, k, D, H, R)
    print(f"{name:16s} {H:6d} {D:6d} {k:3d}", end=" ")
    print(f"{messages:8.1e} s {computing:8.1e} s {messages / computing:6.2f}")

for H in (2048, 14336):  # the ratio with α = 0 and many ranks, as in the package
    assert np.isclose(4 * b * F / (18 * H * beta), cost.wire_share(H, cost.Machine()))


def draw_ratio():
    hidden = np.geomspace(512, 32768, 50)
    _, ax = plt.subplots(figsize=(7, 3.6))
    for wire, text, colour in (
        (25e9, "25 GB/s, between machines", plots.BLUE),
        (300e9, "300 GB/s, within one", plots.GREEN),
    ):
        ratio = 4 * b * F / (18 * hidden * wire)
        ax.loglog(hidden, ratio, color=colour, linewidth=2)
        ax.text(540, ratio[0] * 0.55, text, color=colour, va="top", rotation=-24)
    for name, H in (("DeepSeek-V3", 2048), ("Mixtral", 14336)):
        y = 4 * b * F / (18 * H * beta)
        ax.plot(H, y, "o", color=plots.BLACK)
        ax.text(H * 1.1, y * 1.15, name)
    ax.axhline(1, color=plots.GREY, linestyle="--")
    ax.set(xlabel="H, hidden units of an expert", ylabel="messages / computing")
    plt.show()


draw_ratio()

# %% [markdown]
# **Answer.** Only $H$ is left, with the machine: $4bF / (18 H \beta)$. A row that travels is worth $H$
# operations per number. **Fine-grained experts buy their quality with communication.** On this machine
# DeepSeek-V3 would spend as long on messages as on computing. (Its report, arXiv 2412.19437, says what
# was done about it: 8 bits per number, and each token goes to few machines.)
#
# Is it worth it? Compare with the two other ways to use many devices. *Data parallelism*: each device
# has the whole model, and gradients of all parameters are added up. *Tensor parallelism*: every matrix
# is divided among all devices, and activations are added up after each layer.
#
# **Predict.** Which of the three needs the least memory per device? Which one has the shortest
# messages inside one machine of 8 devices, and which one on 64 devices in 8 machines?

# %%
machine = cost.Machine()
for devices in (8, 64):
    print(f"Mixtral 8x7B, a training step on {devices} devices, 8 to a machine, 4,096 tokens each")
    for plan in cost.plans("mixtral-8x7b", devices, machine):
        print(
            f"  {plan.name:7s} {plan.seconds:5.1f} s, of which messages {plan.share:4.0%}; "
            f"{plan.memory / 1e9:4.0f} GB per device"
        )
expert_plan = cost.plans("mixtral-8x7b", 64, machine)[2]
assert expert_plan.name == "expert"
assert expert_plan.seconds == min(plan.seconds for plan in cost.plans("mixtral-8x7b", 64, machine))
assert expert_plan.memory < accounting.count("mixtral-8x7b").memory["adam"] / 6

# %% [markdown]
# **Answer.** Tensor parallelism divides everything and needs the least memory, but its sums are slow
# between machines. Data parallelism adds up 46.7 billion gradients in every step, of which each device
# used little. Expert parallelism has the shortest messages in both cases, and on 64 devices it is the
# only one of the three that spends more time on computing than on messages. (Why 116 GB in both cases?
# Mixtral has 8 experts per layer. On 64 devices each of them has eight copies, called *replicas*, and
# each replica sees other tokens. So here the gradients of an expert do have a sum: over its replicas.)
# Real systems mix the three:
# experts over many devices, attention by data or tensor parallelism inside of a machine.
#
# It is a model, not a measurement: no messages collide, nothing overlaps, every device has the same load.
# It says which term is large. `python3 run.py moe-np cost mixtral-8x7b --devices 64` prints the same
# for any machine, and `moe-np run published_systems` sets it beside published times.
#
# And for real? `python3 run.py moe-np parallel --ranks 4 --check` runs the step of section 3 in four
# processes under MPI, where there is one, and compares all bits with one process.
#
# ## Your turn
#
# Rule 2. A rank has `m` experts. `counts[s, j]` is the number of rows that rank s sent for its expert
# j. The rows arrived by sender, and those of one sender by expert. Find `place`, so that
# `arrived[place]` is sorted by expert, and within an expert by sender, in the order in which the
# sender had them.


# %%
def by_expert_then_sender(counts):
    """counts (R, m), whole numbers -> place (number of rows,)."""
    # your code here
    return None


def reference(counts):
    expert = np.repeat(np.tile(np.arange(counts.shape[1]), len(counts)), counts.ravel())
    return np.argsort(expert, kind="stable")


def cases(rng):
    tables = [rng.integers(0, 4, size=(R, m)) for R, m in ((1, 3), (2, 2), (3, 2), (4, 5))]
    return [(table,) for table in (np.array([[2, 1], [1, 2]]), *tables, np.zeros((3, 2), int))]


self_check(by_expert_then_sender, reference, cases)

# %% [markdown]
# ## Exercises
#
# 1. **Change the code.** In `over_ranks`, experts are placed in contiguous shares. Place them in
#    turn instead: expert m on rank m mod R. Which lines change? Are the bits still equal to one
#    process, and why is no rule broken?
# 2. **Derive.** GShard's experts have two matrices, with ReLU. What becomes of $4bF / (18 H \beta)$?
#    And in inference, without a backward pass? How wide would a SwiGLU expert have to be so that
#    messages over 25 GB/s are 10 % of computing?
# 3. **Break it.** A rank without tokens has nothing to send, so somebody lets it return before the
#    exchange. Write `sum_over_ranks` so that rank 1 does this, and run three ranks. What does
#    `in_process.run` say? What would happen under MPI?
#
# Solutions: `lessons/solutions/22_many_processes.py`.
#
# Next: [23, when sparse wins](23_when_sparse_wins.ipynb).
