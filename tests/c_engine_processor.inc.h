/* For c_engine_test.c: how often the processor is asked what it can do. */
#if defined(__linux__) && defined(__x86_64__)
#include <cpuid.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NO_TRACE = 77 };

/* A child that looks for instruction sets, after one CPUID of its own. */
static void ask_processor(void)
{
    unsigned a, b, c, d;
    const fl_kernels *table;
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL)) _exit(NO_TRACE);
    raise(SIGSTOP);
    __get_cpuid_count(7, 0, &a, &b, &c, &d);
    for (int i = 0; i < 3; i++) fl_kernels_get(&table);
    _exit(0);
}

/* Instructions CPUID that a child executes, instruction by instruction; -1: it cannot be watched. */
static int cpuids_of(void (*child)(void))
{
    enum { CPUID = 0xa20f };
    int status = 0, count = 0;
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) child();
    while (pid > 0 && waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
        const long at = ptrace(PTRACE_PEEKUSER, pid, (void *)offsetof(struct user_regs_struct, rip), NULL);
        count += (ptrace(PTRACE_PEEKTEXT, pid, (void *)at, NULL) & 0xffff) == CPUID;
        if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL)) break;
    }
    return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0 ? count : -1;
}

/* In a virtual machine each CPUID is a call of the system below, which takes 10 to 100 us. */
static void test_processor(void)
{
    const fl_kernels *table;
    fl_kernels_get(&table); /* what is known now the child knows, too */
    const int count = cpuids_of(ask_processor);
    if (count < 0)
        puts("SKIP CPUID: no process may be traced here");
    else
        check(count >= 1 && count <= 2, "%d CPUIDs, of which the test makes one or two", count);
}
#else
static void test_processor(void) { puts("SKIP CPUID: not Linux on x86-64"); }
#endif
