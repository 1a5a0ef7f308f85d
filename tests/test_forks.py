"""Forks: a process that has used several threads, its children, and theirs."""

import os

import pytest
from grids import BEGIN, openmp, says

pytestmark = [openmp, pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")]

FORK = BEGIN + """
def fail(failure):  # in whichever thread, so that it is seen
    sys.__excepthook__(*failure[:3])
    os._exit(1)

threading.excepthook = fail
expected = answer()

def fork_and_use(times):
    for k in range(times):
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            os._exit(0 if answer() == expected and answer() == expected else 1)
        assert answer() == expected
        assert os.waitpid(child, 0)[1] == 0, ("child", k)
"""


@pytest.mark.parametrize("how", [
    "fork_and_use(50)",
    # from a thread that has its own team, and one that never called
    "for _ in range(2):\n t = threading.Thread(target=fork_and_use, args=(25,))\n t.start(); t.join()\nfork_and_use(5)",
    "t = threading.Thread(target=lambda: (answer(), fork_and_use(25)))\nt.start(); t.join()",
    # while other threads are in the middle of calls
    """
done = threading.Event()
def busy():
    while not done.is_set():
        model(x)
threads = [threading.Thread(target=busy) for _ in range(2)]
for t in threads: t.start()
fork_and_use(25)
done.set()
for t in threads: t.join()
""",
    # a child of a child
    """
for k in range(5):
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        try:
            fork_and_use(3)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
""",
])
def test_forks_never_hang_and_compute_the_same(how):
    assert says(FORK + how + "\nprint('done')") == ["done"]


def test_a_pool_of_forked_workers_computes_the_same():
    lines = says(BEGIN + """
import multiprocessing
expected = answer()

def job(k):
    signal.alarm(30)
    return answer() == expected

for _ in range(3):
    with multiprocessing.get_context("fork").Pool(3) as pool:
        print(all(pool.map_async(job, range(12)).get(40)))
    print(answer() == expected)
""")
    assert lines == ["True"] * 6
