"""A question that a test adds to assignment 1: the texts that go into its three files."""

INTRODUCTION = (
    ("Seven functions have a body", "Eight functions have a body"),
    ("20 points", "22 points"),
    ("report 3.", "report 3, perplexity 2."),
)
CELLS = '''
# %% [markdown]
# ## 8. How many experts the gate hesitates between (2 points)
#
# $$\\exp \\Big( -\\frac 1 N \\sum_n \\sum_i p_i \\ln p_i \\Big)$$, with $0 \\ln 0 = 0$.


# %% answer="q8_perplexity"
def perplexity(p):
    """exp of the mean entropy of the rows of p (N, E), a number from 1 to E"""
    ### BEGIN SOLUTION
    positive = p[p > 0]
    return np.exp(-(positive * np.log(positive)).sum() / len(p))
    ### END SOLUTION


# %% test="q8_perplexity"
# visible checks of q8_perplexity
assert np.isclose(perplexity(np.full((2, 4), 0.25)), 4), "as many as there are"
two = perplexity(np.array([[1.0, 0.0], [0.5, 0.5]]))
assert np.isclose(two, 2**0.5), f"sure of one, and even between two: exp(ln 2 / 2), got {two}"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("1_mixture", "q8_perplexity", perplexity)
### END HIDDEN TESTS
'''
CASES = """def perplexity_cases(rng):
    p = numerics.softmax(rng.normal(size=(6, 3)))
    return [(p,), (np.eye(4),), (numerics.softmax(3 * rng.normal(size=(5, 2))),)]


def perplexity(p):
    return float(np.exp(numerics.entropy(p).mean()))


"""
QUESTION = '    Question("q8_perplexity", "perplexity", 2, perplexity_cases, perplexity, SINGLE),\n'
BANK = '''
BANK["q8_perplexity"] = {
    "right": [
        """
def perplexity(p):
    total = 0.0
    for row in p:
        total -= sum(v * np.log(v) for v in row if v > 0)
    return np.exp(total / len(p))
""",
        """
def perplexity(p):
    return np.prod(np.where(p > 0, p, 1) ** -p) ** (1 / len(p))
""",
    ],
    "wrong": {
        "0 ln 0": """
def perplexity(p):
    return np.exp(-(p * np.log(p)).sum(axis=1).mean())
""",
        "the entropy itself": """
def perplexity(p):
    return -(p * np.log(np.where(p > 0, p, 1))).sum(axis=1).mean()
""",
        "in bits": """
def perplexity(p):
    return np.exp(-(p * np.log2(np.where(p > 0, p, 1))).sum(axis=1).mean())
""",
        "the mean of the perplexities": """
def perplexity(p):
    return np.exp(-(p * np.log(np.where(p > 0, p, 1))).sum(axis=1)).mean()
""",
    },
}
'''
