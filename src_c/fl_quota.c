/* The processor time that the control groups of this process leave it, in processors.
 *
 * A quota of version 2 is the file cpu.max ("max 100000" or "200000 100000": microseconds in each period), of version 1
 * cpu.cfs_quota_us (-1: none) and cpu.cfs_period_us.  Every group above that of the process may have one, and the least
 * counts.  Inside a container the path in /proc/self/cgroup may be the host's, which is not there: then the root of the
 * mounted hierarchy is the container's own group. */
#define _GNU_SOURCE
#include "fastlstm_experimental.h"

#if defined(__linux__)
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, GROUPS_BYTES = 16384 };

/* The first size - 1 bytes of a file as a string; 0 where it cannot be read or is empty. */
static size_t read_text(const char *path, char *text, size_t size)
{
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    size_t n = 0;
    for (ssize_t got; n < size - 1 && (got = read(file, text + n, size - 1 - n)) > 0;) n += (size_t)got;
    close(file);
    text[n] = 0;
    return n;
}

/* The one or two numbers in folder/name; 0 where there is none, as in "max". */
static long read_number(const char *folder, const char *name, long *second)
{
    char path[PATH_BYTES + 32], text[64], *end;
    const int length = snprintf(path, sizeof path, "%s/%s", folder, name);
    if (length < 0 || (size_t)length >= sizeof path || !read_text(path, text, sizeof text)) return 0;
    const long first = strtol(text, &end, 10);
    if (second) *second = end == text ? 0 : strtol(end, NULL, 10);
    return end == text ? 0 : first;
}

/* Processors of one group, rounded up; `found` where that is less or the group has no quota.  0 stands for none. */
static int least_of(const char *folder, int found)
{
    long period = 0, time = read_number(folder, "cpu.max", &period);
    if (time <= 0 || period <= 0) {
        time = read_number(folder, "cpu.cfs_quota_us", NULL);
        period = read_number(folder, "cpu.cfs_period_us", NULL);
    }
    if (time <= 0 || period <= 0) return found;
    const long processors = time / period + (time % period != 0);
    return found && found < processors ? found : processors < FL_MOST_THREADS ? (int)processors : FL_MOST_THREADS;
}

/* The same of the group at top + own and all groups above it, up to `top`. */
static int least_upwards(const char *top, const char *own, int found)
{
    char folder[PATH_BYTES];
    const size_t length = strlen(top);
    const int inside = !strstr(own, "/.."); /* a group above what is mounted here is not in this hierarchy */
    const int all = snprintf(folder, sizeof folder, "%s%s", top, inside ? own : "");
    if (all < 0 || (size_t)all >= sizeof folder) return found;
    for (;;) {
        found = least_of(folder, found);
        char *slash = strrchr(folder + length, '/');
        if (!slash) return found;
        *slash = 0;
    }
}

/* Whether "cpu" is one of the names, which are separated by commas. */
static int names_cpu(const char *names)
{
    for (const char *name = names; *name;) {
        const size_t length = strcspn(name, ",");
        if (length == 3 && !memcmp(name, "cpu", 3)) return 1;
        name += length + (name[length] == ',');
    }
    return 0;
}

/* One line of /proc/self/cgroup: "0::/path" of version 2, "4:cpu,cpuacct:/path" of version 1. */
static int least_of_line(const char *root, char *line, int found)
{
    char top[PATH_BYTES];
    const char *const folders[] = {"", "/cpu", "/cpu,cpuacct"}; /* of version 2; of version 1, one often a link */
    char *names = strchr(line, ':'), *own = names ? strchr(names + 1, ':') : NULL;
    if (!own) return found;
    names++;
    *own++ = 0;
    if (*names && !names_cpu(names)) return found;
    for (int i = *names ? 1 : 0; i < (*names ? 3 : 1); i++) {
        const int length = snprintf(top, sizeof top, "%s/sys/fs/cgroup%s", root, folders[i]);
        if (length >= 0 && (size_t)length < sizeof top) found = least_upwards(top, own, found);
    }
    return found;
}

int fl_cgroup_quota(const char *root)
{
    char path[PATH_BYTES], groups[GROUPS_BYTES];
    if (!root) root = "";
    char here[] = "0::/", cpu[] = "1:cpu:/"; /* in a container these are its own groups */
    int found = least_of_line(root, cpu, least_of_line(root, here, 0));
    const int length = snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    if (length < 0 || (size_t)length >= sizeof path || !read_text(path, groups, sizeof groups)) return found;
    for (char *line = groups, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        found = least_of_line(root, line, found);
    }
    return found;
}
#else
int fl_cgroup_quota(const char *root)
{
    (void)root;
    return 0;
}
#endif
