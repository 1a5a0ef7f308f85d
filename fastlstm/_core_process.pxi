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
    return fl_get_num_threads()


def set_num_threads(int n):
    fl_set_num_threads(n)


def has_openmp():
    return bool(fl_has_openmp())


TEAM_MANNERS = ("adapts", "persists", "gives up")


def force_team(str manner):
    """For tests: what a team does when a barrier stalls; "adapts" is the default."""
    fl_team_force(TEAM_MANNERS.index(manner))


def teams_active():
    """Threads inside calls right now, over the whole process."""
    return fl_teams_active()


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
