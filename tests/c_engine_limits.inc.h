/* How many threads a call may use.  The files of control groups are in tests/test_thread_limits.py. */
#include "fl_limit.h"

static int threads_of(int wanted_bound)
{
    int threads = 0, bound = -1;
    fl_num_threads_why(&threads, &bound); /* the environment is wrong in most of what follows */
    check(bound == wanted_bound, "bound %d, expected %d", bound, wanted_bound);
    check(threads == fl_get_num_threads(), "two numbers of threads: %d and %d", threads, fl_get_num_threads());
    return threads;
}

/* What is readable is read once and kept, so nothing before may have asked, and the readable one comes last. */
static void test_wrong_environment(void)
{
    static const char *const wrong[] = {"-1", "2.5", "1025", "4294967297", " 3", "3 ", "abc"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        int threads = 0, bound = FL_BOUND_ENVIRONMENT;
        setenv("FASTLSTM_NUM_THREADS", wrong[i], 1);
        expect(fl_num_threads_why(&threads, &bound), FL_ERR_THREADS, wrong[i]);
        check(bound != FL_BOUND_ENVIRONMENT && threads >= 1, "FASTLSTM_NUM_THREADS=%s is used", wrong[i]);
        check(threads == fl_get_num_threads(), "FASTLSTM_NUM_THREADS=%s: two defaults", wrong[i]);
    }
}

static void test_right_environment(void)
{
    const int whole = fl_has_openmp();
    setenv("FASTLSTM_NUM_THREADS", "1024", 1);
    check(threads_of(whole ? FL_BOUND_ENVIRONMENT : FL_BOUND_BUILD) == (whole ? 1024 : 1), "FASTLSTM_NUM_THREADS=1024");
    unsetenv("FASTLSTM_NUM_THREADS");
    check(fl_get_num_threads() == (whole ? 1024 : 1), "FASTLSTM_NUM_THREADS is read again");
    expect(fl_num_threads_why(NULL, NULL), FL_OK, "a right FASTLSTM_NUM_THREADS");
}

static void test_limits(void)
{
    const int before = fl_get_num_threads(), whole = fl_has_openmp(); /* without OpenMP there is one thread at most */
    fl_set_num_threads(0);
    test_wrong_environment();
    check(fl_num_threads_here(0) == 0, "a bound that nobody has set");
    fl_set_num_threads(INT_MAX);
    check(threads_of(whole ? FL_BOUND_SET : FL_BOUND_BUILD) == (whole ? FL_MOST_THREADS : 1), "more than may be");
    check(fl_team_limit(INT_MAX) == (whole ? FL_MOST_THREADS : 1), "a call that wants more than may be");
    check(fl_team_limit(3) == (whole ? 3 : 1) && fl_team_limit(0) == fl_get_num_threads(), "a call's own limit");
    check(fl_num_threads_here(4) == 0 && fl_num_threads_here(2) == 4, "the bound before");
    check(threads_of(whole ? FL_BOUND_HERE : FL_BOUND_BUILD) == (whole ? 2 : 1), "a bound of this thread");
    check(fl_team_limit(3) == (whole ? 2 : 1) && fl_team_limit(1) == 1, "the smaller of both");
    check(fl_num_threads_here(-1) == 2 && fl_num_threads_here(0) == 0, "no bound any more");
    fl_set_num_threads(-1);
    fl_quota_force(1);
    check(fl_get_num_threads() == 1, "%d threads for a quota of one processor", fl_get_num_threads());
    fl_quota_force(-1);
#ifdef _OPENMP
    int nested[2] = {-1, -1};
    omp_set_max_active_levels(1);
#pragma omp parallel num_threads(2)
    nested[omp_get_thread_num()] = fl_get_num_threads();
    check(nested[0] == 1, "%d threads inside a parallel region", nested[0]);
    omp_set_num_threads(1);
    check(fl_get_num_threads() == 1, "%d threads where OpenMP would use one", fl_get_num_threads());
    omp_set_num_threads(omp_get_num_procs());
#endif
    test_right_environment();
    fl_set_num_threads(before);

    double flops = 0;
    expect(fl_probe(FL_F32, 1, NULL, 0, -1, &flops), FL_ERR_ARGUMENT, "a probe with -1 threads");
    expect(fl_probe(FL_F32, INT64_MAX, NULL, 0, 1, &flops), FL_ERR_OVERFLOW, "a probe of 2^63 - 1 rounds");
    expect(fl_probe(FL_F32, 1, &flops, SIZE_MAX, 1, NULL), FL_ERR_OVERFLOW, "a probe that reads 2^64 - 1 bytes");
    release("limits");
}
