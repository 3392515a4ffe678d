# %% [markdown]
# # Assignment 5: four clusters, and who gets them
#
# You repeat, from the data to the table, the experiment of Chen, Deng, Wu, Gu and Li (2022) that shows experts dividing
# the work: eight experts, four hidden clusters, and one number that says whether they found them. Then you explain what
# you saw. It follows lesson 12; allow three to four hours.
#
# **What to do.** Seven functions have a body to write, where it says `# YOUR CODE HERE`. Keep their names and
# arguments. The cell under each holds visible checks: run it, and no error means they pass. All checks at once, as
# in grading: `moe-np coursework check 5_clusters.ipynb`. The last question wants an answer in words.
#
# **What is graded.** Each function by itself, on other inputs than you see here, drawn anew for each grading: other
# shapes, experts without samples, large logits. 22 points: samples 2, experts 2, their gradient 3, routing 2, the
# router's gradient 3, training 4, measuring 2, and 4 for the explanation, which is marked by hand. A question gives
# points in proportion to the hidden inputs that are answered right, in half points, and none below half of them.
# Results count as right within a relative 1e-4 (2e-3 for training), so float32 will do. A function must not change its
# inputs, and must answer within seconds (gradients by differences of the loss would take minutes).
#
# **What may be imported.** NumPy, Matplotlib, and of this package `moe_np.base.checks` and `moe_np.base.gradcheck`. Nothing else
# of `moe_np` exists where your work is graded. Each function is graded alone, so if you call one of your own functions
# from another, a mistake in it costs both. (In question 6 it may be worth it.)
#
# | paper | code | shape | meaning |
# |---|---|---|---|
# | $x^{(1)} \ldots x^{(P)}$ | `x` | (N, P, D) | the patches of N samples |
# | $y$ | `y` | (N,) | class 0 or 1; −1 or +1 where it stands in a product |
# | $k$ | `cluster` | (N,) | the cluster of each sample, which nobody is told |
# | $v_k, c_k$ | `features`, `centers` | (K, D) | signal and centre of each cluster |
# | $w_{m,j}$ | `w` | (E, 2J, D) | filters of E experts: **the first J are for class 0, the last J for class 1** |
# | $\theta_m$ | `theta` | (E, D) | the router |
# | $h_m$ | `h` | (N, E) | its logits, before any noise |
# | $r_m$ | `noise` | (N, E) | uniform numbers on [0, 1), for the choice alone |
# | $m_n$ | `expert` | (N,) | the one expert that each sample goes to |
# | $\pi_n$ | `weight` | (N,) | what multiplies that expert's output |
#
# This is the paper's algorithm: softmax gate, one cross-entropy, no biases. (Lesson 12 says what its code does instead.)

# %% given="setup"
import numpy as np

from moe_np.base.gradcheck import gradient_error


def orthonormal(rng, K=4, D=50):
    """Signals and centres, (K, D) each: 2K vectors of length 1, at right angles to each other."""
    basis = np.linalg.qr(rng.normal(size=(D, 2 * K)))[0].T
    return basis[:K], basis[K:]


def draw(rng, N, K=4, D=50):
    """All that is random in N samples (setting 1 of the paper), a row or a number per sample."""
    cluster = rng.integers(K, size=N)
    places = np.tile(np.arange(4), (N, 1))
    return {
        "y": rng.integers(2, size=N),  # class, 0 or 1
        "cluster": cluster,  # k
        "other": (cluster + rng.integers(1, K, size=N)) % K,  # k', never k
        "sign": rng.choice([-1, 1], size=N),  # ε
        "alpha": rng.uniform(0.5, 2, N),
        "beta": rng.uniform(1, 2, N),
        "gamma": rng.uniform(0.5, 3, N),
        "noise": rng.normal(size=(N, D)) / np.sqrt(D),  # ξ
        "order": rng.permuted(places, axis=1),  # which patch stands first, second, ...
    }


# %% [markdown]
# ## 1. The samples (2 points)
#
# A sample has four patches of D numbers:
#
# | | patch | says |
# |---|---|---|
# | 0 | $\alpha\, y\, v_k$ | the class, by its sign; here $y$ is −1 or +1 |
# | 1 | $\beta\, c_k$ | the cluster |
# | 2 | $\gamma\, \varepsilon\, v_{k'}$ | nothing: the signal of another cluster, with a random sign |
# | 3 | $\xi$ | nothing |
#
# They stand in the order `order`: at place $i$ of sample $n$ there is patch `order[n, i]`. In the end everything is
# multiplied by 10. All random numbers are drawn for you, by `draw` above; put the samples together.


