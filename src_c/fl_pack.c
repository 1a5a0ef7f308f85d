/* Weights into panels, once per model.  The layouts are described in fl_kernels.h. */
#include <stdatomic.h>
#include <string.h>

#include "fl_internal.h"
#include "fl_limit.h"
#include "fl_machine.h"
#include "fl_team.h"

static double get(int dtype, const void *p, int64_t i)
{
    return dtype == FL_F64 ? ((const double *)p)[i] : (double)((const float *)p)[i];
}

static void put(int dtype, void *p, int64_t i, double value)
{
    if (dtype == FL_F64)
        ((double *)p)[i] = value;
    else
        ((float *)p)[i] = (float)value;
}

int64_t fl_plain_blocks(int64_t columns, int64_t width)
{
    const int64_t block = FL_PANEL_VECTORS * width;
    return (columns + block - 1) / block;
}

int64_t fl_plain_columns(int64_t columns, int64_t width) { return (columns + width - 1) / width * width; }

fl_gate_place fl_gate_place_of(const fl_gate_layout *l, int64_t unit)
{
    const int64_t size = (int64_t)l->units * l->width, block = unit / size, left = l->hidden - block * size;
    const int used = left < size ? fl_last_vectors((int)left, l->vectors, l->units, l->width) : l->vectors;
    return (fl_gate_place){block * size, block * l->vectors * l->width, (int64_t)used * l->width,
                           fl_gate_lanes(used, l->vectors, l->units, l->width)};
}

int64_t fl_gate_columns(const fl_gate_layout *l)
{
    const fl_gate_place last = fl_gate_place_of(l, l->hidden - 1);
    return last.first + last.wide;
}

