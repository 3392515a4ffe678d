"""The checks that tokenisers share."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.data.text import entrance


def test_ids_of_every_integer_type_become_a_list_of_int():
    for dtype in (np.int8, np.uint16, np.int64):
        ids = entrance.ids("ids", np.array([0, 3], dtype), 4)
        assert ids == [0, 3] and all(type(number) is int for number in ids)
    assert entrance.ids("ids", np.array([]), 4) == entrance.ids("ids", (), 4) == []
    assert entrance.ids("ids", iter([np.int32(2)]), 4) == [2]


def test_the_place_of_a_lone_surrogate():
    with pytest.raises(InputError) as caught:
        entrance.text("prompt", "ab\udc80")
    wanted = "prompt: wanted text that UTF-8 can write, got the lone surrogate U+DC80 at place 2"
    assert str(caught.value) == wanted


def test_a_merge_uses_tokens_that_are_there():
    assert entrance.merges("merges", [[0, 1], [256, 2]]) == [(0, 1), (256, 2)]
    with pytest.raises(InputError, match=r"merges\[1\]: wanted a whole number .* at most 256"):
        entrance.merges("merges", [[0, 1], [257, 2]])


def test_bytes_wait_until_a_character_is_complete():
    parts = entrance.stream_of_bytes([0, 1, 0], [b"\xc3", b"\xa9a"])
    assert list(parts) == ["", "éa", "", "\ufffd"]
