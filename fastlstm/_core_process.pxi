# Part of _core.pyx: what belongs to the process, not to a model.


def isa():
    """Name of the instruction set in use. RuntimeError when FASTLSTM_ISA names none of this machine's."""
    cdef const char *name
    check(fl_isa_name(&name))
    return name.decode()


def available_isas():
    """Names of the instruction sets this machine can run, best first."""
    names = []
    while fl_isa_available(len(names)) != NULL:
        names.append(fl_isa_available(len(names)).decode())
    return tuple(names)


def flushes_denormals():
    """Whether denormal numbers are zero in whatever computes here; found out by computing."""
    return bool(fl_flushes_denormals())


def force_isa(name):
    """For tests: the set of models packed from now on; None goes back to the environment's."""
    cdef bytes text = name.encode() if name is not None else b""
    if fl_isa_force(<const char *>text if name is not None else NULL) != FL_OK:
        raise RuntimeError(f"no instruction set {name!r} on this machine; choices: {', '.join(available_isas())}")


def force_gemm(name):
    """For tests: like FASTLSTM_GEMM, for models packed from now on; None goes back to the environment's."""
    cdef bytes text = name.encode() if name is not None else b""
    check(fl_gemm_force(<const char *>text if name is not None else NULL))


def gemm_mode():
    cdef int mode
    check(fl_gemm_mode(&mode))
    return GEMM_MODES[mode]


def get_num_threads():
    """Threads a call of this thread may use. RuntimeError when FASTLSTM_NUM_THREADS is no number of threads."""
    return num_threads_why()[0]


def num_threads_why():
    """(threads, which of BOUNDS made it so few). Raises as get_num_threads."""
    cdef int threads, bound
    check(fl_num_threads_why(&threads, &bound))
    return threads, BOUNDS[bound]


def set_num_threads(int n):
    """0: the default."""
    fl_set_num_threads(n)


def team_limit(int threads):
    """Threads that a call with a limit of its own may use in this thread; 0: it has none. Raises as get_num_threads."""
    check(fl_num_threads_why(NULL, NULL))
    return fl_team_limit(threads)


def num_threads_here(int n):
    """Bound every call of this thread; returns the bound before. 0: none."""
    return fl_num_threads_here(n)


def cgroup_quota(str root=""):
    """Processors of the quota that files under this folder describe, 0: none; of this system by default."""
    cdef bytes path = root.encode()
    return fl_cgroup_quota(path)


def force_quota(processors):
    """For tests: the quota of this system's files, 0: none; None: they are read when next needed."""
    fl_quota_force(-1 if processors is None else processors)


def has_openmp():
    return bool(fl_has_openmp())


def cores():
    """(cores, processors) that the calling thread may use: its affinity mask, and the cores these processors belong
    to. A processor of which the system tells nothing counts as a core of its own."""
    return fl_cores_allowed(), fl_processors_allowed()


PROCESSORS = FL_PROCESSORS  # those that are looked at: 0 .. PROCESSORS - 1


def read_cores(str folder):
    """For tests: of each processor the lowest one of its core, as `folder` describes the machine."""
    cdef cnp.ndarray core = np.empty(FL_PROCESSORS, np.uint16)
    fl_cores_read(folder.encode(), <uint16_t *>cnp.PyArray_DATA(core))
    return core.tolist()


def try_places(list lowest, allowed, list starts, bint others=False):
    """For tests: the processors where a team's workers would run that start one after the other on `starts`. lowest:
    as read_cores gives it; allowed: the processors they may use; others: whether other calls have threads."""
    cdef cnp.ndarray core, start, end = np.empty(len(starts), np.int32)
    cdef fl_processors members
    cdef int n = 8 * sizeof(unsigned long), p
    if len(lowest) != FL_PROCESSORS or not all(0 <= p < FL_PROCESSORS for p in (*lowest, *allowed, *starts)):
        raise ValueError(f"processors must be in 0..{FL_PROCESSORS - 1}, and all of them have a core")
    core, start = np.array(lowest, np.uint16), np.array(starts, np.int32)
    memset(&members, 0, sizeof(members))
    for p in allowed:
        members.word[p // n] |= (<unsigned long>1) << (p % n)
    fl_places_try(<uint16_t *>cnp.PyArray_DATA(core), &members, len(starts), <int32_t *>cnp.PyArray_DATA(start),
                  others, <int32_t *>cnp.PyArray_DATA(end))
    return end.tolist()


def machine():
    """The constants that plans weigh, as in fl_machine: numbers, and flops_per_ns (float32, float64)."""
    cdef fl_machine m
    fl_machine_get(&m)
    return machine_as_dict(&m)


cdef dict machine_as_dict(const fl_machine *m):
    cdef dict found = m[0]
    found["flops_per_ns"] = (m.flops_per_ns[0], m.flops_per_ns[1])
    return found


BUILT_IN = machine()  # nobody has set others yet


def set_machine(dict constants):
    """Use these, brought into a plausible range; None goes back to the built-in ones. ValueError unless all of them
    are finite and positive."""
    cdef fl_machine m
    if constants is None:
        check(fl_machine_set(NULL))
        return
    m = constants
    check(fl_machine_set(&m))


def measure_machine(int threads=0):
    """(constants, whether a team ran undisturbed): measured, not used. Else what a team costs is built in, in whole
    or in part."""
    cdef fl_machine m
    cdef int team
    cdef fl_status status
    with nogil:
        status = fl_machine_measure(&m, threads, &team)
    check(status)
    return machine_as_dict(&m), bool(team)


def cells():
    """Names of every cell the engine was built with."""
    return tuple(fl_cell_name(i).decode() for i in range(fl_cell_count()))


def apply(str activation, x):
    """The kernels' own exp, tanh, sigmoid, relu over an array, by the instruction set in use: for tests."""
    cdef cnp.ndarray source = np.ascontiguousarray(x)
    if source.dtype != np.float32 and source.dtype != np.float64:
        raise TypeError(f"x must be float32 or float64, got {source.dtype}")
    cdef cnp.ndarray out = np.empty_like(source)
    check(fl_map(source.dtype == np.float64, ACTIVATIONS[activation], cnp.PyArray_DATA(source),
                 cnp.PyArray_DATA(out), source.size))
    return out


def probe_fma(dtype, int64_t n, int threads=1):
    """n rounds of independent fused multiply-adds on each of `threads` threads; returns how many operations in all."""
    cdef double flops
    cdef int code = np.dtype(dtype) == np.float64
    cdef fl_status status
    with nogil:
        status = fl_probe(code, n, NULL, 0, threads, &flops)
    check(status)
    return flops


def probe_read(cnp.ndarray data, int64_t n, int threads=1):
    """n passes over a contiguous float array, each of `threads` threads reading its share."""
    cdef void *from_ = cnp.PyArray_DATA(data)
    cdef size_t nbytes = data.nbytes
    cdef int code = data.dtype == np.float64
    cdef fl_status status
    with nogil:
        status = fl_probe(code, n, from_, nbytes, threads, NULL)
    check(status)
