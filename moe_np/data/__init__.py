"""Data: the vowels of Peterson and Barney, shipped as a table."""

from .vowels import peterson_barney, vowel_task

__all__ = ["peterson_barney", "vowel_task"]
