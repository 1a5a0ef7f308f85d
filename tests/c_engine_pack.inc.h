/* For c_engine_test.c: panels, byte for byte, against loops that place one weight after the other. */

typedef struct packing { /* a panel, and what it must be */
    int dtype;
    const fl_real_kernels *real;
    int64_t unit;
    size_t bytes;
    char *panel, *expected;
    char name[120];
} packing;

static packing begin_packing(int dtype, int64_t columns, int64_t k)
{
    const fl_kernels *kernels = NULL;
    check(fl_kernels_get(&kernels) == FL_OK, "no kernels");
    packing p = {.dtype = dtype, .real = kernels->lanes[dtype], .unit = (int64_t)unit_of(dtype)};
    p.bytes = (size_t)(columns * k * p.unit);
    p.panel = take(p.bytes);
    p.expected = take(p.bytes);
    memset(p.expected, 0, p.bytes);
    return p;
}

/* Element k of column `lane` of the block that starts at `first` and is `wide`, of a panel with so many rows. */
static void expect_at(const packing *p, int64_t first, int64_t wide, int64_t lane, int64_t rows, int64_t k,
                      const char *from)
{
    const int64_t whole = FL_PANEL_VECTORS * p->real->width, run = wide == whole ? p->real->run_vectors * p->real->width
                                                                                : wide;
    const int64_t at = (first + lane / run * run) * rows + k * run + lane % run;
    memcpy(p->expected + at * p->unit, from, (size_t)p->unit);
}

/* Whole, in the shares of `workers`, within the caches and past them: the same bytes, and none left as it was. */
static void same_panel(const packing *p, void (*fn)(const fl_packer *, void *), void *arg)
{
    for (int stream = 0; stream < 2; stream++)
        for (int workers = 1; workers <= 3; workers += 2) {
            memset(p->panel, 0xA5, p->bytes);
            for (int i = 0; i < workers; i++) {
                const fl_packer packer = {p->real, p->unit, stream, p->panel + fl_share((int64_t)p->bytes, i, workers),
                                          p->panel + fl_share((int64_t)p->bytes, i + 1, workers)};
                fn(&packer, arg);
            }
            check(memcmp(p->panel, p->expected, p->bytes) == 0, "panel, %d workers, stream %d: other bytes, %s",
                  workers, stream, p->name);
        }
}

typedef struct gates_case {
    const packing *p;
    const char *weights;
    int64_t stride, ld, k;
    fl_gate_layout layout;
} gates_case;

static void pack_gates_case(const fl_packer *packer, void *arg)
{
    const gates_case *c = arg;
    fl_pack_gates(packer, c->p->panel, c->weights, c->stride, c->ld, &c->layout, c->k);
}

static void test_gate_panel(int dtype, int gates, int units, int64_t hidden, int64_t k, int64_t more)
{
    packing p = begin_packing(dtype, 0, 0);
    const int W = p.real->width, vectors = gates * units;
    const fl_gate_layout layout = {hidden, gates, gates, vectors, units, W};
    p = begin_packing(dtype, fl_gate_columns(&layout), k);
    const int64_t stride = hidden + more, ld = k + more, size = (int64_t)units * W;
    const char *weights = draw(dtype, gates * stride * ld, 1);
    for (int64_t unit = 0; unit < hidden; unit++) {
        const int64_t block = unit / size, left = hidden - block * size;
        int64_t wide = vectors * W, apart = size;
        for (int used = 1; used < vectors && left < size; used++)
            if (used * W * units / vectors >= left) {
                wide = used * W;
                apart = wide * units / vectors;
                break;
            }
        for (int gate = 0; gate < gates; gate++)
            for (int64_t i = 0; i < k; i++)
                expect_at(&p, block * vectors * W, wide, gate * apart + unit % size, k, i,
                          weights + ((gate * stride + unit) * ld + i) * p.unit);
    }
    gates_case c = {&p, weights, stride, ld, k, layout};
    snprintf(p.name, sizeof p.name, "f%d W%d, %d gates of %d, H%d K%d ld%d", dtype ? 64 : 32, W, gates, units,
             (int)hidden, (int)k, (int)ld);
    same_panel(&p, pack_gates_case, &c);
    release(p.name);
}

