# The C interface, as src_c/fastlstm.h and src_c/fastlstm_experimental.h declare it, and one function behind it.
from libc.stdint cimport int32_t, int64_t, uint16_t


ctypedef int (*poll_function)(void *) noexcept nogil


cdef extern from "fastlstm_experimental.h" nogil:
    enum fl_status:
        FL_OK
        FL_ERR_ARGUMENT
        FL_ERR_OVERFLOW
        FL_ERR_MEMORY
        FL_ERR_WORKSPACE
        FL_ERR_ISA
        FL_ERR_GEMM
        FL_ERR_LENGTH
        FL_ERR_BACKWARD
        FL_ERR_BLAS
        FL_ERR_THREADS
        FL_ERR_STOPPED
    const char *fl_status_text(fl_status)

    int fl_cell_count()
    const char *fl_cell_name(int)
    int fl_cell_gates(int)

    fl_status fl_isa_name(const char **)
    const char *fl_isa_available(int)
    fl_status fl_isa_force(const char *)
    int fl_flushes_denormals()
    int fl_get_num_threads()
    void fl_set_num_threads(int)
    int fl_num_threads_here(int)
    fl_status fl_num_threads_why(int *, int *)
    int fl_cgroup_quota(const char *)
    void fl_quota_force(int)
    int fl_has_openmp()
    int fl_teams_active()
    void fl_team_force(int)
    void fl_poll_force(int)
    ctypedef struct fl_disturbance:
        const int32_t *delay_us
        int64_t steps
        int32_t workers
        int64_t *next
    void fl_team_disturb(const fl_disturbance *)
    fl_status fl_rehearse(int, int64_t, double, int64_t *, int32_t *)
    void fl_judge_replay(int, double, const double *, int64_t, int32_t *)
    void fl_team_rest()
    fl_status fl_gemm_mode(int *)
    fl_status fl_gemm_force(const char *)
    fl_status fl_probe(int, int64_t, const void *, size_t, int, double *)
    fl_status fl_map(int, int, const void *, void *, int64_t)
    enum:
        FL_PROCESSORS
    ctypedef struct fl_processors:
        unsigned long word[1]  # as many as FL_PROCESSORS fill
    void fl_cores_read(const char *, uint16_t *)
    int fl_processors_allowed()
    int fl_cores_allowed()
    void fl_places_try(const uint16_t *, const fl_processors *, int, const int32_t *, int, int32_t *)
    ctypedef struct fl_machine:
        double flops_per_ns[2]
        double all_cores_rate, private_bytes_per_ns, private_cache, shared_bytes_per_ns, shared_bytes_per_ns_all
        double wake_ns, wake_each_ns, barrier_ns, barrier_all_ns, cores, sibling_rate
    void fl_machine_get(fl_machine *)
    fl_status fl_machine_set(const fl_machine *)
    fl_status fl_machine_measure(fl_machine *, int, int *)
    enum:
        FL_ACT_NONE
        FL_ACT_RELU
        FL_ACT_TANH
        FL_ACT_SIGMOID
        FL_ACT_SOFTMAX
        FL_ACT_EXP
        FL_MODEL_BACKWARD
        FL_GEMM_BLAS

    enum:
        FL_ACT_IDENTITY
        FL_ACT_HARD_SIGMOID
        FL_ACT_SOFTSIGN
        FL_ACT_SOFTPLUS
        FL_ACT_ELU
        FL_ACT_LEAKY_RELU
        FL_ACT_THRESHOLDED_RELU
        FL_ACT_SCALED_TANH
        FL_ACT_AFFINE
        FL_TENSORS
        FL_CACHE_DROPOUT
        FL_CACHE_MASK_X

    ctypedef struct fl_function:
        int32_t kind
        double alpha, beta

    ctypedef struct fl_options:
        fl_function activation[3]
        double clip, cell_clip, proj_clip
        int32_t reset_before, peephole, peephole_o_prev, coupled, without, layer_norm
        double norm_eps
        int32_t gate_recurrence, biased_gates, full_gradient
        int64_t block_size
        int32_t period_count
        const int64_t *periods
        double zoneout_h, zoneout_c

    ctypedef struct fl_spec:
        int32_t cell, dtype, num_layers, directions
        int64_t input_size, hidden_size, proj_size
        int32_t flags
        fl_options options

    ctypedef struct fl_weights:
        pass
    ctypedef struct fl_gradients:
        pass
    int64_t fl_weight_size(const fl_spec *, int, int)

    ctypedef struct fl_model:
        pass
    fl_status fl_model_create_threads(fl_model **, const fl_spec *, const fl_weights *, int)
    void fl_model_free(fl_model *)
    const char *fl_model_isa(const fl_model *)
    size_t fl_model_bytes(const fl_model *)
    int64_t fl_model_cells(const fl_model *)
    int64_t fl_model_kept(const fl_model *)
    int fl_model_own_bias_hh(const fl_model *)

    ctypedef struct fl_blas_t:
        void (*sgemm)(int, int, int64_t, int64_t, int64_t, float, const float *, int64_t, const float *, int64_t,
                      float, float *, int64_t) noexcept nogil
        void (*dgemm)(int, int, int64_t, int64_t, int64_t, double, const double *, int64_t, const double *, int64_t,
                      double, double *, int64_t) noexcept nogil

    ctypedef struct fl_sequence:
        void *data
        int64_t step, row

    ctypedef struct fl_masks:
        const void *mask_x
        const void *mask_h
        const void *mask_g
        const void *zoneout_h
        const void *zoneout_c

    ctypedef struct fl_call:
        int64_t steps, batch
        fl_sequence x
        const int64_t *lengths
        const unsigned char *reset
        const void *h0
        const void *c0
        fl_sequence y
        void *hn
        void *cn
        void *cache
        const void *dropout
        const fl_masks *masks
        void *workspace
        size_t workspace_bytes
        int32_t threads
        const fl_blas_t *blas
        int64_t awake_ns
        poll_function poll
        void *poll_data

    enum:
        FL_SPLIT_COUNT
    ctypedef struct fl_pair:
        double ns
        int32_t threads

    ctypedef struct fl_plan:
        int32_t threads, split
        int64_t chunk, hoist
        int32_t ahead
        int32_t blas
        double step_flops, panel_bytes
        int32_t why, why_hoist
        double work_ns, estimate_ns
        fl_pair compared[FL_SPLIT_COUNT]
        double step_ns, layer_bytes, flops_per_ns, wake_ns, barrier_ns, private_cache
    fl_status fl_plan_forward(const fl_model *, int64_t, int64_t, int, fl_plan *)
    fl_status fl_plan_backward(const fl_model *, int64_t, int64_t, int, fl_plan *)
    fl_status fl_plan_call(const fl_model *, int64_t, int64_t, int, int, fl_plan *)
    double fl_plan_estimate(const fl_model *, int64_t, int64_t, int, int, int, int)

    size_t fl_forward_bytes(const fl_model *, const fl_call *)
    size_t fl_cache_bytes(const fl_model *, int64_t, int64_t, int)
    fl_status fl_forward(const fl_model *, const fl_call *)

    ctypedef struct fl_cache_slot:
        size_t gates, c, y
    fl_cache_slot fl_cache_find(const fl_model *, int64_t, int64_t, int, int, int)

    size_t fl_step_bytes(const fl_model *, int64_t)
    fl_status fl_step(const fl_model *, int64_t, const void *, void *, void *, void *, void *, size_t)

    ctypedef struct fl_backward_call:
        fl_sequence dy
        const void *dhn
        const void *dcn
        void *dx
        void *dh0
        void *dc0
        fl_gradients *gradients
    size_t fl_backward_bytes(const fl_model *, const fl_call *)
    fl_status fl_backward(const fl_model *, const fl_call *, const fl_backward_call *)

    ctypedef struct fl_dense:
        pass
    fl_status fl_dense_create_threads(fl_dense **, int, int64_t, int64_t, const void *, const void *, int, int)
    void fl_dense_free(fl_dense *)
    fl_status fl_dense_forward_polled(const fl_dense *, int64_t, const void *, void *, int, poll_function, void *)
    fl_status fl_dense_gradient_polled(int, int64_t, int64_t, int64_t, const void *, const void *, void *, void *, int,
                                       poll_function, void *)


cdef extern from "fl_limit.h" nogil:
    int fl_team_limit(int)
