/* The products over all steps of a stretch at once, while its dgates are still in cache: gradients of the input and of
 * the weights. */
#include <string.h>

#include "fl_gradient.h"

/* Rows [row0, row0 + columns) of a weight's gradient from as many columns of g; rows of g are `stride` long. */
typedef struct fl_side {
    const char *g;
    int64_t stride, columns, row0;
} fl_side;

static fl_side x_side(const fl_back *job)
{
    const fl_model *m = job->m;
    const int64_t h = m->spec.hidden_size;
    return (fl_side){job->dgates + fl_x_side(m) * m->unit, m->kept * h, m->gates * h, 0};
}

/* The h-parts' columns go round: `part` 0 are those from column 0 on, part 1 the rest, if any. */
static fl_side h_side(const fl_back *job, int part)
{
    const fl_model *m = job->m;
    const int64_t h = m->spec.hidden_size, first = fl_h_first_row(m), columns = m->gates * h - first;
    if (part == 0) return (fl_side){job->dgates, m->kept * h, columns, first};
    return (fl_side){job->dgates + columns * m->unit, m->kept * h, first, 0};
}

static void weight_gradient(const fl_back *job, const fl_back_stretch *s, fl_side side, const void *const *a, int64_t n,
                            void *gradient, int worker, int workers)
{
    const fl_outer_args outer = {
        .rows = s->rows,
        .j0 = fl_share(side.columns, worker, workers),
        .j1 = fl_share(side.columns, worker + 1, workers),
        .n = n,
        .g = side.g,
        .g_stride = side.stride,
        .a = a,
        .c = (char *)gradient + side.row0 * n * job->m->unit,
    };
    job->m->real->outer(&outer);
}

static void bias_gradient(const fl_back *job, const fl_back_stretch *s, fl_side side, void *gradient, int worker,
                          int workers)
{
    const fl_colsum_args sum = {
        .rows = s->rows,
        .j0 = fl_share(side.columns, worker, workers),
        .j1 = fl_share(side.columns, worker + 1, workers),
        .g = side.g,
        .g_stride = side.stride,
        .s = (char *)gradient + side.row0 * job->m->unit,
    };
    job->m->real->colsum(&sum);
}

static void bias_gradients(const fl_back *job, const fl_back_stretch *s, const fl_gradients *grad, int worker,
                           int workers)
{
    bias_gradient(job, s, x_side(job), grad->bias, worker, workers);
    for (int part = 0; part < 2 && grad->bias_hh; part++)
        bias_gradient(job, s, h_side(job, part), grad->bias_hh, worker, workers);
}

void fl_back_products(fl_back *job, const fl_back_stretch *s, int worker, int workers)
{
    const fl_model *m = job->m;
    const int64_t slot = s->layer * m->spec.directions + s->dir;
    const fl_packed *p = &m->layers[slot];
    const fl_gradients *grad = &job->back->gradients[slot];
    if (s->dx.data) {
        const int64_t first = fl_share(s->rows, worker, workers), end = fl_share(s->rows, worker + 1, workers);
        const fl_product_args product = {
            .rows = end - first,
            .k = m->gates * m->spec.hidden_size,
            .columns = p->inputs,
            .block0 = 0,
            .block1 = fl_plain_blocks(p->inputs, m->width),
            .vectors = FL_PANEL_VECTORS,
            .a = job->g + first,
            .panel = p->panel_xt,
            .accumulate = s->dir,
            .out = job->dx + first,
        };
        m->real->product(&product);
    }
    weight_gradient(job, s, x_side(job), job->x, p->inputs, grad->weight_ih, worker, workers);
    for (int part = 0; part < 2; part++)
        weight_gradient(job, s, h_side(job, part), job->h, m->recurrent, grad->weight_hh, worker, workers);
    bias_gradients(job, s, grad, worker, workers);
    if (m->spec.proj_size) {
        const fl_side side = {job->dh, m->spec.proj_size, m->spec.proj_size, 0};
        weight_gradient(job, s, side, job->m_rows, m->spec.hidden_size, grad->weight_hr, worker, workers);
    }
}

/* C (m, n) := op(A) . B + beta * C */
static void gemm(const fl_back *job, int trans_a, int64_t m, int64_t n, int64_t k, const void *a, int64_t lda,
                 const void *b, double beta, void *c)
{
    if (job->m->spec.dtype == FL_F64)
        job->call->blas->dgemm(trans_a, 0, m, n, k, 1.0, a, lda, b, n, beta, c, n);
    else
        job->call->blas->sgemm(trans_a, 0, m, n, k, 1.0f, a, lda, b, n, (float)beta, c, n);
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
    const fl_side x = x_side(job);
    if (s->dx.data) {
        gemm(job, 0, s->rows, p->inputs, x.columns, x.g, x.stride, p->plain_x, 0.0, job->gather);
        for (int64_t q = 0; q < s->rows; q++) {
            const char *from = job->gather + q * p->inputs * m->unit;
            if (s->dir)
                m->real->add(from, job->dx[q], job->dx[q], p->inputs);
            else
                memcpy(job->dx[q], from, (size_t)(p->inputs * m->unit));
        }
    }
    gemm(job, 1, x.columns, p->inputs, s->rows, x.g, x.stride, gather(job, s, job->x, p->inputs), 1.0, grad->weight_ih);
    gather(job, s, job->h, m->recurrent);
    for (int part = 0; part < 2; part++) {
        const fl_side h = h_side(job, part);
        if (h.columns == 0) continue;
        gemm(job, 1, h.columns, m->recurrent, s->rows, h.g, h.stride, job->gather, 1.0,
             (char *)grad->weight_hh + h.row0 * m->recurrent * m->unit);
    }
    bias_gradients(job, s, grad, 0, 1);
    if (m->spec.proj_size)
        gemm(job, 1, m->spec.proj_size, m->spec.hidden_size, s->rows, job->dh, m->spec.proj_size, job->cell_out, 1.0,
             grad->weight_hr);
}
