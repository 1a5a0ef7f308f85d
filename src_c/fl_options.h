/* Options of a cell, checked and resolved: what fl_shape.c and its neighbours share. */
#ifndef FL_OPTIONS_H
#define FL_OPTIONS_H

#include "fl_internal.h"

static inline int fl_lstm_like(const fl_spec *s) { return s->cell == FL_CELL_LSTM || s->cell == FL_CELL_DEPTH_GATED; }
static inline int fl_bit_count(int set) { return (set & 1) + (set >> 1 & 1) + (set >> 2 & 1); }
int64_t fl_common_multiple(int64_t a, int64_t b);

fl_function fl_activation_of(const fl_spec *s, int i); /* the i-th, never FL_ACT_NONE */
int fl_activations_own(const fl_spec *s, int count);   /* whether they are those of the plain cell */
/* All but the pointers; -> vectors of H that are kept for a row and step, and that a row of gradients has. */
fl_cell_options fl_options_resolve(const fl_spec *s, int *kept, int *gradient);

/* fl_sides.c */
void fl_sides_of(const fl_model *m, fl_packed *w, int layer);

#endif
