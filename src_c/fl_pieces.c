/* Long products in pieces: see fl_pieces.h. */
#include "fl_pieces.h"

#include "fl_internal.h"

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Blocks of columns one after the other, and rows within them, as the kernel goes itself. */
static void cut_product(const fl_real_kernels *real, const fl_product_args *product, const fl_pieces *of, double ns)
{
    enum { ROWS = FL_STRIP_ROWS }; /* reading the weights again costs nothing beside so many rows */
    const int64_t blocks = product->block1 - product->block0, strips = (product->rows + ROWS - 1) / ROWS;
    const int64_t parts = fl_stop_parts(of->stop, ns / (double)strips, blocks);
    for (int64_t i = 0; i < parts; i++)
        for (int64_t r = 0; r < product->rows; r += ROWS) {
            if (fl_stop_look(of->stop, of->worker, ns / (double)(parts * strips))) return;
            fl_product_args piece = *product;
            piece.block0 = product->block0 + blocks * i / parts;
            piece.block1 = product->block0 + blocks * (i + 1) / parts;
            piece.rows = least(product->rows - r, ROWS);
            piece.a = product->a + r;
            piece.out = product->out + r;
            real->product(&piece);
        }
}

void fl_pieces_product(const fl_real_kernels *real, const fl_product_args *product, const fl_pieces *of)
{
    if (of->stop) {
        const double columns = (double)(product->block1 - product->block0) * product->vectors * real->width;
        const double ns = 2 * (double)product->rows * (double)product->k * columns * of->flop_ns;
        if (ns > of->stop->piece_ns) {
            cut_product(real, product, of, ns);
            return;
        }
    }
    real->product(product);
}

/* Rows in groups of FL_OUTER_ROWS, whose sums the kernel adds one after the other. */
static void cut_outer(const fl_real_kernels *real, const fl_outer_args *outer, const fl_pieces *of, double row_ns)
{
    const int64_t wide = outer->j1 - outer->j0;
    const double group_ns = FL_OUTER_ROWS * row_ns, groups = of->stop->piece_ns / group_ns;
    const int64_t most = (outer->rows + FL_OUTER_ROWS - 1) / FL_OUTER_ROWS;
    const int64_t rows = FL_OUTER_ROWS * (groups < 1 ? 1 : groups < (double)most ? (int64_t)groups : most);
    const int64_t parts = fl_stop_parts(of->stop, (double)rows * row_ns, wide);
    for (int64_t r = 0; r < outer->rows; r += rows)
        for (int64_t i = 0; i < parts; i++) {
            fl_outer_args piece = *outer;
            piece.rows = least(outer->rows - r, rows);
            piece.j0 = outer->j0 + wide * i / parts;
            piece.j1 = outer->j0 + wide * (i + 1) / parts;
            piece.g = (const char *)outer->g + r * outer->g_stride * of->unit;
            piece.a = outer->a + r;
            if (fl_stop_look(of->stop, of->worker, (double)piece.rows * row_ns / (double)parts)) return;
            real->outer(&piece);
        }
}

void fl_pieces_outer(const fl_real_kernels *real, const fl_outer_args *outer, const fl_pieces *of)
{
    if (of->stop && outer->j1 > outer->j0) {
        const double row_ns = 2 * (double)(outer->j1 - outer->j0) * (double)outer->n * of->flop_ns;
        if ((double)outer->rows * row_ns > of->stop->piece_ns) {
            cut_outer(real, outer, of, row_ns);
            return;
        }
    }
    real->outer(outer);
}

/* --- BLAS */

static void call_blas(const fl_blas_t *blas, const fl_matmul *g)
{
    if (g->dtype == FL_F64)
        blas->dgemm(g->trans_a, g->trans_b, g->m, g->n, g->k, 1.0, g->a, g->lda, g->b, g->ldb, g->beta, g->c, g->ldc);
    else
        blas->sgemm(g->trans_a, g->trans_b, g->m, g->n, g->k, 1.0f, g->a, g->lda, g->b, g->ldb, (float)g->beta, g->c,
                    g->ldc);
}

void fl_pieces_gemm(const fl_blas_t *blas, const fl_matmul *gemm, fl_stop *stop)
{
    const int tiny = stop && stop->eager; /* so that a test cuts small products, too */
    const int64_t fewest = tiny ? 4 : 128, aligned = tiny ? 2 : 64; /* rows or columns; where a piece may begin */
    const double most = tiny ? 1 : gemm->dtype == FL_F64 ? 0x1p33 : 0x1p34, flop_ns = 0.01;
    const double flops = 2 * (double)gemm->m * (double)gemm->n * (double)gemm->k;
    const int64_t unit = gemm->dtype == FL_F64 ? 8 : 4;
    if (fl_stopped(stop)) return;
    if (flops <= most || (gemm->m <= fewest && gemm->n <= fewest)) {
        call_blas(blas, gemm);
        fl_stop_look(stop, 0, flops * flop_ns);
        return;
    }
    fl_matmul first = *gemm, second = *gemm;
    if (gemm->m >= gemm->n) {
        first.m = (gemm->m / 2 + aligned - 1) / aligned * aligned;
        second.m = gemm->m - first.m;
        second.a = (const char *)gemm->a + first.m * (gemm->trans_a ? 1 : gemm->lda) * unit;
        second.c = (char *)gemm->c + first.m * gemm->ldc * unit;
    } else {
        first.n = (gemm->n / 2 + aligned - 1) / aligned * aligned;
        second.n = gemm->n - first.n;
        second.b = (const char *)gemm->b + first.n * (gemm->trans_b ? gemm->ldb : 1) * unit;
        second.c = (char *)gemm->c + first.n * unit;
    }
    fl_pieces_gemm(blas, &first, stop);
    fl_pieces_gemm(blas, &second, stop);
}
