"""Who grades alone waits for the others."""

import threading
import time

from moe_np.coursework.turns import Turns


def test_who_grades_alone_waits_for_the_others_and_they_for_it():
    turns = Turns()
    running = []
    seen = []

    def work(kind):
        with getattr(turns, kind)():
            running.append(kind)
            time.sleep(0.02)
            seen.append(tuple(running))
            running.remove(kind)

    kinds = ["together", "together", "alone", "together", "alone", "together"] * 3
    threads = [threading.Thread(target=work, args=(kind,)) for kind in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(seen) == len(kinds)
    assert all(kinds == ("alone",) for kinds in seen if "alone" in kinds)
    assert max(map(len, seen)) > 1, "the others run side by side"
