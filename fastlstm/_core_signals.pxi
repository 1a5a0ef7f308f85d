# Part of _core.pyx: signals that arrive while the core computes.
#
# Python runs a signal's handler in its main thread alone, between two steps of its interpreter: never within a call of
# the core. So the core asks every 100 ms, and what a handler raises (KeyboardInterrupt is what the default one of
# SIGINT raises) ends the call. Calls from other threads are never asked: no handler would run, and a thread that
# wants the GIL while Python shuts down is ended at once, while its workers still use its stack.

cdef unsigned long main_thread = 0
cdef int forks = 0  # between the first process of this program and this one


cdef void find_main_thread():
    global main_thread
    main_thread = threading.main_thread().ident


def _after_fork():
    """In a child, the thread that forked is the main one."""
    global forks
    forks += 1
    find_main_thread()


find_main_thread()
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)


cdef struct Interruption:
    PyObject *error  # what a handler has raised, or NULL


cdef int ask_python(void *data) noexcept with gil:
    """Runs the handlers of signals that have come. 1: one has raised, and its exception is kept."""
    try:
        PyErr_CheckSignals()
        if poll_hook is not None:
            poll_hook()
    except BaseException as error:
        Py_INCREF(error)
        (<Interruption *>data).error = <PyObject *>error
        return 1
    return 0


cdef inline poll_function poll_here() noexcept:
    """What a call of this thread asks, with an Interruption; NULL: nothing."""
    if PyThread_get_thread_ident() == main_thread:
        return ask_python
    return NULL


cdef int finish(fl_status status, Interruption *kept) except -1:
    """`check`; what a handler has raised instead, where that ended the call."""
    if status != FL_ERR_STOPPED:
        return check(status)
    error = <object>kept.error
    Py_DECREF(error)
    kept.error = NULL
    raise error


cdef object poll_hook = None


def force_poll(bint everywhere, hook=None):
    """For tests: whether calls look for signals at every step, and cut their work into the smallest pieces. hook: a
    function that is called wherever they look, as if it were the handler of a signal."""
    global poll_hook
    poll_hook = hook
    fl_poll_force(everywhere)
