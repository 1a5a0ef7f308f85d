/* The products over all steps of a stretch at once, while its dgates are still in cache: gradients of the input and of
 * the weights. */
#include <string.h>

#include "fl_gradient.h"

/* The rows that a piece of a weight's gradient sums over; NULL: the piece is a vector's. */
static const void *const *operand_of(const fl_back *job, int operand)
{
    switch (operand) {
    case FL_OF_X: return job->x;
    case FL_OF_H: return job->h;
    case FL_OF_HEARD: return job->heard;
    case FL_OF_FED: return job->fed;
    default: return NULL;
    }
}

static void weight_gradient(const fl_back *job, const fl_back_stretch *s, const fl_side *side, void *gradient,
                            int worker, int workers)
{
    const int64_t unit = job->m->unit;
    const int64_t j0 = fl_share(side->columns, worker, workers), j1 = fl_share(side->columns, worker + 1, workers);
    const char *g = job->dgates + side->first * unit;
    if (side->operand == FL_OF_ONE) {
        const fl_colsum_args sum = {s->rows, j0, j1, g, job->m->gradient_stride, (char *)gradient + side->row0 * unit};
        job->m->real->colsum(&sum);
        return;
    }
    const fl_outer_args outer = {
        .rows = s->rows,
        .j0 = j0,
        .j1 = j1,
        .n = side->n,
        .g = g,
        .g_stride = job->m->gradient_stride,
        .a = operand_of(job, side->operand),
        .c = (char *)gradient + (side->row0 * side->ld + side->col0) * unit,
        .c_stride = side->ld,
    };
    const fl_pieces pieces = fl_back_pieces(job, worker);
    fl_pieces_outer(job->m->real, &outer, &pieces);
}

static void projection_gradient(const fl_back *job, const fl_back_stretch *s, void *gradient, int worker, int workers)
{
    const int64_t P = job->m->spec.proj_size, H = job->m->spec.hidden_size;
    const fl_outer_args outer = {
        .rows = s->rows,
        .j0 = fl_share(P, worker, workers),
        .j1 = fl_share(P, worker + 1, workers),
        .n = H,
        .g = job->dh,
        .g_stride = P,
        .a = job->m_rows,
        .c = gradient,
        .c_stride = H,
    };
    const fl_pieces pieces = fl_back_pieces(job, worker);
    fl_pieces_outer(job->m->real, &outer, &pieces);
}

/* Rows [first, end) of dx, by way of mask_x if there is one. */
static void input_gradient(const fl_back *job, const fl_back_stretch *s, const fl_packed *p, int64_t first, int64_t end,
                           int worker)
{
    const fl_model *m = job->m;
    const fl_product_args product = {
        .rows = end - first,
        .k = p->x_rows,
        .columns = p->inputs,
        .block0 = 0,
        .block1 = fl_plain_blocks(p->inputs, m->width),
        .vectors = FL_PANEL_VECTORS,
        .a = job->g + first,
        .panel = p->panel_xt,
        .accumulate = s->dir && !s->mask_x,
        .out = s->mask_x ? (void *const *)job->masked_rows + first : job->dx + first,
    };
    for (int64_t q = first; q < end && s->mask_x; q++)
        job->masked_rows[q] = job->dx_masked + q * p->inputs * m->unit;
    const fl_pieces pieces = fl_back_pieces(job, worker);
    fl_pieces_product(m->real, &product, &pieces);
}

/* dx of rows [first, end) from what came through the mask; the second direction adds to the first. */
static void unmask(const fl_back *job, const fl_back_stretch *s, const fl_packed *p, int64_t first, int64_t end)
{
    const fl_model *m = job->m;
    for (int64_t q = first; q < end; q++) {
        char *from = job->dx_masked + q * p->inputs * m->unit;
        const void *mask = fl_mask_row(m, s->mask_x, job->batch_row[q], p->inputs);
        m->real->mul(from, mask, s->dir ? from : job->dx[q], p->inputs);
        if (s->dir) m->real->add(from, job->dx[q], job->dx[q], p->inputs);
    }
}

