"""The byte tokeniser: id = byte."""

from moe_np.data.text import byte_values


def test_ids_are_bytes():
    tokeniser = byte_values.ByteValues()
    assert tokeniser.encode("Aé\n").tolist() == [65, 0xC3, 0xA9, 10]
    assert tokeniser.decode([0xC3, 0xA9, 0xC3]) == "é\ufffd"
    assert list(tokeniser.stream([0xC3, 0xA9, 0xC3])) == ["", "é", "", "\ufffd"]


def test_nothing_is_learnt():
    assert byte_values.train("any text").to_dict() == {"kind": "bytes", "special": []}
