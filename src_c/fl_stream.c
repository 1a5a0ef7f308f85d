/* A stream: a model at work on rows that go on, with a state of its own, in memory that its caller gave. */
#include <string.h>

#include "fl_internal.h"
#include "fl_stop.h"

struct fl_stream {
    const fl_model *m;
    int64_t batch;
    size_t x_bytes, y_bytes, h_bytes, c_bytes;
    char *h, *c, *step; /* step: what fl_step takes for a workspace */
    fl_block memory;    /* all of it */
    unsigned steps;     /* so far: every other one sweeps backward over the weights */
};

/* Lays it out; returns where the stream itself is. */
static fl_stream *lay_out(fl_stream *s, const fl_model *m, fl_arena *arena, int64_t batch)
{
    const int64_t rows = m->spec.num_layers * batch;
    const size_t step = fl_step_bytes(m, batch);
    fl_stream *at = fl_arena_take(arena, 1, sizeof *s);
    s->h = fl_arena_take3(arena, rows, m->recurrent, 1, m->unit);
    s->c = fl_arena_take3(arena, rows, m->cells, 1, m->unit);
    arena->overflow |= step >= (size_t)INT64_MAX;
    s->step = fl_arena_take(arena, arena->overflow ? 0 : (int64_t)step, 1);
    return at;
}

static enum fl_status check_sizes(const fl_model *m, int64_t batch)
{
    if (!m || batch < 0 || m->spec.directions != 1) return FL_ERR_ARGUMENT;
    return batch > FL_LARGEST ? FL_ERR_OVERFLOW : FL_OK;
}

size_t fl_stream_bytes(const fl_model *m, int64_t batch)
{
    fl_arena arena = {0};
    fl_stream s;
    if (check_sizes(m, batch) != FL_OK) return SIZE_MAX;
    lay_out(&s, m, &arena, batch);
    return arena.overflow ? SIZE_MAX : arena.used;
}

enum fl_status fl_stream_init(fl_stream **out, const fl_model *m, int64_t batch, void *memory, size_t memory_bytes)
{
    enum fl_status status = out ? check_sizes(m, batch) : FL_ERR_ARGUMENT;
    if (status != FL_OK) return status;
    if ((uintptr_t)memory % FL_ALIGN) return FL_ERR_WORKSPACE;
    fl_arena arena = {.base = memory};
    fl_stream s = {.m = m, .batch = batch};
    fl_stream *at = lay_out(&s, m, &arena, batch);
    status = fl_arena_check(&arena, memory_bytes);
    if (status != FL_OK) return status;
    s.x_bytes = fl_bytes(batch, m->spec.input_size, 1, m->unit);
    s.y_bytes = fl_bytes(batch, m->recurrent, 1, m->unit);
    s.h_bytes = s.y_bytes * (size_t)m->spec.num_layers;
    s.c_bytes = fl_bytes(m->spec.num_layers, batch, m->cells, m->unit);
    if (s.x_bytes == SIZE_MAX || s.c_bytes == SIZE_MAX) return FL_ERR_OVERFLOW;
    s.memory = fl_block_of(memory, arena.used);
    *at = s;
    *out = at;
    return fl_stream_set(at, NULL, NULL);
}

/* Whether an array that is there lies beside the stream. */
static int beside(const fl_stream *s, const void *data, size_t bytes)
{
    return !fl_meet(s->memory, fl_block_of(data, bytes));
}

enum fl_status fl_stream_step(fl_stream *s, const void *x, void *y)
{
    if (!s || (s->batch && (!x || !y))) return FL_ERR_ARGUMENT;
    if (!beside(s, x, s->x_bytes) || !beside(s, y, s->y_bytes)) return FL_ERR_ARGUMENT;
    if (s->batch) fl_step_run(s->m, s->batch, x, s->h, s->c, y, s->step, s->steps & s->m->snake);
    s->steps++;
    return FL_OK;
}

enum fl_status fl_stream_get(const fl_stream *s, void *h, void *c)
{
    if (!s || !beside(s, h, s->h_bytes) || !beside(s, c, s->c_bytes)) return FL_ERR_ARGUMENT;
    if (h) memcpy(h, s->h, s->h_bytes);
    if (c) memcpy(c, s->c, s->c_bytes);
    return FL_OK;
}

enum fl_status fl_stream_set(fl_stream *s, const void *h, const void *c)
{
    if (!s || !beside(s, h, s->h_bytes) || !beside(s, c, s->c_bytes)) return FL_ERR_ARGUMENT;
    fl_stop_fill(NULL, s->h, h, s->h_bytes);
    fl_stop_fill(NULL, s->c, c, s->c_bytes);
    return FL_OK;
}