int64_t fl_gate_column(const fl_gate_layout *l, int64_t gate, int64_t unit)
{
    const fl_gate_place at = fl_gate_place_of(l, unit);
    return at.first + gate * at.apart + unit - at.first_unit;
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* --- blocks */

static int is_own(const fl_packer *p, const char *block) { return block >= p->first && block < p->end; }

/* Columns of a run of a block that has so many. */
static int64_t run_columns(const fl_packer *p, int64_t wide)
{
    const int64_t width = p->real->width;
    return wide == FL_PANEL_VECTORS * width ? p->real->run_vectors * width : wide;
}

/* The parts of strips that lie in columns [first, first + run) of their block; returns how many there are. */
static int strips_within(const fl_pack_strip *strip, int count, int64_t first, int64_t run, int64_t row_bytes,
                         fl_pack_strip *to)
{
    int n = 0;
    for (int i = 0; i < count; i++) {
        const int64_t begin = strip[i].at > first ? strip[i].at : first;
        const int64_t end = least(strip[i].at + strip[i].lanes, first + run);
        if (begin < end)
            to[n++] = (fl_pack_strip){(const char *)strip[i].from + (begin - strip[i].at) * row_bytes, end - begin,
                                      begin - first};
    }
    return n;
}

/* Fills a run from strips of rows of weights. */
static void pack_run(const fl_packer *p, char *to, const fl_pack_strip *strip, int count, int64_t wide, int64_t ld,
                     int64_t k)
{
    int64_t lanes = 0, cut = 0;
    for (int i = 0; i < count; i++) {
        lanes += strip[i].lanes;
        cut |= strip[i].lanes % p->real->width;
    }
    const fl_pack_args args = {.strip = strip, .count = count, .whole = !cut && lanes == wide, .stream = p->stream,
                               .ld = ld, .k = k, .to = to, .wide = wide};
    p->real->pack_rows(&args);
}

/* Fills a block, run by run. */
static void pack_strips(const fl_packer *p, char *to, const fl_pack_strip *strip, int count, int64_t wide, int64_t ld,
                        int64_t k)
{
    const int64_t run = run_columns(p, wide);
    fl_pack_strip within[FL_SIDES];
    if (run == wide) {
        pack_run(p, to, strip, count, wide, ld, k);
        return;
    }
    for (int64_t first = 0; first < wide; first += run) {
        const int n = strips_within(strip, count, first, run, ld * p->unit, within);
        pack_run(p, to + first * k * p->unit, within, n, run, ld, k);
    }
}

void fl_pack_gates(const fl_packer *p, const void *panel, const void *src, int64_t gate_stride, int64_t ld,
                   const fl_gate_layout *layout, int64_t k)
{
    const int64_t hidden = layout->hidden, size = (int64_t)layout->units * layout->width;
    fl_pack_strip strip[FL_PANEL_VECTORS];
    for (int64_t unit = 0; unit < hidden; unit += size) {
        const fl_gate_place at = fl_gate_place_of(layout, unit);
        char *to = (char *)panel + at.first * k * p->unit;
        if (!is_own(p, to)) continue;
        for (int gate = 0; gate < layout->gates; gate++)
            strip[gate] = (fl_pack_strip){(const char *)src + (gate * gate_stride + unit) * ld * p->unit,
                                          least(size, hidden - unit), gate * at.apart};
        pack_strips(p, to, strip, layout->gates, at.wide, ld, k);
    }
}

void fl_pack_rows(const fl_packer *p, const void *panel, const fl_piece *piece, int count, int64_t col0, int64_t k,
                  int64_t ld)
{
    const int64_t width = p->real->width, block = FL_PANEL_VECTORS * width;
    fl_pack_strip strip[FL_SIDES];
    int64_t columns = 0, row = 0; /* the next row of the piece `from` */
    int from = 0;
    for (int i = 0; i < count; i++) columns += piece[i].rows;
    for (int64_t column = 0; column < columns; column += block) {
        const int64_t lanes = least(block, columns - column);
        int strips = 0;
        for (int64_t at = 0; at < lanes; strips++) {
            const int64_t n = least(lanes - at, piece[from].rows - row);
            strip[strips] = (fl_pack_strip){(const char *)piece[from].data + (row * ld + col0) * p->unit, n, at};
            at += n;
            row += n;
            if (row < piece[from].rows) continue;
            row = 0;
            from++;
        }
        char *to = (char *)panel + column * k * p->unit;
        if (is_own(p, to)) pack_strips(p, to, strip, strips, fl_plain_columns(lanes, width), ld, k);
    }
}

/* Some rows at a time of all blocks, so that a row of weights is read from one end to the other. */
void fl_pack_back(const fl_packer *p, const void *panel, const fl_piece *piece, int count, int64_t col0,
                  int64_t columns, int64_t ld)
{
    enum { ROWS = 16 };
    const int64_t width = p->real->width, block = FL_PANEL_VECTORS * width;
    int64_t k = 0, first = 0;
    for (int i = 0; i < count; i++) k += piece[i].rows;
    for (int i = 0; i < count; first += piece[i++].rows)
        for (int64_t row = 0; row < piece[i].rows; row += ROWS)
            for (int64_t column = 0; column < columns; column += block) {
                char *to = (char *)panel + column * k * p->unit;
                if (!is_own(p, to)) continue;
                const int64_t lanes = least(block, columns - column), wide = fl_plain_columns(lanes, width);
                const int64_t run = run_columns(p, wide);
                const char *from = (const char *)piece[i].data + (row * ld + col0 + column) * p->unit;
                for (int64_t at = 0; at < wide; at += run) {
                    const fl_pack_strip strip = {from + at * p->unit, least(run, lanes - at), 0};
                    const fl_pack_args args = {.strip = &strip, .count = 1, .stream = p->stream, .ld = ld,
                                               .k = least(ROWS, piece[i].rows - row), .wide = run,
                                               .to = to + (at * k + (first + row) * run) * p->unit};
                    p->real->pack_columns(&args);
                }
            }
}

void fl_pack_copy(const fl_packer *p, const void *to, const void *from, int64_t n)
{
    if (is_own(p, to)) memcpy((void *)to, from, (size_t)(n * p->unit));
}

void fl_pack_zeros(const fl_packer *p, const void *to, int64_t n)
{
    if (is_own(p, to)) memset((void *)to, 0, (size_t)(n * p->unit));
}

void fl_pack_bias(int dtype, void *bias, void *bias_h, const void *bias_ih, const void *bias_hh, int64_t gate_stride,
                  const fl_gate_layout *layout)
{
    for (int64_t gate = 0; gate < layout->gates; gate++)
        for (int64_t unit = 0; unit < layout->hidden; unit++) {
            const int64_t from = gate * gate_stride + unit, to = fl_gate_column(layout, gate, unit);
            const double x = bias_ih ? get(dtype, bias_ih, from) : 0.0, h = bias_hh ? get(dtype, bias_hh, from) : 0.0;
            put(dtype, bias, to, gate < layout->joint ? x + h : x);
            if (gate >= layout->joint) put(dtype, bias_h, to, h);
        }
}

/* --- threads */

enum {
    SMALL = 1 << 16,   /* bytes that take less time to pack than a thread to wake, on any machine */
    STREAMED = 1 << 23 /* bytes from which on the first panel is no longer in a cache when the last one is packed */
};

/* Packing reads and writes every byte.  What is compared: the time of one thread, and that of n with waking them. */
static int threads_for(double bytes, int limit)
{
    fl_machine m;
    fl_machine_get(&m);
    double least_ns = 2 * bytes / m.shared_bytes_per_ns;
    if (least_ns <= 2 * m.wake_ns) return 1; /* half of it is saved at most by the second thread */
    const int most = (int)least(fl_team_limit(limit), (int64_t)m.cores);
    int best = 1;
    for (int n = 2; n <= most; n++) {
        const double start = m.wake_ns + m.wake_each_ns * (n - 2), together = m.shared_bytes_per_ns * n;
        const double rate = together < m.shared_bytes_per_ns_all ? together : m.shared_bytes_per_ns_all;
        const double ns = start + 2 * bytes / rate;
        if (ns < least_ns) best = n;
        if (ns < least_ns) least_ns = ns;
    }
    return best;
}

int fl_pack_threads(size_t bytes, int limit) { return bytes < SMALL ? 1 : threads_for((double)bytes, limit); }

typedef struct fl_pack_call {
    const fl_pack_work *work;
    int stream;
} fl_pack_call;

static void pack_worker(int worker, int workers, void *arg)
{
    const fl_pack_call *call = arg;
    const fl_pack_work *w = call->work;
    const int64_t bytes = (int64_t)w->bytes;
    const fl_packer packer = {.real = w->real, .unit = w->unit, .stream = call->stream,
                              .first = w->memory + fl_share(bytes, worker, workers),
                              .end = w->memory + fl_share(bytes, worker + 1, workers)};
    w->fn(&packer, w->arg);
    if (call->stream) atomic_thread_fence(memory_order_seq_cst); /* what went past the caches, before others read it */
}

void fl_pack_run(const fl_pack_work *work, int threads)
{
    fl_pack_call call = {work, work->bytes >= STREAMED};
    const int n = fl_pack_threads(work->bytes, threads);
    if (n > 1)
        fl_team_run(n, pack_worker, &call);
    else
        pack_worker(0, 1, &call);
}
