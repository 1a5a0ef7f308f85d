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

void fl_pack_gates(int dtype, void *panel, const void *src, const fl_gate_layout *layout, int64_t k)
{
    const int64_t hidden = layout->hidden, gates = layout->gates;
    const fl_gate_place last = fl_gate_place_of(layout, hidden - 1);
    for (int64_t unit = 0; unit < hidden; unit++) {
        const fl_gate_place at = unit < last.first_unit ? fl_gate_place_of(layout, unit) : last;
        for (int64_t gate = 0; gate < gates; gate++)
            copy_column(dtype, panel, at.first * k + gate * at.apart + unit - at.first_unit, at.wide, src,
                        (gate * hidden + unit) * k, 1, k);
    }
}

void fl_pack_plain(int dtype, void *panel, const void *src, int64_t k, int64_t first_row, int64_t columns,
                   int64_t row_stride, int64_t column_stride, int64_t width)
{
    const int64_t block = FL_PANEL_VECTORS * width, padded = fl_plain_columns(columns, width);
    for (int64_t column = 0; column < columns; column++) {
        const int64_t first = column / block * block, stride = padded - first < block ? padded - first : block;
        const int64_t to = first * k + column - first, from = column * column_stride, rest = k - first_row;
        copy_column(dtype, panel, to, stride, src, from + first_row * row_stride, row_stride, rest);
        copy_column(dtype, panel, to + rest * stride, stride, src, from, row_stride, first_row);
    }
}

void fl_pack_bias(int dtype, void *bias, void *bias_h, const void *bias_ih, const void *bias_hh,
                  const fl_gate_layout *layout)
{
    for (int64_t gate = 0; gate < layout->gates; gate++)
        for (int64_t unit = 0; unit < layout->hidden; unit++) {
            const int64_t from = gate * layout->hidden + unit, to = fl_gate_column(layout, gate, unit);
            const double x = bias_ih ? get(dtype, bias_ih, from) : 0.0, h = bias_hh ? get(dtype, bias_hh, from) : 0.0;
            put(dtype, bias, to, gate < layout->joint ? x + h : x);
            if (gate >= layout->joint) put(dtype, bias_h, to, h);
        }
}
