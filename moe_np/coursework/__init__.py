"""Coursework: questions that mark themselves, assignments that are released, checked and graded."""

from moe_np.coursework.question import Case, Question, Verdict, close, draw, examine, self_check

__all__ = ["Case", "Question", "Verdict", "close", "draw", "examine", "hidden_test", "self_check"]


def hidden_test(assignment, question, answer, seed=None):
    """The hidden test of a question, in a teacher's notebook: AssertionError with the reason if
    `answer` is wrong.
    """
    from moe_np.coursework import assignments  # not needed by learners, who only check themselves

    return assignments.hidden_test(assignment, question, answer, seed)
