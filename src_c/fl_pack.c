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

enum { SQUARE = 16 }; /* elements: a cache line of floats */

/* panel[to + i*step + lane] = src[from + lane*ld + i] for `lanes` rows of src, k elements each.  In squares, so that
 * every cache line is fetched once.  Copies, never converts. */
#define TRANSPOSE(real)                                                                                             \
    static void transpose_##real(real *restrict panel, int64_t step, const real *restrict src, int64_t ld,          \
                                 int64_t lanes, int64_t k)                                                          \
    {                                                                                                               \
        for (int64_t i0 = 0; i0 < k; i0 += SQUARE)                                                                  \
            for (int64_t l0 = 0; l0 < lanes; l0 += SQUARE) {                                                        \
                const int64_t i1 = least(i0 + SQUARE, k), l1 = least(l0 + SQUARE, lanes);                           \
                for (int64_t i = i0; i < i1; i++)                                                                   \
                    for (int64_t l = l0; l < l1; l++) panel[i * step + l] = src[l * ld + i];                        \
            }                                                                                                       \
    }
TRANSPOSE(float)
TRANSPOSE(double)

static void transpose(int dtype, void *panel, int64_t to, int64_t step, const void *src, int64_t from, int64_t ld,
                      int64_t lanes, int64_t k)
{
    if (dtype == FL_F64)
        transpose_double((double *)panel + to, step, (const double *)src + from, ld, lanes, k);
    else
        transpose_float((float *)panel + to, step, (const float *)src + from, ld, lanes, k);
}

void fl_pack_gates(int dtype, void *panel, const void *src, int64_t gate_stride, int64_t ld,
                   const fl_gate_layout *layout, int64_t k)
{
    const int64_t hidden = layout->hidden, size = (int64_t)layout->units * layout->width;
    for (int64_t unit = 0; unit < hidden; unit += size) {
        const fl_gate_place at = fl_gate_place_of(layout, unit);
        for (int64_t gate = 0; gate < layout->gates; gate++)
            transpose(dtype, panel, at.first * k + gate * at.apart, at.wide, src, (gate * gate_stride + unit) * ld, ld,
                      least(size, hidden - unit), k);
    }
}

/* Where column `column` of a plain panel of `columns` columns and k rows starts, and its stride. */
static int64_t plain_column(int64_t column, int64_t columns, int64_t k, int64_t width, int64_t *stride)
{
    const int64_t block = FL_PANEL_VECTORS * width, first = column / block * block;
    const int64_t left = fl_plain_columns(columns, width) - first;
    *stride = left < block ? left : block;
    return first * k + column - first;
}

void fl_pack_back(int dtype, void *panel, const fl_piece *piece, int count, int64_t col0, int64_t columns, int64_t ld,
                  int64_t width)
{
    const size_t unit = dtype == FL_F64 ? sizeof(double) : sizeof(float);
    const int64_t block = FL_PANEL_VECTORS * width;
    int64_t k = 0, stride;
    for (int i = 0; i < count; i++) k += piece[i].rows;
    for (int64_t column = 0; column < columns; column += block) {
        char *to = (char *)panel + plain_column(column, columns, k, width, &stride) * unit;
        const size_t bytes = least(block, columns - column) * unit;
        for (int i = 0; i < count; i++) {
            const char *from = (const char *)piece[i].data + (col0 + column) * unit;
            for (int64_t row = 0; row < piece[i].rows; row++, to += stride * unit)
                memcpy(to, from + row * ld * unit, bytes);
        }
    }
}

void fl_pack_rows(int dtype, void *panel, const fl_piece *piece, int count, int64_t col0, int64_t k, int64_t ld,
                  int64_t width)
{
    const int64_t block = FL_PANEL_VECTORS * width;
    int64_t columns = 0, column = 0, stride;
    for (int i = 0; i < count; i++) columns += piece[i].rows;
    for (int i = 0; i < count; i++)
        for (int64_t row = 0, lanes; row < piece[i].rows; row += lanes, column += lanes) {
            lanes = least(block - column % block, piece[i].rows - row);
            const int64_t to = plain_column(column, columns, k, width, &stride);
            transpose(dtype, panel, to, stride, piece[i].data, row * ld + col0, ld, lanes, k);
        }
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
