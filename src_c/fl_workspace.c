/* Memory: checked sizes, aligned blocks, the arena that lays out workspaces, the cache's layout, the order of rows.
 *
 *   workspace   | slot | pad | slot | pad | ...        every slot 64-byte aligned, sizes from one function
 *
 *   cache       layer 0: | gates d0 | c d0 | gates d1 | c d1 | y | input |   layer 1: ...
 *               y is left out for the last layer (the caller has it), input without dropout (it is y)
 */
#if defined(__linux__)
#define _GNU_SOURCE
#endif
#include <stdlib.h>
#include <string.h>

#include "fl_internal.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(_WIN32)
#include <malloc.h>
#endif

void *fl_aligned_alloc(size_t bytes)
{
    enum { HUGE_PAGE = 2 << 20 };
    const size_t align = bytes >= HUGE_PAGE ? HUGE_PAGE : FL_ALIGN;
    if (fl_bytes_sum(bytes, align) == SIZE_MAX) return NULL;
    bytes = (bytes + align - 1) / align * align;
#if defined(_WIN32)
    return _aligned_malloc(bytes ? bytes : align, align);
#else
    void *memory = NULL;
    if (posix_memalign(&memory, align, bytes ? bytes : align)) return NULL;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    /* panels are read end to end at every step: fewer page walks; a refusal costs nothing */
    if (bytes >= HUGE_PAGE) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    return memory;
#endif
}

void fl_aligned_free(void *memory)
{
#if defined(_WIN32)
    _aligned_free(memory);
#else
    free(memory);
#endif
}

size_t fl_bytes_checked(int64_t a, int64_t b, int64_t c, int64_t unit)
{
    const int64_t factor[4] = {a, b, c, unit};
    uint64_t bytes = 1;
    for (int i = 0; i < 4; i++)
        if (factor[i] < 0) return SIZE_MAX;
    for (int i = 0; i < 4; i++)
        if (factor[i] == 0) return 0;
    for (int i = 0; i < 4; i++) {
        if (bytes > (uint64_t)PTRDIFF_MAX / (uint64_t)factor[i]) return SIZE_MAX;
        bytes *= (uint64_t)factor[i];
    }
    return (size_t)bytes;
}

void *fl_arena_take3(fl_arena *arena, int64_t a, int64_t b, int64_t c, int64_t unit)
{
    const size_t bytes = fl_bytes(a, b, c, unit), most = (size_t)PTRDIFF_MAX - FL_ALIGN; /* with room to round up */
    if (bytes > most || arena->used > most - bytes) arena->overflow = 1;
    if (arena->overflow) return NULL;
    void *slot = arena->base ? arena->base + arena->used : NULL;
    arena->used += (bytes + FL_ALIGN - 1) / FL_ALIGN * FL_ALIGN;
    return slot;
}

enum fl_status fl_arena_check(const fl_arena *arena, size_t bytes)
{
    if (arena->overflow) return FL_ERR_OVERFLOW;
    return arena->used > bytes || (arena->used && !arena->base) ? FL_ERR_WORKSPACE : FL_OK;
}

void *fl_arena_take(fl_arena *arena, int64_t count, int64_t unit) { return fl_arena_take3(arena, count, 1, 1, unit); }

/* What the next slot of so many rows takes. */
static size_t slot_bytes(fl_arena *arena, int64_t steps, int64_t batch, int64_t width, int64_t unit)
{
    const size_t before = arena->used;
    fl_arena_take3(arena, steps, batch, width, unit);
    return arena->used - before;
}