# %% answer="q1_samples"
def make_samples(features, centers, draws):
    """Samples from their draws. -> x (N, 4, D)

    features, centers (K, D); draws, a dict as `draw` returns it
    """
    ### BEGIN SOLUTION
    k = draws["cluster"]
    y = 2 * draws["y"] - 1
    signal = (draws["alpha"] * y)[:, None] * features[k]
    center = draws["beta"][:, None] * centers[k]
    decoy = (draws["gamma"] * draws["sign"])[:, None] * features[draws["other"]]
    patches = np.stack([signal, center, decoy, draws["noise"]], axis=1)
    return 10 * np.take_along_axis(patches, draws["order"][:, :, None], axis=1)
    ### END SOLUTION


# %% test="q1_samples"
# visible checks of q1_samples
numbers = {"y": [0, 1], "cluster": [1, 0], "other": [0, 1], "sign": [-1, -1]}
numbers |= {"alpha": [0.5, 1.5], "beta": [2.0, 1.0], "gamma": [3.0, 1.0]}
tiny = {name: np.array(pair) for name, pair in numbers.items()}
tiny |= {"noise": np.full((2, 4), 0.1), "order": np.array([[2, 0, 3, 1], [0, 1, 2, 3]])}
e = np.eye(4)  # v_0, v_1, c_0, c_1
got = make_samples(e[:2], e[2:], tiny)
assert got is not None, "make_samples returned nothing"
message = f"two samples of four patches: wanted the shape (2, 4, 4), got {np.shape(got)}"
assert np.shape(got) == (2, 4, 4), message
decoy, signal, noise, center = got[0]
message = f"patch 2 comes first: 10 · 3 · (−1) · v_0, got {decoy}"
assert np.allclose(decoy, [-30, 0, 0, 0]), message
message = f"then patch 0, of class −1: 10 · 0.5 · (−1) · v_1, got {signal}"
assert np.allclose(signal, [0, -5, 0, 0]), message
assert np.allclose(noise, 1), f"then the noise, times 10, got {noise}"
assert np.allclose(center, [0, 0, 0, 20]), f"and the centre last: 10 · 2 · c_1, got {center}"
message = f"the second sample, of class +1, has its patches in the order of the table; got {got[1]}"
assert np.allclose(got[1], [[15, 0, 0, 0], [0, 0, 10, 0], [0, -10, 0, 0], [1, 1, 1, 1]]), message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("5_clusters", "q1_samples", make_samples)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. The experts (2 points)
#
# Each filter looks at each patch by itself, and what it sees goes through $\sigma(z) = z^3$ (cubic experts) or
# $\sigma(z) = z$ (linear ones). The output for a class is the sum over its filters and over all patches:
#
# $$f_0(x) = \sum_{j=1}^{J} \sum_{p=1}^{P} \sigma\big(w_{m,j} \cdot x^{(p)}\big), \qquad
# f_1(x) = \sum_{j=J+1}^{2J} \sum_{p=1}^{P} \sigma\big(w_{m,j} \cdot x^{(p)}\big).$$
#
# A sample goes through its own expert only.


