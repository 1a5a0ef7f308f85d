/* For c_engine_test.c: the kernel for steps of one row, against calls that go another way: with a cache a call takes
 * the tiles that every batch takes, whose results are those of the plain loops. */

typedef struct one_row {
    fl_spec spec;
    fl_weights weights[4];
    int64_t T;
    char name[80];
} one_row;

static int refuses(void *data)
{
    (void)data;
    return 0;
}

static one_row draw_one_row(fl_spec spec, int64_t T)
{
    one_row o = {.spec = spec, .T = T};
    const int64_t G = spec.cell == FL_CELL_LSTM ? 4 : spec.cell == FL_CELL_GRU ? 3 : 1, H = spec.hidden_size;
    for (int i = 0; i < spec.num_layers * spec.directions; i++) {
        const int64_t I = i < spec.directions ? spec.input_size : H * spec.directions;
        const double scale = 1 / sqrt((double)(I + H));
        o.weights[i].weight_ih = draw(spec.dtype, G * H * I, scale);
        o.weights[i].weight_hh = draw(spec.dtype, G * H * H, scale);
        o.weights[i].bias_ih = draw(spec.dtype, G * H, 0.2);
        o.weights[i].bias_hh = draw(spec.dtype, G * H, 0.2);
    }
    snprintf(o.name, sizeof o.name, "one row, %s f%d I%d H%d L%d D%d T%d", fl_cell_name(spec.cell),
             spec.dtype ? 64 : 32, (int)spec.input_size, (int)H, spec.num_layers, spec.directions, (int)T);
    return o;
}

/* more: what of the call is not the usual. */
static result run_one_row(const one_row *o, const fl_model *m, const void *x, const void *h0, const void *c0,
                          int cached, fl_call more)
{
    const size_t unit = unit_of(o->spec.dtype), R = (size_t)o->spec.hidden_size;
    const size_t slots = (size_t)(o->spec.num_layers * o->spec.directions), D = (size_t)o->spec.directions;
    result r = {.y_bytes = (size_t)o->T * D * R * unit, .h_bytes = slots * R * unit, .c_bytes = slots * R * unit};
    r.y = take(r.y_bytes);
    r.hn = take(r.h_bytes);
    r.cn = take(r.c_bytes);
    memset(r.cn, 0, r.c_bytes); /* of cells without one nothing is written */
    if (cached) r.cache = take(fl_cache_bytes(m, o->T, 1, 0));
    r.call = (fl_call){.steps = o->T, .batch = 1, .x = {(void *)x, o->spec.input_size, o->spec.input_size},
                       .y = {r.y, (int64_t)(D * R), (int64_t)(D * R)}, .h0 = h0, .c0 = c0, .hn = r.hn, .cn = r.cn,
                       .cache = r.cache, .threads = more.threads ? more.threads : 1, .poll = more.poll,
                       .reset = more.reset};
    r.call.workspace_bytes = fl_forward_bytes(m, &r.call);
    r.call.workspace = take(r.call.workspace_bytes);
    expect(fl_forward(m, &r.call), FL_OK, o->name);
    return r;
}

static void same_steps(const one_row *o, const fl_model *m, const char *x, const void *h0, const void *c0,
                       const result *whole)
{
    const size_t unit = unit_of(o->spec.dtype), row = (size_t)o->spec.hidden_size * unit, bytes = fl_step_bytes(m, 1);
    char *h = take(whole->h_bytes), *c = take(whole->c_bytes), *y = take(row), *workspace = take(bytes);
    int same = 1;
    memcpy(h, h0, whole->h_bytes);
    memcpy(c, c0, whole->c_bytes);
    for (int64_t t = 0; t < o->T; t++) {
        same &= fl_step(m, 1, x + (size_t)(t * o->spec.input_size) * unit, h, c, y, workspace, bytes) == FL_OK;
        same &= memcmp(y, (char *)whole->y + (size_t)t * row, row) == 0;
    }
    check(same, "steps: other bits, %s", o->name);
    same_bits(h, whole->hn, whole->h_bytes, "h after steps", o->name);
    if (o->spec.cell == FL_CELL_LSTM) same_bits(c, whole->cn, whole->c_bytes, "c after steps", o->name);
}

static void test_one_row(fl_spec spec, int64_t T)
{
    const one_row o = draw_one_row(spec, T);
    const int64_t state = spec.num_layers * spec.directions * spec.hidden_size;
    const char *x = draw(spec.dtype, T * spec.input_size, 1);
    const void *h0 = draw(spec.dtype, state, 0.5);
    void *c0 = draw(spec.dtype, state, 0.5);
    if (spec.cell != FL_CELL_LSTM) memset(c0, 0, (size_t)state * unit_of(spec.dtype));
    for (int i = 0; fl_isa_available(i); i++) {
        fl_isa_force(fl_isa_available(i));
        fl_model *m = NULL;
        expect(fl_model_create(&m, &spec, o.weights), FL_OK, o.name);
        const fl_part *part = m->layers[0].part;
        check(m->one_row && m->layers[0].one_row.whole == (part->wide / m->width <= 64), "%s: not run by it", o.name);
        const result by_tiles = run_one_row(&o, m, x, h0, c0, 1, (fl_call){0});
        const result alone = run_one_row(&o, m, x, h0, c0, 0, (fl_call){0});
        same_result(&by_tiles, &alone, fl_isa_available(i), o.name);
        if (spec.directions == 1) same_steps(&o, m, x, h0, c0, &by_tiles);
        if (T > 1000) { /* some looks at the clock */
            const result polled = run_one_row(&o, m, x, h0, c0, 0, (fl_call){.poll = refuses});
            same_result(&by_tiles, &polled, "with a poll", o.name);
        }
        fl_model_free(m);
    }
    fl_isa_force(NULL);
    release(o.name);
}