fl_cache_layout fl_cache_layout_of(const fl_model *m, int64_t steps, int64_t batch, int flags)
{
    const int64_t outputs = m->recurrent * m->spec.directions, unit = m->unit;
    const int layers = m->spec.num_layers, directions = m->spec.directions;
    const int inner = layers > 1, dropout = inner && flags & FL_CACHE_DROPOUT, masked = flags & FL_CACHE_MASK_X;
    fl_arena arena = {0}; /* holds each kind of slot once, so twice their sum fits a size_t */
    fl_cache_layout l = {.layers = layers, .directions = directions};
    l.gates = slot_bytes(&arena, steps, batch, m->kept, unit);
    l.c = slot_bytes(&arena, m->cells ? steps : 0, batch, m->cells, unit);
    l.x[0] = slot_bytes(&arena, masked ? steps : 0, batch, m->spec.input_size, unit);
    l.x[1] = slot_bytes(&arena, masked && inner ? steps : 0, batch, outputs, unit);
    l.y = slot_bytes(&arena, inner ? steps : 0, batch, outputs, unit);
    l.input = slot_bytes(&arena, dropout ? steps : 0, batch, outputs, unit);
    const size_t last = (size_t)directions * (l.gates + l.c + l.x[inner]);
    l.layer[0] = (size_t)directions * (l.gates + l.c + l.x[0]) + l.y + l.input;
    l.layer[1] = last + l.y + l.input;
    l.total = l.layer[0];
    if (arena.overflow || l.layer[0] > PTRDIFF_MAX || l.layer[1] > PTRDIFF_MAX)
        l.total = SIZE_MAX;
    else if (inner)
        l.total = fl_bytes_sum(fl_bytes_sum(l.total, fl_bytes(layers - 2, (int64_t)l.layer[1], 1, 1)), last);
    return l;
}

int fl_cache_flags(const fl_model *m, const fl_call *call)
{
    int flags = call->dropout ? FL_CACHE_DROPOUT : 0;
    for (int i = 0; call->masks && i < m->spec.num_layers * m->spec.directions; i++)
        if (call->masks[i].mask_x) flags |= FL_CACHE_MASK_X;
    return flags;
}

static int sizes_fit(const fl_model *m, int64_t steps, int64_t batch, int flags)
{
    if (flags & ~(FL_CACHE_DROPOUT | FL_CACHE_MASK_X)) return 0;
    return m && steps >= 0 && batch >= 0 && steps <= FL_LARGEST && batch <= FL_LARGEST;
}

size_t fl_cache_bytes(const fl_model *m, int64_t steps, int64_t batch, int flags)
{
    return sizes_fit(m, steps, batch, flags) ? fl_cache_layout_of(m, steps, batch, flags).total : SIZE_MAX;
}

fl_cache_slot fl_cache_find(const fl_model *m, int64_t steps, int64_t batch, int flags, int layer, int direction)
{
    const fl_cache_slot nowhere = {SIZE_MAX, SIZE_MAX, SIZE_MAX};
    if (!sizes_fit(m, steps, batch, flags) || layer < 0 || layer >= m->spec.num_layers) return nowhere;
    if (direction < 0 || direction >= m->spec.directions) return nowhere;
    const fl_cache_layout layout = fl_cache_layout_of(m, steps, batch, flags);
    if (layout.total == SIZE_MAX) return nowhere;
    const fl_cache_offsets o = fl_cache_at(&layout, layer, direction);
    return (fl_cache_slot){o.gates, m->cells ? o.c : SIZE_MAX, o.y};
}

void fl_order_make(int64_t *row, int64_t *length, const int64_t *lengths, int64_t steps, int64_t batch)
{
    for (int64_t b = 0; b < batch; b++) {
        row[b] = b;
        length[b] = lengths ? lengths[b] : steps;
    }
    if (!lengths) return;
    /* shell sort: no recursion, no allocation, stable enough (ties need no order) */
    int64_t gap = 1;
    while (gap < batch / 3) gap = 3 * gap + 1;
    for (; gap > 0; gap /= 3)
        for (int64_t i = gap; i < batch; i++) {
            const int64_t r = row[i], n = length[i];
            int64_t j = i;
            for (; j >= gap && length[j - gap] < n; j -= gap) {
                row[j] = row[j - gap];
                length[j] = length[j - gap];
            }
            row[j] = r;
            length[j] = n;
        }
}
