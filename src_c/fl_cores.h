/* Which logical processors share a core, and sets of processors.
 *
 * Linux tells; elsewhere, and where it does not tell, every processor counts as a core of its own. */
#ifndef FL_CORES_H
#define FL_CORES_H

#include "fastlstm_experimental.h"

enum {
    FL_WORD_BITS = 8 * sizeof(unsigned long),
    FL_PROCESSOR_WORDS = sizeof(fl_processors) / sizeof(unsigned long)
};

/* 0 <= processor < FL_PROCESSORS in these two */
static inline unsigned long fl_processor_bit(int processor) { return 1ul << (unsigned)processor % FL_WORD_BITS; }
static inline int fl_processors_has(const fl_processors *set, int processor)
{
    return (set->word[processor / FL_WORD_BITS] & fl_processor_bit(processor)) != 0;
}
static inline void fl_processors_add(fl_processors *set, int processor)
{
    set->word[processor / FL_WORD_BITS] |= fl_processor_bit(processor);
}
/* The lowest processor of the set that is not below `from` (>= 0); FL_PROCESSORS if there is none. */
int fl_processors_next(const fl_processors *set, int from);

/* The lowest processor of its core; the processor itself when nothing is known about it. */
int fl_core_of(int processor);
/* Cores that have a processor in the set.  core (FL_PROCESSORS): the lowest processor of each processor's core */
int fl_cores_among(const uint16_t *core, const fl_processors *set);

typedef struct fl_core_map {
    uint16_t core[FL_PROCESSORS];     /* the lowest processor of each one's core */
    unsigned char bit[FL_PROCESSORS]; /* 1, 2, 4 ...: a different one for each processor of a core */
} fl_core_map;
void fl_core_map_make(fl_core_map *out, const uint16_t *core); /* core (FL_PROCESSORS): as fl_cores_read writes it */
#if defined(__linux__)
const fl_core_map *fl_core_map_here(void); /* of this machine: the first call reads it, later ones look at a flag */
#endif

#endif
