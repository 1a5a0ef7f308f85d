/* Cores, as Linux describes them: in the folder of processor N, topology/core_cpus_list names the processors of N's
 * core, for example "0,8" or "0-1".  Kernels before 5.4 call that file thread_siblings_list.
 *
 * A container may hide these files, a virtual machine may fill them with nonsense.  So a file is believed only if it
 * can be read, names its own processor, names no more than FL_CORE_THREADS (no processor is known that runs more on a
 * core), and the file of the lowest processor named agrees.  Otherwise the processor counts as a core of its own. */
#define _GNU_SOURCE
#include "fl_cores.h"

#include <string.h>

#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <unistd.h>
#endif
#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#elif defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#endif

/* --- sets of processors */

int fl_processors_next(const fl_processors *set, int from)
{
    for (int p = from; p < FL_PROCESSORS;) {
        const unsigned long rest = set->word[p / FL_WORD_BITS] >> (unsigned)p % FL_WORD_BITS;
        if (rest & 1) return p;
        p = rest ? p + 1 : (p / FL_WORD_BITS + 1) * FL_WORD_BITS;
    }
    return FL_PROCESSORS;
}

static int count(const fl_processors *set)
{
    int n = 0;
    for (int p = fl_processors_next(set, 0); p < FL_PROCESSORS; p = fl_processors_next(set, p + 1)) n++;
    return n;
}

int fl_cores_among(const uint16_t *core, const fl_processors *set)
{
    fl_processors cores = {{0}};
    for (int p = fl_processors_next(set, 0); p < FL_PROCESSORS; p = fl_processors_next(set, p + 1))
        fl_processors_add(&cores, core[p]);
    return count(&cores);
}

void fl_core_map_make(fl_core_map *out, const uint16_t *core)
{
    unsigned char next[FL_PROCESSORS];
    memset(next, 1, sizeof next);
    for (int p = 0; p < FL_PROCESSORS; p++) {
        out->core[p] = core[p];
        out->bit[p] = next[core[p]];
        next[core[p]] = (unsigned char)(next[core[p]] << 1);
    }
}

/* --- reading the description of a machine */

#if defined(__unix__) || defined(__APPLE__)
enum {
    PATH_BYTES = 512,
    TEXT_BYTES = 4096 /* a file of this kind has no more */
};

/* text (TEXT_BYTES); 0: there is no such file, it cannot be read, or it is empty or too long */
static int read_text(const char *path, char *text)
{
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    const ssize_t n = read(file, text, TEXT_BYTES);
    close(file);
    if (n <= 0 || n >= TEXT_BYTES) return 0;
    text[n] = 0;
    return 1;
}

/* Reads the digits at *text and moves *text behind them; 0: there are none.  Every number from FL_PROCESSORS on means
 * the same, a processor that is ignored, so the digits that follow need not be counted. */
static int parse_number(const char **text, int *out)
{
    const char *at = *text;
    *out = 0;
    for (; *at >= '0' && *at <= '9'; at++)
        if (*out < FL_PROCESSORS) *out = *out * 10 + (*at - '0');
    const int found = at != *text;
    *text = at;
    return found;
}

/* "0-3,8\n" -> {0, 1, 2, 3, 8}; 0: the text is something else */
static int parse_list(const char *text, fl_processors *out)
{
    memset(out, 0, sizeof *out);
    for (;; text++) {
        int first, last;
        if (!parse_number(&text, &first)) return 0;
        last = first;
        if (*text == '-') {
            text++;
            if (!parse_number(&text, &last) || last < first) return 0;
        }
        for (int p = first; p <= last && p < FL_PROCESSORS; p++) fl_processors_add(out, p);
        if (*text != ',') break;
    }
    return *text == 0 || (*text == '\n' && text[1] == 0);
}

/* Appends to path (PATH_BYTES) from `at` on; returns the new end, or -1: it does not fit.  at < 0 stays -1. */
static int append(char *path, int at, const char *more)
{
    const size_t n = strlen(more);
    if (at < 0 || n >= (size_t)(PATH_BYTES - at)) return -1;
    memcpy(path + at, more, n + 1);
    return at + (int)n;
}

