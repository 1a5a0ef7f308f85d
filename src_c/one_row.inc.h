/* One row through some steps, everything of a step in one function: for streams and short sequences of small layers,
 * where pointer lists and calls would take longer than the arithmetic.
 *
 * A step is two phases.  First the sums of all gates go to `tile`; then the cell eats them, one vector of units after
 * the other, so that their latencies overlap.  Where a step's sums do not fit the tile, the cell eats group by group.
 * Chains are those of the tile product: the same bits. */

enum { V(ONE_ROW_VECTORS) = 64 };

static const real V(lane_numbers)[64] = {
    0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28,
    29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57,
    58, 59, 60, 61, 62, 63};
_Static_assert(FL_PANEL_VECTORS * FL_W <= 64, "a number for each lane of a block");

/* nb neighbouring blocks of nv vectors and a narrow one of nt after them; joint: gates of a block that are. */
FL_INLINE void V(one_row_body)(const fl_one_row_group *g, const real *x, const real *h, real *tile, real *x_tile,
                               const int nb, const int nv, const int nt, const int joint)
{
    vec acc[12];
    const int all = nb * nv + nt;
    const real *const bias = g->bias, *const bias_h = g->bias_h;
    const void *const x_row = x, *const h_row = h;
    const fl_segment of_x = {&x_row, g->panel_x, g->k_x}, of_h = {&h_row, g->panel_h, g->k_h};
    FL_UNROLL
    for (int v = 0; v < all; v++) acc[v] = V(load)(bias + v * FL_W);
    V(accumulate)(acc, 1, nb, nv, nt, &of_x);
    FL_UNROLL
    for (int v = 0; v < all; v++) {
        if (joint == nv || (v < nb * nv && v % nv < joint)) continue;
        const vec h_part = V(load)(bias_h + v * FL_W), x_part = acc[v];
        V(store)(x_tile + v * FL_W, x_part);
        acc[v] = h_part;
        if (v < nb * nv) continue;
        const vec lane = V(load)(V(lane_numbers) + (v - nb * nv) * FL_W);
        acc[v] = V(select)(V(lt)(lane, V(set1)((real)g->joint_lanes)), x_part, h_part);
    }
    V(accumulate)(acc, 1, nb, nv, nt, &of_h);
    FL_UNROLL
    for (int v = 0; v < all; v++) V(store)(tile + v * FL_W, acc[v]);
}

#define FL_ONE_ROW(nv, joint, nb, nt)                                                                                \
    static void V(one_row_##nv##x##nb##p##nt)(const fl_one_row_group *g, const void *x, const void *h, void *tile,   \
                                              void *x_tile)                                                          \
    {                                                                                                                \
        V(one_row_body)(g, x, h, tile, x_tile, nb, nv, nt, joint);                                                   \
    }
#define FL_ONE_ROWS(nv, joint, nb) FL_ONE_ROW(nv, joint, nb, 1) FL_ONE_ROW(nv, joint, nb, 2)
FL_ONE_ROWS(3, 2, 0) FL_ONE_ROWS(3, 2, 1) FL_ONE_ROWS(3, 2, 2) FL_ONE_ROW(3, 2, 1, 0) FL_ONE_ROW(3, 2, 2, 0)
FL_ONE_ROWS(4, 4, 0) FL_ONE_ROWS(4, 4, 1) FL_ONE_ROWS(4, 4, 2) FL_ONE_ROW(4, 4, 1, 0) FL_ONE_ROW(4, 4, 2, 0)
FL_ONE_ROW(4, 4, 0, 3) FL_ONE_ROW(4, 4, 1, 3) FL_ONE_ROW(4, 4, 2, 3)
#undef FL_ONE_ROW
#undef FL_ONE_ROWS

static fl_one_row_sums V(one_row_sums)(int vectors, int full, int last)
{
#define FL_ONE_ROW_OF(nv, nb) {V(one_row_##nv##x##nb##p0), V(one_row_##nv##x##nb##p1), V(one_row_##nv##x##nb##p2)
    static const fl_one_row_sums sums[2][3][FL_PANEL_VECTORS] = {
        {{NULL, V(one_row_3x0p1), V(one_row_3x0p2)}, FL_ONE_ROW_OF(3, 1)}, FL_ONE_ROW_OF(3, 2)}},
        {{NULL, V(one_row_4x0p1), V(one_row_4x0p2), V(one_row_4x0p3)},
         FL_ONE_ROW_OF(4, 1), V(one_row_4x1p3)},
         FL_ONE_ROW_OF(4, 2), V(one_row_4x2p3)}},
    };
#undef FL_ONE_ROW_OF
    return sums[vectors - 3][full][last];
}

FL_INLINE void V(one_row_any)(const fl_one_row_args *a, const V(cell_shape) shape, V(cell_fn) begin, V(cell_fn) end,
                              V(cell_fn) cut)
{
    _Alignas(64) real tile[V(ONE_ROW_VECTORS) * FL_W], x_tile[V(ONE_ROW_VECTORS) * FL_W];
    const fl_one_row *f = a->layer;
    const void *x = a->x, *h = a->h;
    void *c = a->c, *out = a->y;
    const int64_t groups = f->groups;
    const V(group) all = {0, (int)f->full, f->narrow};
    fl_step_args s; /* what a plain body reads of it: to clear all would take as long as a small cell */
    s.hidden = f->hidden;
    s.h = &h;
    s.c_prev = (const void *const *)&c;
    s.c = &c;
    s.h_out = &out;
    s.gates = NULL;
    s.options = f->options;
    for (int64_t t = 0; t < a->steps; t++) {
        if (f->whole) {
            for (int64_t i = 0; i < groups; i++) {
                const fl_one_row_group *g = &f->group[i];
                const int64_t at = g->first * shape.vectors * FL_W;
                g->sums(g, x, h, tile + at, x_tile + at);
            }
            V(eat_begin)(&s, all, tile, x_tile, 0, shape, begin, cut);
            V(eat_end)(&s, all, tile, 0, shape, end);
        } else {
            for (int64_t i = 0; i < groups; i++) {
                const fl_one_row_group *g = &f->group[a->backward_sweep ? groups - 1 - i : i];
                g->sums(g, x, h, tile, x_tile);
                V(eat_begin)(&s, (V(group)){g->first, g->full, g->last}, tile, x_tile, 0, shape, begin, cut);
                V(eat_end)(&s, (V(group)){g->first, g->full, g->last}, tile, 0, shape, end);
            }
        }
        h = out;
        if (t + 1 == a->steps) break; /* a step that is not made may lie anywhere */
        out = (real *)out + a->y_step;
        x = (const real *)x + a->x_step;
    }
    if (!a->also) return;
    for (int64_t u = 0; u < f->hidden; u += FL_W) {
        const int64_t n = f->hidden - u;
        if (n >= FL_W)
            V(store)((real *)a->also + u, V(load)((const real *)h + u));
        else
            V(store_n)((real *)a->also + u, V(load_n)((const real *)h + u, (int)n), (int)n);
    }
}
