"""The recorded results: counts of samples, and the means that the notebooks printed beside them."""

import numpy as np
import pytest

from moe_np.experiments.chen2022 import published_numbers, replay
from moe_np.experiments.chen2022.recorded import PAPER, REMARK

# mean and standard deviation of the accuracy as printed: cubic experts, then linear ones
PRINTED = {
    1: ((99.46, 0.55), (93.0, 2.11)),
    2: ((98.1, 1.56), (89.49, 1.35)),
    3: ((99.99, 0.02), (95.93, 1.34)),
    4: ((98.92, 1.18), (93.3, 1.48)),
}
every_setting = pytest.mark.parametrize("setting", PAPER)


@every_setting
def test_accuracies_are_counts_of_samples(setting):
    """Percent of 16,000 samples, printed with four digits."""
    for recorded in PAPER[setting].values():
        first = [] if recorded.first is None else [recorded.first]
        assert len(recorded.accuracy) == replay.RUNS
        for accuracy in (*recorded.accuracy, *first):
            count = round(accuracy * replay.N / 100)
            assert abs(100 * count / replay.N - accuracy) < 5.1e-5


@every_setting
def test_accuracies_have_the_mean_that_was_printed(setting):
    for recorded, printed in zip(PAPER[setting].values(), PRINTED[setting], strict=True):
        ours = np.mean(recorded.accuracy), np.std(recorded.accuracy)
        assert np.abs(np.subtract(ours, printed)).max() <= 0.00501


@every_setting
def test_entropies_lie_between_0_and_ln_4_and_are_those_of_table_1(setting):
    """Setting 2 is another run than the table's, which its remark says."""
    for model, recorded in PAPER[setting].items():
        mean, sd = map(float, recorded.entropy.split(" ± "))
        assert 0 <= mean <= np.log(4) and sd > 0
        of_table = published_numbers.PAPER[setting][model]["entropy"]
        close = np.abs(np.subtract((mean, sd), of_table)).max() < 0.0011
        assert close != (setting in REMARK), model
