/* Weights into one block of a panel: see fl_pack_args. */

enum { V(PACK_LINE) = 64 / sizeof(real) }; /* elements of a cache line */
#if defined(__GNUC__) || defined(__clang__)
#define FL_READ_SOON(p) __builtin_prefetch(p, 0, 0)
#else
#define FL_READ_SOON(p) ((void)(p))
#endif

/* to[i * step + j] = from[j * ld + i] for j below FL_W and i below n; where j >= rows, 0 or what is there. */
FL_INLINE void V(pack_group)(const real *from, int64_t ld, int rows, int64_t n, real *to, int64_t step)
{
    vec row[FL_W];
    int64_t i = 0;
    if (rows * (n < FL_W ? n : FL_W) <= 2 * FL_W) { /* a transposition has more operations than this has numbers */
        for (; i < n; i++)
            for (int j = 0; j < rows; j++) to[i * step + j] = from[j * ld + i];
        return;
    }
    for (; rows == FL_W && i + FL_W <= n; i += FL_W) {
        for (int j = 0; j < FL_W; j++) row[j] = V(load)(from + j * ld + i);
        V(transpose)(row);
        for (int j = 0; j < FL_W; j++) V(store)(to + (i + j) * step, row[j]);
    }
    for (; i < n; i += FL_W) {
        const int some = (int)(n - i < FL_W ? n - i : FL_W);
        for (int j = 0; j < FL_W; j++) row[j] = j < rows ? V(load_n)(from + j * ld + i, some) : V(zero)();
        V(transpose)(row);
        for (int j = 0; j < FL_W; j++)
            if (j < some) V(store)(to + (i + j) * step, row[j]);
    }
}

/* n elements from element k0 on of all strips.  Strips lie in rising order, and a group of less than FL_W rows writes
 * zeros into the lanes behind it, before the strip that they belong to is written. */
FL_INLINE void V(pack_tile)(const fl_pack_args *p, int64_t k0, int64_t n, real *to, int64_t step)
{
    for (int s = 0; s < p->count; s++) {
        const fl_pack_strip *strip = &p->strip[s];
        for (int64_t lane = 0; lane < strip->lanes; lane += FL_W) {
            const int64_t rows = strip->lanes - lane < FL_W ? strip->lanes - lane : FL_W;
            const real *from = (const real *)strip->from + lane * p->ld + k0;
            for (int64_t j = 0; p->stream && k0 + 2 * n <= p->k && j < rows; j++) FL_READ_SOON(from + j * p->ld + n);
            V(pack_group)(from, p->ld, (int)rows, n, to + strip->at + lane, step);
        }
    }
}

/* Through memory that stays in the first cache, with room for what a last group writes too much. */
static FL_NOINLINE void V(pack_by_way)(const fl_pack_args *p)
{
    _Alignas(64) real room[V(PACK_LINE) * (FL_PANEL_VECTORS + 1) * FL_W];
    const int64_t step = p->wide + FL_W, most = p->k < V(PACK_LINE) ? p->k : V(PACK_LINE);
    if (!p->whole) memset(room, 0, (size_t)(most * step) * sizeof(real)); /* lanes that no strip has */
    for (int64_t k0 = 0; k0 < p->k; k0 += V(PACK_LINE)) {
        const int64_t n = p->k - k0 < V(PACK_LINE) ? p->k - k0 : V(PACK_LINE);
        real *to = (real *)p->to + k0 * p->wide;
        V(pack_tile)(p, k0, n, room, step);
        for (int64_t i = 0; i < n; i++)
            for (int64_t lane = 0; lane < p->wide; lane += FL_W, to += FL_W) {
                const vec a = V(load)(room + i * step + lane);
                if (p->stream)
                    V(stream)(to, a);
                else
                    V(store)(to, a);
            }
    }
}

/* A block of tiny layers. */
static FL_NOINLINE void V(pack_few)(const fl_pack_args *p)
{
    real *to = (real *)p->to;
    for (int64_t i = 0; i < p->k * p->wide; i += FL_W) V(store)(to + i, V(zero)());
    for (int s = 0; s < p->count; s++) {
        const real *from = (const real *)p->strip[s].from;
        for (int64_t j = 0; j < p->strip[s].lanes; j++)
            for (int64_t i = 0; i < p->k; i++) to[i * p->wide + p->strip[s].at + j] = from[j * p->ld + i];
    }
}

static void V(pack_rows)(const fl_pack_args *p)
{
    if (p->k * p->wide <= 64) {
        V(pack_few)(p);
        return;
    }
    if (p->stream || !p->whole) {
        V(pack_by_way)(p);
        return;
    }
    enum { TILE = 2 * V(PACK_LINE) };
    for (int64_t k0 = 0; k0 < p->k; k0 += TILE) {
        const int64_t n = p->k - k0 < TILE ? p->k - k0 : TILE;
        V(pack_tile)(p, k0, n, (real *)p->to + k0 * p->wide, p->wide);
    }
}

static void V(pack_columns)(const fl_pack_args *p)
{
    const int64_t lanes = p->strip->lanes;
    const real *from = (const real *)p->strip->from;
    real *to = (real *)p->to;
    for (int64_t i = 0; i < p->k; i++, from += p->ld)
        for (int64_t lane = 0; lane < p->wide; lane += FL_W, to += FL_W) {
            const int64_t left = lanes - lane;
            const vec a = left >= FL_W ? V(load)(from + lane) : V(load_n)(from + lane, (int)left);
            if (p->stream)
                V(stream)(to, a);
            else
                V(store)(to, a);
        }
}
#undef FL_READ_SOON
