"""More and more experts, and where they go: verdicts that change with the numbers."""

from moe_np.experiments.why_it_works import more_experts


def test_the_verdict_on_more_experts_changes_with_the_numbers():
    values = ((1, 0.0, 0.0), (4, 1.0, 1.0), (8, 2.0, -1.0))
    summary = [
        {"experts": E, **{k: [v, 0.1] for k in ("train", "test", "error")}, "median test": median}
        for E, v, median in values
    ]
    assert more_experts.more_verdict(summary)[0] == "yes"
    summary[2]["median test"] = 2.0
    assert more_experts.more_verdict(summary)[0] == "no"


def harder_cells(signs, pairs):
    curve = [
        {"amplitude": a, "easy": [2.0, 0.1], "hard": [4.0, 0.1], "more": sign}
        for a, sign in zip((0.0, 1.0), signs, strict=True)
    ]
    cell = {"in use": [2.0, 0.0], "front": pairs, "back": pairs, "without the idle": [0.001, 0.0]}
    cell |= {"front wrong": [3.0, 0.1], "back wrong": [15.0, 0.1]}
    return {"curve": curve, "vowels": [{"experts": E, **cell} for E in (4, 8)]}


def test_the_verdict_on_harder_regions_changes_with_the_numbers():
    holds, words = more_experts.harder_verdict(harder_cells((0, 1), [1.5, 0.5]))
    assert holds == "yes" and "a difference (p < .01) is there for 1." in words
    holds, words = more_experts.harder_verdict(harder_cells((0, 1), [1.0, 0.0]))
    assert holds == "partly" and "have one expert each in every run" in words
    words = more_experts.harder_verdict(harder_cells((0, 0), [1.0, 0.0]))[1]
    assert "is there for no amplitude." in words
