/* How many threads a call may use. */
#ifndef FL_LIMIT_H
#define FL_LIMIT_H

/* Threads that a call in the calling thread may use at most, 1..FL_MOST_THREADS.  limit: the call's own bound; 0: it
 * has none, and fl_get_num_threads() counts.
 *
 * Cheap unless limit is 0 and nobody has set a number: then it makes one system call, the affinity mask.  A call whose
 * work is not worth a second thread should not ask. */
int fl_team_limit(int limit);

#endif
