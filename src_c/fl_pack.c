/* Weights into panels, once per model.  The layouts are described in fl_kernels.h. */
#include <string.h>

#include "fl_internal.h"

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

int64_t fl_plain_columns(int64_t columns, int64_t width)
{
    return fl_plain_blocks(columns, width) * FL_PANEL_VECTORS * width;
}

/* One lane's column of a panel: panel[i*step] = src[i*stride], k elements.  Copies, never converts. */
static void copy_column(int dtype, void *panel, int64_t to, int64_t step, const void *src, int64_t from, int64_t stride,
                        int64_t k)
{
    if (dtype == FL_F64) {
        double *d = (double *)panel + to;
        const double *s = (const double *)src + from;
        for (int64_t i = 0; i < k; i++) d[i * step] = s[i * stride];
    } else {
        float *d = (float *)panel + to;
        const float *s = (const float *)src + from;
        for (int64_t i = 0; i < k; i++) d[i * step] = s[i * stride];
    }
}

void fl_pack_gates(int dtype, void *panel, const void *src, int64_t hidden, int64_t k, int64_t gates, int64_t vectors,
                   int64_t width)
{
    const int64_t stride = vectors * width;
    for (int64_t unit = 0; unit < hidden; unit++) {
        const int64_t block = unit / width, lane = unit % width;
        for (int64_t gate = 0; gate < gates; gate++)
            copy_column(dtype, panel, block * k * stride + gate * width + lane, stride, src, (gate * hidden + unit) * k,
                        1, k);
    }
}

void fl_pack_plain(int dtype, void *panel, const void *src, int64_t k, int64_t columns, int64_t row_stride,
                   int64_t column_stride, int64_t width)
{
    const int64_t stride = FL_PANEL_VECTORS * width;
    for (int64_t column = 0; column < columns; column++)
        copy_column(dtype, panel, column / stride * k * stride + column % stride, stride, src, column * column_stride,
                    row_stride, k);
}

void fl_pack_bias(int dtype, void *bias, const void *bias_ih, const void *bias_hh, int64_t hidden, int64_t gates,
                  int64_t vectors, int64_t width)
{
    for (int64_t gate = 0; gate < gates; gate++)
        for (int64_t unit = 0; unit < hidden; unit++) {
            const int64_t from = gate * hidden + unit;
            const double sum =
                (bias_ih ? get(dtype, bias_ih, from) : 0.0) + (bias_hh ? get(dtype, bias_hh, from) : 0.0);
            put(dtype, bias, (unit / width * vectors + gate) * width + unit % width, sum);
        }
}