void fl_back_products(fl_back *job, const fl_back_stretch *s, int worker, int workers)
{
    const fl_model *m = job->m;
    const int64_t slot = s->layer * m->spec.directions + s->dir;
    const fl_packed *p = &m->layers[slot];
    const fl_gradients *grad = &job->back->gradients[slot];
    const int64_t first = fl_share(s->rows, worker, workers), end = fl_share(s->rows, worker + 1, workers);
    const int clockwork = m->spec.cell == FL_CELL_CLOCKWORK;
    if (clockwork)
        fl_clockwork_products(job, s, worker, workers);
    else if (s->dx.data)
        input_gradient(job, s, p, first, end, worker);
    if (s->dx.data && s->mask_x) {
        if (clockwork) fl_barrier_wait(job->team, worker, workers); /* its columns are shared, not its rows */
        unmask(job, s, p, first, end);
    }
    if (clockwork) return;
    for (int i = 0; i < p->side_count; i++) {
        const fl_side *side = &p->side[i];
        weight_gradient(job, s, side, fl_gradient_of(grad, side->tensor), worker, workers);
    }
    if (m->spec.proj_size) projection_gradient(job, s, grad->weight_hr, worker, workers);
}

/* C (m, n) := op(A) . B + beta * C */
static void gemm(const fl_back *job, int trans_a, int64_t m, int64_t n, int64_t k, const void *a, int64_t lda,
                 const void *b, double beta, void *c)
{
    const fl_matmul gemm = {.dtype = job->m->spec.dtype, .trans_a = trans_a, .m = m, .n = n, .k = k, .a = a, .b = b,
                            .c = c, .lda = lda, .ldb = n, .ldc = n, .beta = beta};
    fl_pieces_gemm(job->call->blas, &gemm, job->stop);
}

static const void *gather(const fl_back *job, const fl_back_stretch *s, const void *const *rows, int64_t n)
{
    for (int64_t q = 0; q < s->rows; q++)
        memcpy(job->gather + q * n * job->m->unit, rows[q], (size_t)(n * job->m->unit));
    return job->gather;
}

void fl_back_products_blas(fl_back *job, const fl_back_stretch *s)
{
    const fl_model *m = job->m;
    const int64_t slot = s->layer * m->spec.directions + s->dir;
    const fl_packed *p = &m->layers[slot];
    const fl_gradients *grad = &job->back->gradients[slot];
    if (s->rows == 0) return;
    if (s->dx.data) {
        gemm(job, 0, s->rows, p->inputs, p->x_rows, job->dgates + p->x_first * m->unit, m->gradient_stride,
             p->plain_x, 0.0, job->gather);
        for (int64_t q = 0; q < s->rows; q++) {
            char *from = job->gather + q * p->inputs * m->unit;
            if (s->mask_x) m->real->mul(from, fl_mask_row(m, s->mask_x, job->batch_row[q], p->inputs), from, p->inputs);
            if (s->dir)
                m->real->add(from, job->dx[q], job->dx[q], p->inputs);
            else
                memcpy(job->dx[q], from, (size_t)(p->inputs * m->unit));
        }
    }
    for (int i = 0; i < p->side_count; i++) {
        const fl_side *side = &p->side[i];
        char *to = fl_gradient_of(grad, side->tensor);
        if (side->operand == FL_OF_ONE)
            weight_gradient(job, s, side, to, 0, 1);
        else
            gemm(job, 1, side->columns, side->n, s->rows, job->dgates + side->first * m->unit, m->gradient_stride,
                 gather(job, s, operand_of(job, side->operand), side->n), 1.0, to + side->row0 * side->ld * m->unit);
    }
    if (m->spec.proj_size)
        gemm(job, 1, m->spec.proj_size, m->spec.hidden_size, s->rows, job->dh, m->spec.proj_size, job->cell_out, 1.0,
             grad->weight_hr);
}
