/* What forward and backward calls have in common: their arguments checked, and how their teams are judged. */
#include "fl_internal.h"
#include "fl_judge.h"

/* Masks of another cell are refused like its options. */
static int masks_fit(const fl_model *m, const fl_call *call)
{
    const int cell = m->spec.cell, clocked = cell == FL_CELL_CLOCKWORK;
    for (int i = 0; call->masks && i < m->spec.num_layers * m->spec.directions; i++) {
        const fl_masks *k = &call->masks[i];
        if (k->mask_g && (clocked || cell == FL_CELL_RNN)) return 0;
        if (k->zoneout_h && (clocked || cell == FL_CELL_LSTM_1997)) return 0;
        if (k->zoneout_c && cell != FL_CELL_LSTM && cell != FL_CELL_DEPTH_GATED) return 0;
    }
    return 1;
}

enum fl_status fl_call_check(const fl_model *m, const fl_call *call)
{
    if (!m || !call || call->steps < 0 || call->batch < 0 || call->threads < 0 || call->awake_ns < 0)
        return FL_ERR_ARGUMENT;
    if (call->steps > FL_LARGEST || call->batch > FL_LARGEST) return FL_ERR_OVERFLOW;
    if (!call->hn || (m->cells && !call->cn) || ((call->dropout || call->masks) && !call->cache))
        return FL_ERR_ARGUMENT;
    if (!masks_fit(m, call)) return FL_ERR_ARGUMENT;
    if (call->steps && call->batch && (!call->x.data || !call->y.data)) return FL_ERR_ARGUMENT;
    if ((uintptr_t)call->workspace % FL_ALIGN || (uintptr_t)call->cache % FL_ALIGN) return FL_ERR_WORKSPACE;
    for (int64_t b = 0; call->lengths && b < call->batch; b++)
        if (call->lengths[b] < 0 || call->lengths[b] > call->steps) return FL_ERR_LENGTH;
    return FL_OK;
}

int fl_call_has_blas(const fl_model *m, const fl_call *call)
{
    return call->blas && (m->spec.dtype == FL_F64 ? call->blas->dgemm != NULL : call->blas->sgemm != NULL);
}

double fl_model_flops(const fl_model *m)
{
    double flops = 0;
    for (int i = 0; i < m->spec.num_layers * m->spec.directions; i++) flops += m->layers[i].flops;
    return flops;
}

uint64_t fl_call_key(const fl_model *m, const fl_call *call, const fl_plan *plan, int backward)
{
    const fl_spec *s = &m->spec;
    const int64_t sizes[] = {s->cell,        s->dtype,    s->num_layers, s->directions, s->input_size,
                             s->hidden_size, s->proj_size, m->body,      call->batch,   plan->threads,
                             plan->split,    backward + 2 * (call->cache != NULL)};
    fl_judge_key key = 0;
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) key = fl_judge_mix(key, sizes[i]);
    return key;
}