typedef struct plain_case {
    const packing *p;
    fl_piece piece[3];
    int64_t col0, n, ld; /* n: elements of a row that are taken */
} plain_case;

static void pack_rows_case(const fl_packer *packer, void *arg)
{
    const plain_case *c = arg;
    fl_pack_rows(packer, c->p->panel, c->piece, 3, c->col0, c->n, c->ld);
}

static void pack_back_case(const fl_packer *packer, void *arg)
{
    const plain_case *c = arg;
    fl_pack_back(packer, c->p->panel, c->piece, 3, c->col0, c->n, c->ld);
}

/* sizes: rows of three pieces; the first elements that are left out, those that are taken, those behind them */
static void test_plain_panels(int dtype, const int sizes[6])
{
    const int64_t col0 = sizes[3], n = sizes[4], ld = col0 + n + sizes[5];
    const int64_t rows = sizes[0] + sizes[1] + sizes[2];
    for (int back = 0; back < 2; back++) {
        packing p = begin_packing(dtype, 0, 0);
        const int64_t W = p.real->width, columns = back ? n : rows, k = back ? rows : n;
        const int64_t whole = (columns + W - 1) / W * W;
        p = begin_packing(dtype, whole, k);
        plain_case c = {.p = &p, .col0 = col0, .n = n, .ld = ld};
        for (int64_t piece = 0, row = 0; piece < 3; piece++) {
            c.piece[piece] = (fl_piece){draw(dtype, sizes[piece] * ld + 1, 1), sizes[piece]};
            for (int64_t i = 0; i < sizes[piece]; i++, row++)
                for (int64_t j = 0; j < n; j++) {
                    const int64_t column = back ? j : row, first = column / (4 * W) * 4 * W;
                    const int64_t wide = whole - first < 4 * W ? whole - first : 4 * W;
                    expect_at(&p, first, wide, column - first, k, back ? row : j,
                              (const char *)c.piece[piece].data + (i * ld + col0 + j) * p.unit);
                }
        }
        snprintf(p.name, sizeof p.name, "f%d W%d %s, pieces %d %d %d, K%d of %d", dtype ? 64 : 32, (int)W,
                 back ? "back" : "rows", sizes[0], sizes[1], sizes[2], (int)n, (int)ld);
        same_panel(&p, back ? pack_back_case : pack_rows_case, &c);
        release(p.name);
    }
}

static void test_panels(void)
{
    static const int cells[][2] = {{4, 1}, {3, 1}, {2, 1}, {1, 1}, {1, 4}};
    static const int hidden[] = {1, 3, 4, 7, 16, 17, 40, 64, 65, 100}, k[] = {1, 7, 16, 33, 64, 100};
    static const int plain[][6] = {{1, 0, 0, 0, 1, 0},    {5, 3, 9, 2, 17, 4},   {16, 32, 16, 0, 64, 0},
                                   {64, 64, 64, 8, 64, 0}, {100, 1, 30, 3, 150, 9}, {0, 40, 0, 0, 33, 1}};
    for (int isa = 0; fl_isa_available(isa); isa++) {
        fl_isa_force(fl_isa_available(isa));
        for (int dtype = FL_F32; dtype <= FL_F64; dtype++) {
            for (int c = 0; c < 5; c++)
                for (int h = 0; h < (int)(sizeof hidden / sizeof *hidden); h++)
                    for (int i = 0; i < (int)(sizeof k / sizeof *k); i++)
                        test_gate_panel(dtype, cells[c][0], cells[c][1], hidden[h], k[i], (h + i) % 3);
            for (int i = 0; i < (int)(sizeof plain / sizeof *plain); i++) test_plain_panels(dtype, plain[i]);
        }
    }
    fl_isa_force(NULL);
}

/* --- threads */

/* A machine on which everything is worth a second thread. */
static void machine_of_snails(void)
{
    fl_machine m;
    fl_machine_get(&m);
    m.wake_ns = 1000;
    m.wake_each_ns = 50;
    m.shared_bytes_per_ns = 0.5;
    m.cores = 64;
    check(fl_machine_set(&m) == FL_OK, "machine_set");
}

