"""Coursework: questions that grade themselves, assignments that are released, checked and graded.

The files, in the order in which they are used:

    question, comparison, assignments,   what a student is to do, what counts as right, and the
    notebook                             cells of the notebook
    release, checking                    what students get, and what they can check themselves
    submissions                          whose work it is: file_names, notebook_files
    grading, gradebook                   the marks of one, and of a class: text_answers, own_lines,
                                         turns, hand_marks, messages, store
    feedback, exports                    the files that teachers, students and platforms read:
                                         tables
    self_checking, predictions,           what learners of the lessons keep and check themselves:
                                         lesson_progress
    bank                                 right and wrong answers that prove an assignment
    sandbox                              student code in a process that can do no harm
"""

from collections.abc import Callable

from moe_np.coursework.comparison import close
from moe_np.coursework.predictions import predict
from moe_np.coursework.question import Case, Question, Verdict, draw, examine
from moe_np.coursework.self_checking import self_check

__all__ = [
    "Case",
    "Question",
    "Verdict",
    "close",
    "draw",
    "examine",
    "hidden_test",
    "predict",
    "self_check",
]


def hidden_test(assignment: str, question: str, answer: Callable, seed: int | None = None) -> None:
    """The hidden test of a question, in a teacher's notebook.

    Raises AssertionError with the reason if `answer` is wrong.
    """
    from moe_np.coursework import assignments  # not for learners, who only check themselves

    return assignments.hidden_test(assignment, question, answer, seed)
