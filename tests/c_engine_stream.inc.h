/* For c_engine_test.c: streams of the C interface.  That their steps have the bits of a call is in test_steps. */

static void test_stream_arguments(void)
{
    const problem p = make(FL_F32, 2, 1, (int[]){6, 6, 0, 3, 3}, 0);
    const problem two = make(FL_F32, 1, 2, (int[]){4, 6, 0, 3, 3}, 0);
    fl_model *m = model_of(&p), *both = model_of(&two);
    const size_t bytes = fl_stream_bytes(m, 3), row = 3 * 6 * 4;
    char *memory = take(bytes), *y = take(row), *x = take(2 * row);
    fl_stream *s = NULL;
    check(bytes > 4 * row && bytes < 8192, "%d bytes for a stream", (int)bytes);
    check(fl_stream_bytes(both, 3) == SIZE_MAX && fl_stream_bytes(m, -1) == SIZE_MAX, "streams that there cannot be");
    check(fl_stream_bytes(m, FL_LARGEST + 1) == SIZE_MAX, "a stream of 2^28 + 1 rows");
    expect(fl_stream_init(&s, both, 3, memory, bytes), FL_ERR_ARGUMENT, "fl_stream_init, two directions");
    expect(fl_stream_init(&s, m, FL_LARGEST + 1, memory, bytes), FL_ERR_OVERFLOW, "fl_stream_init, 2^28 + 1 rows");
    expect(fl_stream_init(&s, m, 3, memory, bytes - 1), FL_ERR_WORKSPACE, "fl_stream_init, short memory");
    expect(fl_stream_init(&s, m, 3, memory + 8, bytes), FL_ERR_WORKSPACE, "fl_stream_init, crooked memory");
    expect(fl_stream_init(&s, m, 3, NULL, bytes), FL_ERR_WORKSPACE, "fl_stream_init, no memory");
    check(s == NULL, "a stream that was refused");
    expect(fl_stream_init(&s, m, 3, memory, bytes), FL_OK, "fl_stream_init");
    expect(fl_stream_step(s, p.x, y), FL_OK, "fl_stream_step");
    expect(fl_stream_step(s, memory, y), FL_ERR_ARGUMENT, "fl_stream_step, x in its memory");
    expect(fl_stream_step(s, p.x, memory + bytes - 4), FL_ERR_ARGUMENT, "fl_stream_step, y in its memory");
    expect(fl_stream_get(s, memory + 64, NULL), FL_ERR_ARGUMENT, "fl_stream_get, h in its memory");
    expect(fl_stream_get(s, NULL, memory + 64), FL_ERR_ARGUMENT, "fl_stream_get, c in its memory");
    expect(fl_stream_set(s, memory + 64, NULL), FL_ERR_ARGUMENT, "fl_stream_set, h in its memory");
    expect(fl_stream_set(s, NULL, memory + 64), FL_ERR_ARGUMENT, "fl_stream_set, c in its memory");
    memcpy(x, p.x, row); /* what was refused changed nothing: the second step is the second step */
    expect(fl_stream_step(s, x, x + 12), FL_OK, "fl_stream_step, y over x");
    fl_stream *other = stream_of(m, 3);
    for (int t = 0; t < 2; t++) expect(fl_stream_step(other, p.x, y), FL_OK, "another stream");
    same_bits(x + 12, y, row, "a second step", "after refusals, y over x");
    fl_stream *none = stream_of(m, 0);
    expect(fl_stream_step(none, NULL, NULL), FL_OK, "a stream without rows");
    fl_model_free(m);
    fl_model_free(both);
    release("streams");
}

/* Set, got, and zero again. */
static void test_stream_state(void)
{
    const problem p = make(FL_F64, 2, 1, (int[]){5, 7, 3, 1, 2}, 0);
    fl_model *m = model_of(&p);
    const size_t h_bytes = 2 * 2 * 3 * 8, c_bytes = 2 * 2 * 7 * 8, row = 2 * 3 * 8;
    fl_stream *s = stream_of(m, 2);
    char *h = take(h_bytes), *c = take(c_bytes), *first = take(row), *y = take(row);
    const char nothing[2 * 2 * 7 * 8] = {0};
    expect(fl_stream_step(s, p.x, first), FL_OK, "from zeros");
    expect(fl_stream_set(s, p.h0, p.c0), FL_OK, "set");
    expect(fl_stream_get(s, h, NULL), FL_OK, "get h");
    expect(fl_stream_get(s, NULL, c), FL_OK, "get c");
    same_bits(h, p.h0, h_bytes, "h", "a stream's state");
    same_bits(c, p.c0, c_bytes, "c", "a stream's state");
    expect(fl_stream_step(s, p.x, y), FL_OK, "from a state");
    check(memcmp(y, first, row) != 0, "the state of a stream changes nothing");
    expect(fl_stream_set(s, NULL, p.c0), FL_OK, "h zero");
    expect(fl_stream_get(s, h, c), FL_OK, "get both");
    same_bits(h, nothing, h_bytes, "h", "zeros");
    same_bits(c, p.c0, c_bytes, "c", "h alone is zero");
    expect(fl_stream_set(s, NULL, NULL), FL_OK, "both zero");
    expect(fl_stream_step(s, p.x, y), FL_OK, "from zeros again");
    same_bits(y, first, row, "y", "from zeros again");
    fl_model_free(m);
    release("states of streams");
}

static void test_streams(void)
{
    test_stream_arguments();
    test_stream_state();
}