static int polls;
static int ends_at_fifth(void *data)
{
    (void)data;
    return ++polls == 5;
}

/* A call that is to end does so between two steps of the kernel. */
static void test_one_row_ends(void)
{
    enum { T = 50, H = 3 };
    const fl_spec spec = {.cell = FL_CELL_GRU, .num_layers = 1, .directions = 1, .input_size = 1, .hidden_size = H};
    const one_row o = draw_one_row(spec, T);
    fl_model *m = NULL;
    expect(fl_model_create(&m, &spec, o.weights), FL_OK, o.name);
    result r = run_one_row(&o, m, draw(FL_F32, T, 1), NULL, NULL, 0, (fl_call){0});
    const float *y = r.y;
    memset(r.y, 0xFF, r.y_bytes);
    r.call.poll = ends_at_fifth;
    polls = 0;
    fl_poll_force(1);
    expect(fl_forward(m, &r.call), FL_ERR_STOPPED, o.name);
    fl_poll_force(0);
    check(polls == 5 && y[0] == y[0] && y[T * H - 1] != y[T * H - 1], "%s: it did not end early", o.name);
    fl_model_free(m);
    release(o.name);
}

/* What the kernel does not know goes the usual way: resets, and workers that share the blocks of a row. */
static void test_not_one_row(void)
{
    const fl_spec spec = {.cell = FL_CELL_LSTM, .num_layers = 1, .directions = 1, .input_size = 3, .hidden_size = 60};
    const one_row o = draw_one_row(spec, 20);
    const char *x = draw(FL_F32, o.T * 3, 1);
    unsigned char *reset = take((size_t)o.T);
    fl_model *m = NULL;
    fl_plan plan;
    for (int64_t t = 0; t < o.T; t++) reset[t] = t % 7 == 3;
    use_eager_machine();
    expect(fl_model_create(&m, &spec, o.weights), FL_OK, o.name);
    expect(fl_plan_forward(m, o.T, 1, 2, &plan), FL_OK, o.name);
    check(plan.threads == (fl_has_openmp() ? 2 : 1), "%s: %d threads", o.name, plan.threads);
    const result plain = run_one_row(&o, m, x, NULL, NULL, 1, (fl_call){0});
    const result shared = run_one_row(&o, m, x, NULL, NULL, 0, (fl_call){.threads = 2});
    same_result(&plain, &shared, "two threads", o.name);
    const result cut = run_one_row(&o, m, x, NULL, NULL, 1, (fl_call){.reset = reset});
    const result cut_alone = run_one_row(&o, m, x, NULL, NULL, 0, (fl_call){.reset = reset});
    same_result(&cut, &cut_alone, "resets", o.name);
    check(memcmp(cut.y, plain.y, plain.y_bytes) != 0, "%s: the resets change nothing", o.name);
    check(fl_machine_set(NULL) == FL_OK, "the built-in machine");
    fl_model_free(m);
    release(o.name);
}

/* All ways in which blocks of 1 to 16 units end, one to five groups, sums that fit the kernel's memory or do not;
 * input products in the chain or hoisted. */
static void test_one_rows(int quick)
{
    static const int hidden[] = {1,  2,  3,  4,  5,  7,  8,  9,  11, 12, 15, 16,
                                 17, 20, 24, 29, 31, 33, 40, 48, 50, 64, 71, 129};
    static const int cells[] = {FL_CELL_LSTM, FL_CELL_GRU, FL_CELL_RNN};
    test_one_row_ends();
    test_not_one_row();
    for (int c = 0; c < 3; c++)
        for (int dtype = FL_F32; dtype <= FL_F64; dtype++) {
            for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i += quick ? 3 : 1) {
                const int I[] = {1, 7, 40}, shape = (int)i % 4;
                const fl_spec spec = {.cell = cells[c], .dtype = dtype, .num_layers = 1 + shape % 2,
                                      .directions = 1 + shape / 2, .input_size = I[i % 3], .hidden_size = hidden[i]};
                test_one_row(spec, 6);
            }
            test_one_row((fl_spec){.cell = cells[c], .dtype = dtype, .num_layers = 1, .directions = 1, .input_size = 2,
                                   .hidden_size = 8}, 3000);
            test_one_row((fl_spec){.cell = cells[c], .dtype = dtype, .num_layers = 1, .directions = 1, .input_size = 3,
                                   .hidden_size = 300}, 3);
        }
}