# %% answer="q2_experts"
def expert_outputs(w, x, expert, activation):
    """Both outputs of each sample's own expert. w (E, 2J, D), x (N, P, D), expert (N,) -> f (N, 2)

    activation   "cubic" or "linear"
    An expert may have no samples.
    """
    ### BEGIN SOLUTION
    f = np.zeros((len(x), 2), x.dtype)
    for m in range(len(w)):
        samples = expert == m
        z = x[samples] @ w[m].T
        s = z * z * z if activation == "cubic" else z
        f[samples] = s.sum(axis=1).reshape(-1, 2, w.shape[1] // 2).sum(axis=2)
    return f
    ### END SOLUTION


# %% test="q2_experts"
# visible checks of q2_experts
w = np.array([[[1.0], [2.0], [-1.0], [0.0]], [[0.0], [1.0], [1.0], [1.0]]])  # E = 2, J = 2, D = 1
x = np.array([[[1.0], [-3.0]], [[2.0], [1.0]]])  # two samples of two patches
got = expert_outputs(w, x, np.array([0, 1]), "linear")
assert got is not None, "expert_outputs returned nothing"
message = f"two samples, two classes: wanted the shape (2, 2), got {np.shape(got)}"
assert np.shape(got) == (2, 2), message
message = f"linear: (1 + 2)(1 − 3) and (−1 + 0)(1 − 3) for the first; got {got}"
assert np.allclose(got, [[-6, 2], [3, 6]]), message
got = expert_outputs(w, x, np.array([0, 1]), "cubic")
message = f"cubic: 1³ − 3³ + 2³ − 6³ and (−1)³ + 3³ for the first; got {got[0]}"
assert np.allclose(got[0], [-234, 26]), message
message = f"cubic, the second sample, by expert 1: 2³ + 1³, and twice that; got {got[1]}"
assert np.allclose(got[1], [9, 18]), message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("5_clusters", "q2_experts", expert_outputs)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Their gradient (3 points)
#
# Somebody hands you `df`, the gradient of a loss with respect to $f$, for each sample. Find the gradient with respect to
# all filters of all experts. (One with respect to `x` is not needed: the samples are what they are.)


# %% answer="q3_expert_gradient"
def expert_gradient(df, w, x, expert, activation):
    """Gradient of Σ df · f with respect to w. df (N, 2), the rest as in question 2 -> dw (E, 2J, D)

    An expert without samples gets zeros.
    """
    ### BEGIN SOLUTION
    dw = np.zeros_like(w)
    for m in range(len(w)):
        samples = expert == m
        z = x[samples] @ w[m].T  # (samples, P, 2J)
        slope = 3 * z * z if activation == "cubic" else np.ones_like(z)
        dz = np.repeat(df[samples], w.shape[1] // 2, axis=1)[:, None, :] * slope
        dw[m] = np.tensordot(dz, x[samples], axes=((0, 1), (0, 1)))
    return dw
    ### END SOLUTION


# %% test="q3_expert_gradient"
# visible checks of q3_expert_gradient
rng = np.random.default_rng(0)
w, x, df = rng.normal(size=(1, 2, 3)), rng.normal(size=(5, 1, 3)), rng.normal(size=(5, 2))
expert = np.zeros(5, int)
for power, activation in ((3, "cubic"), (1, "linear")):
    dw = expert_gradient(df, w, x, expert, activation)
    assert dw is not None, "expert_gradient returned nothing"

    def loss(p, power=power):
        """Σ df · f for one expert, one patch, one filter per class: the simplest case."""
        return (df * (x[:, 0] @ p["w"][0].T) ** power).sum()

    error = gradient_error(loss, {"w": w}, {"w": dw}, rng)["w"]
    case = f"one expert, one patch, J = 1, {activation}"
    assert error < 1e-4, f"the gradient check, {case}: relative error {error}"
w, x, df = rng.normal(size=(3, 6, 2)), rng.normal(size=(8, 4, 2)), rng.normal(size=(8, 2))
expert = np.array([0, 2, 2, 0, 2, 0, 0, 2])
dw = np.asarray(expert_gradient(df, w, x, expert, "cubic"))
for m in (0, 2):
    samples = expert == m
    alone = (df[samples], w[m : m + 1], x[samples], np.zeros(samples.sum(), int))
    message = f"expert {m} learns from its own samples, as if there were no other expert"
    assert np.allclose(dw[m], expert_gradient(*alone, "cubic")[0], rtol=1e-4, atol=1e-4), message
df4, x4, expert4 = np.repeat(df, 4, axis=0), x.reshape(32, 1, 2), np.repeat(expert, 4)
message = "four patches of a sample count as four samples of one patch with the same df"
got = expert_gradient(df4, w, x4, expert4, "cubic")
assert np.allclose(dw, got, rtol=1e-4, atol=1e-4), message
assert np.all(dw[1] == 0), "expert 1 has no samples: its gradient is 0"
dw = np.asarray(expert_gradient(df * [1, 0], w, x, expert, "cubic"))
message = "the gradient of class 0 reaches the first J filters only"
assert np.any(dw[:, :3]) and not np.any(dw[:, 3:]), message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("5_clusters", "q3_expert_gradient", expert_gradient)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Who gets it? (2 points)
#
# The router looks at the sum of the patches. Noise is added for the choice, so that the experts all get something to
# learn from while the router knows nothing. The weight does not depend on the noise:
#
# $$h_m = \theta_m \cdot \sum_p x^{(p)}, \qquad m_n = \arg\max_m\,(h_m + r_m), \qquad
# \pi_n = \frac{e^{h_{m_n}}}{\sum_m e^{h_m}}.$$


# %% answer="q4_route"
def route(theta, x, noise):
    """The expert of each sample and its weight. -> (expert (N,), weight (N,))

    theta (E, D), x (N, P, D), noise (N, E)
    Logits may be in the thousands.
    """
    ### BEGIN SOLUTION
    h = x.sum(axis=1) @ theta.T
    expert = (h + noise).argmax(axis=1)
    p = np.exp(h - h.max(axis=1, keepdims=True))
    p = p / p.sum(axis=1, keepdims=True)
    return expert, p[np.arange(len(h)), expert]
    ### END SOLUTION


# %% test="q4_route"
# visible checks of q4_route
theta = np.array([[1.0, 0.0], [0.0, 1.0]])
# logits .5 and .2 for the first sample, 1000 and 1 for the second
x = np.array([[[0.5, 0.0], [0.0, 0.2]], [[1000.0, 0.0], [0.0, 1.0]]])
got = route(theta, x, np.zeros((2, 2)))
assert got is not None, "route returned nothing"
assert np.array_equal(got[0], [0, 0]), f"without noise the larger logit wins, got {got[0]}"
message = f"the softmax of (.5, .2), and of (1000, 1); got {got[1]}"
assert np.allclose(got[1], [1 / (1 + np.exp(-0.3)), 1]), message
expert, weight = route(theta, x, np.array([[0.1, 0.9], [0.1, 0.9]]))
assert np.array_equal(expert, [1, 0]), f".2 + .9 is more than .5 + .1; got {expert}"
message = f"the weight of expert 1 does not depend on the noise; got {weight[0]}"
assert np.allclose(weight[0], 1 / (1 + np.exp(0.3))), message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("5_clusters", "q4_route", route)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. What the router learns from (3 points)
#
# The choice has no gradient. The router learns through the weight alone: with `dweight`, the gradient of a loss with
# respect to $\pi_n$, find the gradient with respect to all of $\theta$. Note that $\pi_n$ depends on the logits of *all*
# experts, those that were not chosen too.


# %% answer="q5_router_gradient"
def router_gradient(dweight, theta, x, expert):
    """Gradient of Σ_n dweight_n π_n with respect to theta; the chosen experts are constants.

    dweight (N,), theta (E, D), x (N, P, D), expert (N,) -> dtheta (E, D)
    Logits may be in the thousands.
    """
    ### BEGIN SOLUTION
    xsum = x.sum(axis=1)
    rows = np.arange(len(x))
    h = xsum @ theta.T
    p = np.exp(h - h.max(axis=1, keepdims=True))
    p = p / p.sum(axis=1, keepdims=True)
    dlog = dweight * p[rows, expert]
    dh = -dlog[:, None] * p
    dh[rows, expert] += dlog
    return dh.T @ xsum
    ### END SOLUTION


# %% test="q5_router_gradient"
# visible checks of q5_router_gradient
rng = np.random.default_rng(1)
theta, x, dweight = rng.normal(size=(3, 4)), rng.normal(size=(6, 2, 4)), rng.normal(size=6)
expert = np.array([0, 2, 2, 0, 1, 2])


def weighted_sum(p):
    """Σ dweight · π for experts that stay as they are."""
    e = np.exp((x[:, 0] + x[:, 1]) @ p["theta"].T)
    return (dweight * e[np.arange(6), expert] / e.sum(axis=1)).sum()


dtheta = router_gradient(dweight, theta, x, expert)
assert dtheta is not None, "router_gradient returned nothing"
error = gradient_error(weighted_sum, {"theta": theta}, {"theta": dtheta}, rng)["theta"]
assert error < 1e-4, f"the gradient check: relative error {error}"
message = "moving all θ_m by the same vector changes no weight: the rows of dtheta sum to 0"
assert np.allclose(np.sum(dtheta, axis=0), 0, atol=1e-5), message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("5_clusters", "q5_router_gradient", router_gradient)
### END HIDDEN TESTS

# %% [markdown]
# ## 6. Train them (4 points)
#
# A pass takes all samples: route them, and let $\text{out}_n = \pi_n f(x_n)$ be the weighted output (two numbers). The
# loss is the mean of the cross-entropies,
#
# $$L = -\frac1N \sum_n \log \mathrm{softmax}(\text{out}_n)_{y_n}, \qquad
# \frac{\partial L}{\partial\, \text{out}_n} = \frac1N \big(\mathrm{softmax}(\text{out}_n) - \text{onehot}(y_n)\big).$$
#
# One softmax, not two. From here it goes back to $f$ and to $\pi$ by the product rule, and on to $w$ and $\theta$ as in
# questions 3 and 5. Then everybody moves at once:
#
# $$w_m \leftarrow w_m - \eta\, \frac{\nabla_{w_m} L}{\lVert \nabla_{w_m} L \rVert}, \qquad
# \theta \leftarrow \theta - \eta_r \nabla_\theta L.$$
#
# Each expert takes a step of length $\eta$, however few samples it had: the norm is over all the numbers of one expert,
# $\big(\sum_{j,d} (\nabla w_{m,j})_d^2\big)^{1/2}$. An expert whose gradient is 0 stays where it is. The router takes an
# ordinary step.


# %% answer="q6_train"
def train(w, theta, x, y, noise, activation, lr, lr_router):
    """Some passes over all samples. Returns (w, theta) after the last pass.

    w (E, 2J, D), theta (E, D), x (N, P, D), y (N,) of 0 and 1
    The router's logits may be in the thousands, and so may the experts' outputs.
    noise        (T, N, E): T passes, and the noise of each
    activation   "cubic" or "linear"
    lr           η, the learning rate of the experts: the length of an expert's step
    lr_router    η_r, the learning rate of the router
    """
    ### BEGIN SOLUTION
    rows = np.arange(len(x))
    J = w.shape[1] // 2
    xsum = x.sum(axis=1)
    for noise_t in noise:
        h = xsum @ theta.T
        expert = (h + noise_t).argmax(axis=1)
        p = np.exp(h - h.max(axis=1, keepdims=True))
        p = p / p.sum(axis=1, keepdims=True)
        weight = p[rows, expert]

        z = np.empty((*x.shape[:2], 2 * J), x.dtype)
        for m in range(len(w)):
            z[expert == m] = x[expert == m] @ w[m].T
        s = z * z * z if activation == "cubic" else z
        f = s.sum(axis=1).reshape(-1, 2, J).sum(axis=2)
        out = weight[:, None] * f
        dout = np.exp(out - out.max(axis=1, keepdims=True))
        dout = dout / dout.sum(axis=1, keepdims=True)
        dout[rows, y] -= 1
        dout = dout / len(x)

        dlog = (dout * f).sum(axis=1) * weight
        dh = -dlog[:, None] * p
        dh[rows, expert] += dlog
        slope = 3 * z * z if activation == "cubic" else np.ones_like(z)
        dz = np.repeat(weight[:, None] * dout, J, axis=1)[:, None, :] * slope
        moved = w.copy()
        for m in range(len(w)):
            samples = expert == m
            dw = np.tensordot(dz[samples], x[samples], axes=((0, 1), (0, 1)))
            norm = np.sqrt((dw**2).sum())
            if norm > 0:
                moved[m] -= lr * dw / norm
        w = moved
        theta = theta - lr_router * (dh.T @ xsum)
    return w, theta
    ### END SOLUTION


# %% test="q6_train"
# visible checks of q6_train
rng = np.random.default_rng(2)
w, theta = rng.normal(size=(3, 2, 2)) * 0.5, rng.normal(size=(3, 2)) * 0.5  # J = 1
x, y = rng.normal(size=(10, 1, 2)), rng.integers(2, size=10)
forced = np.array([0, 2, 0, 2, 2, 0, 0, 2, 2, 0])  # expert 1 gets no sample
noise = 100 * np.eye(3)[forced][None]  # so large that it alone decides


def system_loss(p):
    """L for one patch and one filter per class; the noise forces an expert on each sample."""
    e = np.exp(x[:, 0] @ p["theta"].T)
    weight = e[np.arange(10), forced] / e.sum(axis=1)
    out = weight[:, None] * np.einsum("nd,njd->nj", x[:, 0], p["w"][forced]) ** 3
    return -np.mean(out[np.arange(10), y] - np.log(np.exp(out).sum(axis=1)))


w_before, theta_before = w.copy(), theta.copy()
got = train(w, theta, x, y, noise, "cubic", 0.01, 0.1)
assert got is not None, "train returned nothing"
got = [np.asarray(part) for part in got]
unchanged = np.array_equal(w, w_before) and np.array_equal(theta, theta_before)
assert unchanged, "the parameters that came in were changed"
start = {"w": w, "theta": theta}
grads = {"w": w * 0, "theta": (theta - got[1]) / 0.1}
error = gradient_error(system_loss, start, grads, rng)["theta"]
assert error < 1e-3, f"the gradient check of the router's step: relative error {error}"
step = (w - got[0]) / 0.01
length = np.sqrt((step**2).sum(axis=(1, 2)))
message = f"experts 0 and 2 take a step of length lr, expert 1 has no samples; got {length}"
assert np.allclose(length, [1, 0, 1], atol=1e-4), message
for m in (0, 2):
    slopes = np.zeros_like(w)
    for i in np.ndindex(2, 2):  # along each number of the expert, by differences
        d = np.zeros_like(w)
        d[(m, *i)] = 1e-5
        higher, lower = {"w": w + d, "theta": theta}, {"w": w - d, "theta": theta}
        slopes[(m, *i)] = system_loss(higher) - system_loss(lower)
    direction = slopes[m] / np.linalg.norm(slopes[m])
    assert np.allclose(step[m], direction, atol=1e-3), f"expert {m} moves, but not downhill"
other = 100 * np.eye(3)[2 - forced][None]
first = [np.asarray(part) for part in train(w, theta, x, y, noise, "cubic", 0.01, 0.1)]
wanted = train(*first, x, y, other, "cubic", 0.01, 0.1)
got = train(w, theta, x, y, np.concatenate([noise, other]), "cubic", 0.01, 0.1)
same = [np.allclose(got[i], wanted[i], atol=1e-5) for i in (0, 1)]
assert all(same), "two passes, each with its own noise, are one pass after another"
got = train(w, theta, x, y, np.repeat(noise, 30, axis=0), "cubic", 0.01, 0.1)
w30, theta30 = (np.asarray(part) for part in got)
after = system_loss({"w": w30, "theta": theta30})
assert after < system_loss(start), "thirty small steps lower the loss"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("5_clusters", "q6_train", train)
### END HIDDEN TESTS

# %% [markdown]
# ## 7. Measure (2 points)
#
# Three numbers and a table about a pass. The **dispatch entropy** says how mixed the clusters are within an expert,
#
# $$\sum_m \frac{n_m}{N}\, H_m, \qquad H_m = -\sum_k \frac{n_{mk}}{n_m} \ln \frac{n_{mk}}{n_m},$$
#
# where $n_{mk}$ samples of cluster $k$ went to expert $m$, and $n_m$ samples in all. $0 \ln 0 = 0$, and experts without
# samples add nothing. It is 0 if no expert gets two clusters, and $\ln K$ if every expert gets all K alike.


# %% answer="q7_measure"
def measure(out, y, expert, cluster, n_experts, n_clusters):
    """Accuracy, and which expert has which cluster. Returns (percent, counts, entropy).

    out (N, 2) outputs of the mixture; y, expert, cluster (N,) whole numbers from 0

    percent   percent of the samples whose larger output is that of their class
    counts    (n_experts, n_clusters) the table n_mk, one row per expert
    entropy   the dispatch entropy, in nats
    """
    ### BEGIN SOLUTION
    pairs = np.bincount(expert * n_clusters + cluster, minlength=n_experts * n_clusters)
    counts = pairs.reshape(n_experts, n_clusters)
    entropy = 0.0
    for row in counts:
        p = row[row > 0] / max(row.sum(), 1)
        entropy -= row.sum() / len(y) * (p * np.log(p)).sum()
    return 100 * (out.argmax(axis=1) == y).mean(), counts, entropy
    ### END SOLUTION


# %% test="q7_measure"
# visible checks of q7_measure
out = np.array([[0.0, 1.0], [3.0, 1.0], [0.0, -1.0], [5.0, 9.0]])
got = measure(out, np.array([1, 0, 1, 1]), np.array([0, 0, 2, 2]), np.array([1, 1, 0, 1]), 4, 2)
assert got is not None, "measure returned nothing"
percent, counts, entropy = got
assert np.isclose(percent, 75), f"three of four are right, got {percent}"
message = f"one row per expert, one column per cluster; experts 1 and 3 have nothing; got {counts}"
assert np.array_equal(counts, [[0, 2], [0, 0], [1, 1], [0, 0]]), message
message = f"expert 0 has one cluster, expert 2 has two, half of all samples; got {entropy}"
assert np.isclose(entropy, 0.5 * np.log(2)), message
n = np.arange(8)
entropy = measure(np.ones((8, 2)), 0 * n, n // 4, n % 4, 2, 4)[2]
message = f"two experts with all four clusters in equal parts: ln 4, got {entropy}"
assert np.isclose(entropy, np.log(4)), message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("5_clusters", "q7_measure", measure)
### END HIDDEN TESTS

# %% [markdown]
# ## The experiment
#
# Eight experts with twelve filters each, 1,600 samples to learn from and as many to test on, 100 passes. The experts'
# initial filters are small and random, the router's are 0. On the test samples there is no noise.
#
# Three kinds, from four initialisations each: **cubic** experts; **linear** experts; and cubic experts whose **router is
# not trained** ($\eta_r = 0$), so that only noise decides who gets what, in training and in the test.
#
# **Predict**, before you run the next two cells, for each of the three: more than 90 % right, or less? And an entropy
# near 0, near $\ln 4 = 1.39$, or between? (Half a minute in all; more if your loops go over single samples.)

# %% tags=["look"]
rng = np.random.default_rng([2022, 5])
features, centers = orthonormal(rng)
train_draws, test_draws = draw(rng, 1600), draw(rng, 1600)
x_train = make_samples(features, centers, train_draws).astype(np.float32)
x_test = make_samples(features, centers, test_draws).astype(np.float32)
PASSES = (10, 20, 30, 40)  # between measurements; 100 in all


def run(seed, activation="cubic", n_experts=8, filters=6, scale=1e-3, lr=2e-3, lr_router=0.1):
    """Train, and `measure` on the test samples after every part of the passes.

    seed   of the initial filters and the noise      scale       of the initial filters
    lr     learning rate of the experts              lr_router   of the router; 0: it is not trained
    """
    rng = np.random.default_rng(seed)
    w = (scale * rng.uniform(-1, 1, (n_experts, 2 * filters, 50)) / np.sqrt(50)).astype(np.float32)
    theta = np.zeros((n_experts, 50), np.float32)
    results = []
    for T in PASSES:
        noise = rng.random((T, 1600, n_experts), dtype=np.float32)
        w, theta = train(w, theta, x_train, train_draws["y"], noise, activation, lr, lr_router)
        shape = (1600, n_experts)
        test_noise = rng.random(shape) if lr_router == 0 else np.zeros(shape)
        expert, weight = route(theta, x_test, test_noise)
        out = weight[:, None] * expert_outputs(w, x_test, expert, activation)
        results.append(measure(out, test_draws["y"], expert, test_draws["cluster"], n_experts, 4))
    return results


kinds = {"cubic": {}, "linear": {"activation": "linear"}, "router not trained": {"lr_router": 0.0}}
runs = {name: [run(seed, **options) for seed in range(4)] for name, options in kinds.items()}
print("                      % right / dispatch entropy, four initialisations")
for name, results in runs.items():
    last = [result[-1] for result in results]
    print(f"{name:20s}", *(f"{percent:6.1f} / {entropy:.2f}" for percent, _, entropy in last))

# %% tags=["look"]
import matplotlib.pyplot as plt

fig, axes = plt.subplots(3, 4, figsize=(10, 8.5), sharex=True, sharey=True)
for row, (name, results) in zip(axes, runs.items(), strict=True):
    for ax, passes, (_, counts, entropy) in zip(row, np.cumsum(PASSES), results[1], strict=True):
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        ax.imshow(share, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        for m, k in np.ndindex(counts.shape):
            if counts[m, k]:
                color = "white" if share[m, k] > 0.6 else "black"
                ax.text(k, m, counts[m, k], ha="center", va="center", color=color)
        ax.set_title(f"{passes} passes, entropy {entropy:.2f}", fontsize=10)
    row[0].set_ylabel(f"{name}\nexpert")
for ax in axes[-1]:
    ax.set(xlabel="cluster", xticks=range(4), yticks=range(8))
fig.tight_layout()
plt.show()

# %% [markdown]
# ## 8. Explain it (4 points, marked by hand)
#
# In the picture a number says how many test samples of a cluster an expert got, the colour which part of its work they
# are. Nobody told the experts, nor the router, that there are four clusters, or any. Write half a page, with the
# numbers from **your** table:
#
# 1. Linear experts do nearly as well as cubic ones, and yet their entropy is quite another. Why do cubic experts part,
#    and linear ones not? Say what the products of one filter with the four signals, $q_k = w \cdot v_k$, do in the first
#    passes, in either case. (2 points)
# 2. With a router that is not trained, cubic experts are right far less often. What does each of them know then, and how
#    many percent would you expect from that? (1 point)
# 3. Change another thing: the number of experts, the size of the initial filters (`scale`), the number of passes
#    (`PASSES`), the router's learning rate. Say beforehand what you expect and why, then run it from a few
#    initialisations (the next cell is for that) and say what the result is. The point is for a reason and an honest
#    result, not for having been right. (1 point)

# %% tags=["look"]
for seed in range(4):
    percent, counts, entropy = run(seed)[-1]  # your change here, such as run(seed, scale=...)
    print(f"seed {seed}: {percent:.1f} % right, entropy {entropy:.2f}")

# %% [markdown] by_hand="q8_explain"
# ### BEGIN SOLUTION
# **1 (2 points: one for each race, with its reason).** Cubic experts: 99.9 to 100 % right, entropy 0.00 from all four
# initialisations. Linear ones: 96 to 97 %, entropy 1.15 to 1.32, not far from ln 4 = 1.39. For a cubic filter $q_k$ grows at a
# rate proportional to $q_k^2$ (the slope of $z^3$ is $3z^2$): what is ahead grows faster, and the race has one winner,
# which chance has chosen in the initialisation. After eight passes the leading signal of an expert is some 40 times the last
# one. So every expert has one signal before the router has moved much, the router sees which expert is good at which
# centre, sends it more of that cluster, and both pull the same way. For a linear filter $q_k$ grows at a constant
# rate, the same for all $k$: all filters of all experts turn towards $v_0 + v_1 + v_2 + v_3$ (after eight passes
# leader over last is 1.4), the experts stay alike, and no cluster is better off with one of them. The router then cuts
# the space in pieces that make the classes separable but follow no cluster. That works: once the pieces differ, linear
# experts fit each. Hence the accuracy does not show what the entropy does.
#
# **2 (1 point: what an expert knows, and a number from it).** The choice is by lot, so each expert sees all clusters
# (entropy 1.38 = ln 4) and still ends with one signal: its race has a winner, too. It is right in its own cluster, a
# quarter of the samples, and guesses in the others, where the signal that it knows is either missing or a decoy with a
# random sign: 25 + 75/2 = 62.5 %. Measured: 67 to 71 %, a little more, since some experts have a second signal.
#
# **3 (1 point: an expectation with a reason, a result from several initialisations, no more claimed than it shows).** Four
# experts: 99.9 / 0.00, then 79.4 / 0.95, 84.4 / 0.91, 54.2 / 1.35: all four have to win different races, which by lot
# happens with probability 4!/4⁴ = 9 %; with eight, some experts may be idle. `scale=0.1`: 98 %, entropy 0.4 to 0.6;
# the initial filters have numbers in 46 directions that are no signal, and they stay. `lr_router=0.001`: 84 to 95 %, entropy 0.2
# to 0.6: the referee comes late. 300 passes: still 100 / 0.00 for three initialisations, but 84.1 / 0.97 for one: steps of a
# constant length never settle.
# ### END SOLUTION
