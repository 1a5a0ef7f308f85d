/* A step of one row that computes the input products of later rows on the side.
 *
 * One row is bound by the speed at which its weights come from L2, and leaves the multipliers idle half of the time;
 * input products ahead of the recurrence are bound by the multipliers.  One after the other they take the sum of
 * both times; with their instructions mixed they take little more than the longer one.  A tile of FL_AHEAD_ROWS later
 * rows times one block is spread over as many visits to blocks of the recurrent panel; between visits its accumulators
 * rest in `pre`, which changes no bit of any chain. */

#if FL_AHEAD_ROWS

typedef struct V(ahead_work) {
    const real *panel, *h, *init; /* the row's own chain: k links over a block of nv vectors, from init to out */
    real *out;
    int64_t k;
    const real *beside, *x[FL_AHEAD_ROWS], *from[FL_AHEAD_ROWS]; /* n links of the other rows' chains */
    real *to[FL_AHEAD_ROWS];
    int64_t n;
} V(ahead_work);

FL_INLINE void V(ahead_body)(const V(ahead_work) * t, const int nv)
{
    const real *panel = t->panel, *beside = t->beside;
    const real *const h = t->h;
    const int64_t k = t->k, n = t->n;
    const real *x[FL_AHEAD_ROWS];
    FL_UNROLL
    for (int m = 0; m < FL_AHEAD_ROWS; m++) x[m] = t->x[m];
    vec acc[4], side[FL_AHEAD_ROWS][4];
    FL_UNROLL
    for (int v = 0; v < nv; v++) acc[v] = V(load)(t->init + v * FL_W);
    FL_UNROLL
    for (int m = 0; m < FL_AHEAD_ROWS; m++) {
        FL_UNROLL
        for (int v = 0; v < nv; v++) side[m][v] = V(load)(t->from[m] + v * FL_W);
    }
    /* FL_AHEAD_ROWS links of the row's own chain to one of each of the others: equal work when k = K */
    int64_t i = 0, j = 0;
    for (; j < n && i + FL_AHEAD_ROWS <= k; j++, i += FL_AHEAD_ROWS, beside += nv * FL_W) {
        vec w[4];
        FL_UNROLL
        for (int v = 0; v < nv; v++) w[v] = V(load)(beside + v * FL_W);
        FL_UNROLL
        for (int m = 0; m < FL_AHEAD_ROWS; m++, panel += nv * FL_W) {
            const vec other = V(set1)(x[m][j]), own = V(set1)(h[i + m]);
            FL_UNROLL
            for (int v = 0; v < nv; v++) {
                side[m][v] = V(fma)(other, w[v], side[m][v]);
                acc[v] = V(fma)(own, V(load)(panel + v * FL_W), acc[v]);
            }
        }
    }
    for (; j < n; j++, beside += nv * FL_W) {
        vec w[4];
        FL_UNROLL
        for (int v = 0; v < nv; v++) w[v] = V(load)(beside + v * FL_W);
        FL_UNROLL
        for (int m = 0; m < FL_AHEAD_ROWS; m++) {
            const vec other = V(set1)(x[m][j]);
            FL_UNROLL
            for (int v = 0; v < nv; v++) side[m][v] = V(fma)(other, w[v], side[m][v]);
        }
    }
    for (; i < k; i++, panel += nv * FL_W) {
        const vec own = V(set1)(h[i]);
        FL_UNROLL
        for (int v = 0; v < nv; v++) acc[v] = V(fma)(own, V(load)(panel + v * FL_W), acc[v]);
    }
    FL_UNROLL
    for (int v = 0; v < nv; v++) V(store)(t->out + v * FL_W, acc[v]);
    FL_UNROLL
    for (int m = 0; m < FL_AHEAD_ROWS; m++) {
        FL_UNROLL
        for (int v = 0; v < nv; v++) V(store)(t->to[m] + v * FL_W, side[m][v]);
    }
}

