"""Find the answers in words in a notebook that other programs have saved, split or copied."""

from collections.abc import Iterable, Sequence

from moe_np.coursework import notebook
from moe_np.coursework.assignments import Assignment
from moe_np.coursework.notebook import Cell
from moe_np.coursework.question import Question

NOT_FOUND = "(no answer cell found: look into the notebook)"


def text_answer(question: Question, cells: Iterable[Cell]) -> str:
    """The text of an answer that is marked by hand, "" if there is none."""
    texts = [cell.source for cell in cells if cell.grade_id == question.name]
    text = texts[0].strip() if texts else ""
    return "" if text == notebook.TEXT_STUB else text


def gather(assignment: Assignment, cells: Sequence[Cell]) -> list[Cell]:
    """One cell per question that is marked by hand, with the whole text of its answer.

    The answer is in all text cells of the question's name, and in those without a name that stand
    between the nearest cells before and after it which were handed out. So it is found where cells
    lost their metadata, and whole where a cell was split; a copy counts once. The text is the stub
    where nothing was written, and NOT_FOUND where the cell is gone and others were added.
    """
    handed_out = notebook.released(assignment.cells)
    names = [question.name for question in assignment.questions if question.function is None]
    places = _places(handed_out, cells)
    answers = []
    for index, cell in enumerate(handed_out):
        if cell.grade_id in names:
            text = _text(index, handed_out, cells, places)
            answers.append(cell._replace(source=text))
    return answers


def _places(handed_out, cells):
    """For each cell the index of the one that was handed out, None for another."""
    by_name = {cell.grade_id: i for i, cell in enumerate(handed_out) if cell.grade_id}
    by_source = {}
    for i, cell in enumerate(handed_out):
        if cell.source.strip() != notebook.TEXT_STUB:
            by_source.setdefault(cell.source.strip(), i)
    return [by_name.get(cell.grade_id, by_source.get(cell.source.strip())) for cell in cells]


def _text(index, handed_out, cells, places):
    """The text of the answer to the question whose cell was handed out at `index`."""
    first = max((i + 1 for i, place in enumerate(places) if _before(place, index)), default=0)
    named = [i for i, place in enumerate(places) if place == index]
    start = min([first, *named])
    last = (i for i, place in enumerate(places) if _before(index, place) and i >= start)
    end = max([next(last, len(cells)), *(i + 1 for i in named)])
    texts = []
    stub = bool(named)
    for i in range(start, end):
        if cells[i].kind == "code" or not (places[i] == index or places[i] is None):
            continue
        text = cells[i].source.strip()
        stub |= text == notebook.TEXT_STUB
        if text and text != notebook.TEXT_STUB and text not in texts:
            texts.append(text)
    if texts:
        return "\n\n".join(texts)
    pairs = zip(places, cells, strict=True)
    added = any(place is None and cell.source.strip() for place, cell in pairs)
    return notebook.TEXT_STUB if stub or not added else NOT_FOUND


def _before(first, second):
    return first is not None and second is not None and first < second
