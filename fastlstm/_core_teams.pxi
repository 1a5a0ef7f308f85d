# Part of _core.pyx: teams of threads, for tests and measurement.


TEAM_MANNERS = ("adapts", "persists", "gives up", "halves")


def force_team(str manner):
    """For tests: what a team does that is not faster than one thread; "adapts" is the default."""
    fl_team_force(TEAM_MANNERS.index(manner))


def teams_active():
    """Threads inside calls right now, over the whole process."""
    return fl_teams_active()


cdef class Disturbance:
    """While it is entered, worker w of every call sleeps for delays[k, w] us at the k-th step it finishes with others:
    as if another program had taken its processor. delays: (steps, workers), int32. One call at a time."""
    cdef fl_disturbance d
    cdef object delays, next

    def __init__(self, delays):
        self.delays = np.ascontiguousarray(delays, np.int32)
        if self.delays.ndim != 2 or (self.delays < 0).any():
            raise ValueError(f"delays must be a (steps, workers) array of microseconds, got shape {self.delays.shape}")
        self.next = np.zeros(self.delays.shape[1], np.int64)
        self.d.delay_us = <const int32_t *>data_of(self.delays)
        self.d.steps, self.d.workers = self.delays.shape[0], self.delays.shape[1]
        self.d.next = <int64_t *>data_of(self.next)

    @property
    def taken(self):
        """How many steps each worker has been through."""
        return self.next.copy()

    def __enter__(self):
        fl_team_disturb(&self.d)
        return self

    def __exit__(self, *error):
        fl_team_disturb(NULL)


def rehearse(int workers, int64_t steps, double one_us):
    """A team that sleeps instead of computing: steps of one_us of one thread's work, shared equally. Returns the time
    of each step in us, and how many workers went on after it."""
    times, sizes = np.zeros(steps, np.int64), np.zeros(steps, np.int32)
    cdef int64_t *step_ns = <int64_t *>data_of(times)
    cdef int32_t *left = <int32_t *>data_of(sizes)
    cdef fl_status status
    with nogil:
        status = fl_rehearse(workers, steps, one_us * 1e3, step_ns, left)
    check(status)
    return times / 1e3, sizes


def judge_replay(int workers, double one_us, steps_us):
    """The rule by which teams are halved, without a team: (step, workers that go on after it) for each halving of a
    team whose steps, one_us of one thread's work each, took steps_us."""
    times = np.ascontiguousarray(steps_us, np.float64) * 1e3
    sizes = np.zeros(len(times), np.int32)
    fl_judge_replay(workers, one_us * 1e3, <const double *>data_of(times), len(times), <int32_t *>data_of(sizes))
    return [(int(k) + 1, int(sizes[k])) for k in np.flatnonzero(np.diff(sizes, prepend=workers))]
