"""Texts of three domains: cut at lines, equally long, and held out."""

import pytest

from moe_np.base.checks import InputError
from moe_np.data.music import chorales
from moe_np.experiments.specialisation import domains


def test_a_text_is_cut_at_the_end_of_a_line():
    assert domains.cut("ab\ncd\nef\n", 7) == "ab\ncd\n"
    assert domains.cut("ab\ncd\n", 6) == domains.cut("ab\ncd\n", None) == "ab\ncd\n"
    assert domains.cut("abcdef", 4) == "abcd"


@pytest.mark.parametrize("domain", domains.DOMAINS)
def test_domains_are_equally_long(domain):
    text = domains.training_text(domain, 500_000)
    assert 499_000 < len(text) <= 500_000 and text.endswith("\n")


def test_chorales_go_on_in_other_keys():
    own_key = domains.training_text("chorales", None)
    longer = domains.training_text("chorales", 900_000)
    assert longer.startswith(own_key)
    first = chorales.split().train[0].grid
    assert chorales.to_text(chorales.transposed(first, 2)) in longer[len(own_key) :]


def test_what_is_held_out_is_not_trained_on():
    """Lines of Bible text; of chorales, whole families of melodies are held out."""
    for domain in domains.DOMAINS[:2]:
        train = set(domains.training_text(domain, None).splitlines())
        held_out = {line for line in domains.held_out_text(domain, 20_000).splitlines() if line}
        assert len(train & held_out) < 0.01 * len(held_out)
    split = chorales.split()
    assert not {c.family for c in split.train} & {c.family for c in split.validation}
    assert domains.held_out_text("chorales", 10**9).startswith(
        chorales.to_text(split.validation[0].grid)
    )


def test_the_corpus_has_one_domain_after_the_other():
    corpus = domains.corpus(("English", "chorales"), 3000, 1000, ("Jonah",))
    assert corpus.name == "English, chorales"
    assert corpus.train.startswith("Now the word of the LORD came unto Jonah")
    assert len(corpus.train) <= 6000 and len(corpus.validation) <= 2000


def test_an_unknown_domain_is_refused():
    with pytest.raises(InputError, match="domain: wanted one of English, Spanish, chorales"):
        domains.training_text("Latin", 100)
    with pytest.raises(InputError, match="domain: wanted one of English, Spanish, chorales"):
        domains.held_out_text("Latin", 100)
