"""Coursework: questions that mark themselves, assignments that are released, checked and graded."""

from moe_np.coursework.question import Question, Verdict, close, examine, self_check

__all__ = ["Question", "Verdict", "close", "examine", "self_check"]
