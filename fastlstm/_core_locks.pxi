# Part of _core.pyx: what no handler of a signal can interrupt: locks, flags, changes of weights and of states.


cdef class Locks:
    """A context manager that holds the reentrant locks of several modules, taken in the order given.

    While it holds one it does not wait for another: it gives back what it has, waits for the one that somebody else
    holds, and begins with that. Signal handlers of Python run in here only while a thread waits, when none is held.

    RuntimeError where a module is being changed in this very thread, which its locks let in: by a signal's handler, or
    an object that is collected, in the middle of an optimiser's step.
    """
    cdef list modules, locks

    def __cinit__(self, list modules):
        self.modules, self.locks = modules, [module._lock for module in modules]

    def __enter__(self):
        cdef Py_ssize_t first = 0, count = len(self.locks), k, busy
        while count:
            self.locks[first].acquire()
            busy = -1  # the first that somebody else holds
            for k in range(count):
                if k != first and not self.locks[k].acquire(False):
                    busy = k
                    break
            if busy < 0:
                break
            for k in range(busy):
                if k != first:
                    self.locks[k].release()
            self.locks[first].release()
            first = busy
        for module in self.modules:
            if module._changing:
                self.__exit__()
                raise RuntimeError(f"the weights of {type(module).__name__} are being changed: an optimiser's step in "
                                   "this very thread has not ended")
        return self

    def __exit__(self, *error):
        for lock in self.locks:
            lock.release()


cdef class Attempt:
    """A context manager that takes a lock if that is free, and tells whether it did."""
    cdef object lock
    cdef bint got

    def __cinit__(self, lock):
        self.lock = lock

    def __enter__(self):
        self.got = self.lock.acquire(False)
        return self.got

    def __exit__(self, *error):
        if self.got:
            self.lock.release()


cdef class Setting:
    """A context manager that gives a context variable a value; no exception of a signal handler leaves it set."""
    cdef object variable, value, token

    def __cinit__(self, variable, value):
        self.variable, self.value = variable, value

    def __enter__(self):
        self.token = self.variable.set(self.value)

    def __exit__(self, *error):
        self.variable.reset(self.token)


def replace_weights(list parts):
    """parts: pairs of a module and arrays by name. The arrays take the place of the module's own of these names, and
    what was packed of them is dropped: of all modules, as no signal's handler runs in between."""
    for module, arrays in parts:
        module._weights.update(arrays)
        module._panels = None
        module._version += 1


cdef class Changing:
    """A context manager for a change of weights in place. When it is left, however that may be, what was packed of all
    these modules is dropped, and no signal's handler runs in between."""
    cdef list modules

    def __cinit__(self, list modules):
        self.modules = modules

    def __enter__(self):
        for module in self.modules:
            module._changing = True

    def __exit__(self, *error):
        for module in self.modules:
            module._panels = None
            module._version += 1
            module._changing = False


IN_USE = ("the stream is in use: its call under way must end before another thread, or what that call itself runs, may "
          "use it; copy.copy(stream) gives another one its own state")


cdef class Busy:
    """Whether a call of a stream is under way. The flag is read and set with the GIL held, which this module takes in
    an interpreter without one, too: it does not declare that it could do without. In the child of a fork no call is
    under way: the thread of the parent that made it is not there."""
    cdef int taken  # the process's number of forks plus one, while a call is under way

    cdef inline int take(self) except -1:
        if self.taken == forks + 1:
            raise RuntimeError(IN_USE)
        self.taken = forks + 1
        return 0

    def run(self, what, *arguments):
        """what(*arguments). Another call meanwhile is a RuntimeError. No signal handler runs between the flag and the
        call, so the flag is down again however the call ends."""
        self.take()
        try:
            return what(*arguments)
        finally:
            self.taken = 0


def write_all(list targets, list values):
    """Each array of values over that of targets, of the same shape and dtype: all of them or, when it raises, none."""
    for target, value in zip(targets, values):
        if target.shape != value.shape or target.dtype != value.dtype:
            words = f"{value.dtype} {value.shape} cannot replace {target.dtype} {target.shape}"
            raise ValueError(f"an array of {words}")
    for target, value in zip(targets, values):  # no signal handler runs in between
        cnp.PyArray_CopyInto(target, value)