static int read_list(const char *folder, const char *subfolder, const char *name, fl_processors *out)
{
    char path[PATH_BYTES], text[TEXT_BYTES];
    const int end = append(path, append(path, append(path, append(path, 0, folder), "/"), subfolder), name);
    return end > 0 && read_text(path, text) && parse_list(text, out);
}

/* The processors of p's core, p among them; 0: the folder does not tell. */
static int read_siblings(const char *folder, int p, fl_processors *out)
{
    static const char *const names[] = {"core_cpus_list", "thread_siblings_list"};
    char subfolder[32] = "cpu", digits[8];
    int n = 0, at = 3;
    for (int rest = p; n == 0 || rest; rest /= 10) digits[n++] = (char)('0' + rest % 10);
    while (n) subfolder[at++] = digits[--n];
    memcpy(subfolder + at, "/topology/", sizeof "/topology/");
    for (int i = 0; i < 2; i++)
        if (read_list(folder, subfolder, names[i], out) && fl_processors_has(out, p) && count(out) <= FL_CORE_THREADS)
            return 1;
    return 0;
}

void fl_cores_read(const char *folder, uint16_t *core)
{
    uint16_t claimed[FL_PROCESSORS]; /* by the lowest processor of a core, which comes before the others */
    fl_processors online, siblings;
    if (!core) return;
    for (int p = 0; p < FL_PROCESSORS; p++) core[p] = claimed[p] = (uint16_t)p;
    if (!folder) return;
    if (!read_list(folder, "", "online", &online)) memset(&online, 0xff, sizeof online); /* then each is tried */
    for (int p = fl_processors_next(&online, 0); p < FL_PROCESSORS; p = fl_processors_next(&online, p + 1)) {
        if (!read_siblings(folder, p, &siblings)) continue;
        const int lowest = fl_processors_next(&siblings, 0);
        if (lowest < p) {
            if (claimed[p] == lowest) core[p] = (uint16_t)lowest;
            continue;
        }
        for (int q = fl_processors_next(&siblings, p + 1); q < FL_PROCESSORS; q = fl_processors_next(&siblings, q + 1))
            if (claimed[q] == q) claimed[q] = (uint16_t)p;
    }
}
#else
void fl_cores_read(const char *folder, uint16_t *core)
{
    (void)folder;
    for (int p = 0; core && p < FL_PROCESSORS; p++) core[p] = (uint16_t)p;
}
#endif

/* --- this machine */

static int online(void)
{
    long n = 1;
#if defined(__unix__) || defined(__APPLE__)
    n = sysconf(_SC_NPROCESSORS_ONLN);
#elif defined(_WIN32)
    n = (long)GetActiveProcessorCount(ALL_PROCESSOR_GROUPS);
#endif
    return n < 1 ? 1 : (int)n;
}

#if defined(__linux__)
static fl_core_map here;

static void read_here(void)
{
    uint16_t core[FL_PROCESSORS];
    fl_cores_read("/sys/devices/system/cpu", core);
    fl_core_map_make(&here, core);
}

const fl_core_map *fl_core_map_here(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_here);
    return &here;
}

int fl_core_of(int processor)
{
    return processor < 0 || processor >= FL_PROCESSORS ? processor : fl_core_map_here()->core[processor];
}

/* The processors that the calling thread may run on; 0: the kernel can have more than FL_PROCESSORS. */
static int allowed(fl_processors *out)
{
    cpu_set_t mask;
    _Static_assert(sizeof mask == sizeof *out, "an fl_processors is a cpu_set_t");
    if (sched_getaffinity(0, sizeof mask, &mask)) return 0;
    memcpy(out, &mask, sizeof mask);
    return 1;
}

int fl_processors_allowed(void)
{
    fl_processors set;
    return allowed(&set) ? count(&set) : online();
}

int fl_cores_allowed(void)
{
    fl_processors set;
    return allowed(&set) ? fl_cores_among(fl_core_map_here()->core, &set) : online();
}
#else
int fl_core_of(int processor) { return processor; }
int fl_processors_allowed(void) { return online(); }
int fl_cores_allowed(void) { return online(); }
#endif