/* Kept apart from their caller: with all its pointers in one frame the compiler spills in the innermost loop. */
static FL_NOINLINE void V(ahead_tile_3)(const V(ahead_work) * t) { V(ahead_body)(t, 3); }
static FL_NOINLINE void V(ahead_tile_4)(const V(ahead_work) * t) { V(ahead_body)(t, 4); }

/* Visit number `visit` of the group: a part of one tile, the parts of a tile following each other. */
static void V(ahead_visit)(const fl_step_args *s, const fl_ahead_args *a, int64_t block, int64_t visit, int vectors,
                           const real *init, real *out)
{
    const int64_t size = vectors * FL_W, tile = s->block0 + visit / FL_AHEAD_ROWS, part = visit % FL_AHEAD_ROWS;
    const int64_t share = (a->k + FL_AHEAD_ROWS - 1) / FL_AHEAD_ROWS, k0 = part * share < a->k ? part * share : a->k;
    const int64_t k1 = k0 + share < a->k ? k0 + share : a->k;
    V(ahead_work)
    work = {
        .panel = (const real *)s->panel_h + block * size * s->k_h,
        .h = (const real *)s->h[0],
        .init = init,
        .out = out,
        .k = s->k_h,
        .beside = (const real *)a->panel + (tile * a->k + k0) * size,
        .n = k1 - k0,
    };
    for (int m = 0; m < FL_AHEAD_ROWS; m++) {
        work.x[m] = (const real *)a->x[m] + k0;
        work.to[m] = (real *)a->pre[m] + tile * size;
        work.from[m] = part ? work.to[m] : (const real *)s->bias + tile * size;
    }
    if (vectors == 3)
        V(ahead_tile_3)(&work);
    else
        V(ahead_tile_4)(&work);
}

/* One step of one row with its input product in `pre`, and a share of the products of `a`.  Blocks that make no full
 * tile (a narrow last block and the full one before it) are done the usual way, theirs of `a` in the last share. */
FL_INLINE void V(ahead_any)(const fl_step_args *s, const fl_ahead_args *a, const V(cell_shape) shape, V(cell_fn) begin,
                            V(cell_fn) end, V(cell_fn) cut)
{
    const int narrow = V(narrow_of)(s, shape);
    const int64_t blocks = s->block1 - s->block0;
    const int64_t others = !narrow ? 0 : blocks < 2 ? blocks : 2; /* a worker may have the narrow block alone */
    const int64_t full = blocks - others;
    for (int64_t i = 0; i < full; i++) {
        _Alignas(64) real tile[4 * FL_W];
        const int64_t block = s->backward_sweep ? s->block0 + full - 1 - i : s->block0 + i;
        const V(group) g = {block, 1, 0};
        const real *x_part = (const real *)s->pre[0] + block * shape.vectors * FL_W, *init = x_part;
        if (shape.joint < shape.gates) {
            V(start_h)(tile, x_part, (const real *)s->bias_h + block * shape.vectors * FL_W, g, shape);
            init = tile;
        }
        V(ahead_visit)(s, a, block, a->share * full + i, shape.vectors, init, tile);
        V(eat_begin)(s, g, tile, x_part, 0, shape, begin, cut);
        V(eat_end)(s, g, tile, 0, shape, end);
    }
    if (!narrow) return;
    V(step_tile)(s, (V(group)){s->block0 + full, (int)others - 1, narrow}, 0, 1, shape, begin, end, cut);
    if (a->share < FL_AHEAD_ROWS - 1) return;
    const fl_product_args rest = {
        .rows = FL_AHEAD_ROWS,
        .k = a->k,
        .columns = ((s->block1 - 1) * shape.vectors + narrow) * FL_W,
        .block0 = s->block0 + full,
        .block1 = s->block1,
        .vectors = shape.vectors,
        .a = a->x,
        .panel = a->panel,
        .bias = s->bias,
        .out = a->pre,
    };
    V(product)(&rest);
}

#endif
