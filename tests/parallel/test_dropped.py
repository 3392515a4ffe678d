"""What a capacity drops of the same tokens on more ranks."""

import numpy as np
import pytest

from moe_np.parallel import dropped
from moe_np.routing import switch


def test_documents_kept_together_lose_more_on_more_ranks():
    rng = np.random.default_rng(0)
    x = dropped.documents(rng)
    params = switch.init(rng, 32, 8, scale=1.0)
    options = {"capacity_factor": 1.25}
    together = dropped.dropped_shares(switch, params, x, options, (1, 2, 4, 8))
    shuffled = dropped.dropped_shares(switch, params, rng.permutation(x), options, (1, 2, 4, 8))
    assert [row.ranks for row in together] == [1, 2, 4, 8]
    assert together[0].dropped == pytest.approx(shuffled[0].dropped)
    assert (np.diff([row.dropped for row in together]) >= 0).all()
    assert together[-1].dropped > together[0].dropped + 0.15
    assert max(row.dropped for row in shuffled) < shuffled[0].dropped + 0.05
    assert together[-1].balance > 1.2 * together[0].balance