static void test_pack_threads(void)
{
    fl_machine_set(NULL);
    check(fl_pack_threads(4096, 8) == 1, "a small model is packed by several threads");
    check(fl_pack_threads((size_t)1 << 28, 1) == 1, "more threads pack than the call may use");
    if (!fl_has_openmp()) return;
    check(fl_pack_threads((size_t)1 << 28, 3) == 3, "fewer threads pack a large model than there may be");
    check(fl_pack_threads((size_t)1 << 28, 0) == fl_get_num_threads(), "a model without a bound takes no team");
    const int before = fl_num_threads_here(2);
    check(fl_pack_threads((size_t)1 << 28, 8) == 2, "fl_num_threads_here does not bind packing");
    fl_num_threads_here(before);
    machine_of_snails();
    check(fl_pack_threads(1 << 16, 4) == 4, "constants of the machine do not count");
    fl_machine_set(NULL);
}

/* Those of the family, and cells that BLAS may help. */
static const member SIMPLE[] = {{"lstm", FL_CELL_LSTM, 19, 5, {.zoneout_h = 0}, 0},
                                {"plain gru", FL_CELL_GRU, 35, 0, {.zoneout_h = 0}, 0},
                                {"plain rnn", FL_CELL_RNN, 38, 0, {.zoneout_h = 0}, 0}};
enum { PACKED_MEMBERS = FAMILY_COUNT + 3 };
static member packed_member(int i) { return i < FAMILY_COUNT ? FAMILY[i] : SIMPLE[i - FAMILY_COUNT]; }

/* The memory of a model but for the groups of one-row steps, which hold addresses. */
static void *image_of(const fl_model *m)
{
    for (int i = 0; i < m->spec.num_layers * m->spec.directions && m->one_row; i++) {
        const fl_one_row *row = &m->layers[i].one_row;
        memset((void *)row->group, 0, ((size_t)row->groups * sizeof *row->group + 63) / 64 * 64);
    }
    return memcpy(take(m->bytes), m->memory, m->bytes);
}

static fl_model *packed_by(const kin *k, int threads, const char *name)
{
    fl_model *m = NULL;
    check(fl_model_create_threads(&m, &k->spec, k->weights, threads) == FL_OK, "%s: create", name);
    return m;
}

static void test_pack_members(void)
{
    machine_of_snails();
    for (int i = 0; i < PACKED_MEMBERS; i++)
        for (int blas = 0; blas < 2; blas++) {
            member f = packed_member(i);
            f.H *= 6; /* enough for several threads */
            fl_gemm_force(blas ? "blas" : "panel");
            const kin k = kin_of(&f, i % 2, 2, 2, 1, 1, 0);
            fl_model *one = packed_by(&k, 1, f.name), *many = packed_by(&k, 4, f.name);
            if (!one || !many) continue;
            if (fl_has_openmp()) check(fl_pack_threads(one->bytes, 4) > 1, "%s: too small for this test", f.name);
            check(one->bytes == many->bytes, "%s: other sizes", f.name);
            same_bits(image_of(one), image_of(many), one->bytes, "packed by four threads", f.name);
            fl_model_free(one);
            fl_model_free(many);
            release(f.name);
        }
    fl_gemm_force(NULL);
    fl_machine_set(NULL);
}

/* The memory of models that the allocator has filled with one byte and with another. */
static void test_pack_fills(void)
{
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
    for (int i = 0; i < 2 * PACKED_MEMBERS; i++) {
        const member f = packed_member(i / 2);
        const kin k = kin_of(&f, i / 2 % 2, 2, 1, 1, 1, 0);
        const void *image[2];
        size_t bytes = 0;
        fl_gemm_force(i % 2 ? "blas" : "panel");
        for (int fill = 0; fill < 2; fill++) {
            mallopt(M_PERTURB, fill ? 0x5A : 0xA5);
            fl_model *m = packed_by(&k, 1, f.name);
            mallopt(M_PERTURB, 0);
            if (!m) return;
            bytes = m->bytes;
            image[fill] = image_of(m);
            fl_model_free(m);
        }
        same_bits(image[0], image[1], bytes, "whatever the memory held", f.name);
        release(f.name);
    }
    fl_gemm_force(NULL);
#endif
}

static void test_packing(int quick)
{
    test_panels();
    test_pack_threads();
    test_pack_fills();
    if (!quick) test_pack_members();
}
