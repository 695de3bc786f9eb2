/* Linear layers on cuBLASLt: operands in the compute type, products summed in fp32 (never TF32), bias, ReLU and the
 * residual in the product's epilogue. The library's GELU is an approximation of the tanh form with a fast tanh,
 * so both GELUs, and rotary embeddings, run as a kernel of their own, in fp32 on the rounded outputs, where gemm_linear.cu's
 * product does not take the layer.
 *
 * Row-major y[T, N] = x[T, K] w[N, K]^T is, read column-major, y^T[N, T] = w^T' x^T: the library's A is w (transposed),
 * its B is x, and bias runs along its rows, as it expects.
 *
 * The algorithm of a shape is chosen once and kept. The first that the library's heuristic proposes defines the result; of the
 * others, the fastest is taken among those that give its bits on the operands at hand. So timing decides the speed and
 * nothing else: a resumed sweep rounds as an undisturbed one. Products that differ in their number of rows only, with many
 * of them, share an algorithm. */
#include <cublasLt.h>
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/cuda_util.cuh"
#include "kernels/cuda/gemm_act.cuh"
#include "kernels/cuda/gemm_linear.cuh"

static constexpr int BUCKETS = 1024, THREADS = 256;
static constexpr int CANDIDATES = 12, TIMED_RUNS = 3, MANY_ROWS = 2048;
static constexpr float CLEARLY = 0.98F; /* of the time of the first: less is noise */
static const size_t workspace_bytes = (size_t)32 << 20;

/* What an algorithm depends on. Compared as bytes: zero it first. */
struct gemm_shape {
    int64_t T, N, K, ldy;
    uint32_t align[4]; /* of w, x, y, bias, at most 256 */
    uint8_t is_sum, is_relu, is_fp32_out, has_bias;
};

struct gemm_plan {
    struct gemm_shape shape;
    struct gemm_plan *next; /* in its bucket */
    bool is_tuned;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulAlgo_t algo;
};

struct cuda_gemm_plans {
    cublasLtHandle_t handle;
    void *workspace;
    struct gemm_plan *bucket[BUCKETS];
};

static enum err_code gemm_fail(cublasStatus_t status, const struct gemm_shape *s, struct err *e)
{
    enum err_code code = status == CUBLAS_STATUS_NOT_SUPPORTED ? ERR_UNSUPPORTED : ERR_DEVICE;
    return err_set(e, code, "matrix product of %lld rows, %lld columns over %lld: %s",
                   (long long)s->T, (long long)s->N, (long long)s->K,
                   cublasLtGetStatusString(status));
}

#define LT_TRY(call, shape)                                                                        \
    do {                                                                                           \
        cublasStatus_t lt_status = (call);                                                         \
        if (lt_status != CUBLAS_STATUS_SUCCESS)                                                    \
            return gemm_fail(lt_status, (shape), e);                                               \
    } while (0)

/* ---- plans ---- */

static uint32_t alignment_of(const void *p)
{
    uintptr_t at = (uintptr_t)p, low = at & (~at + 1);
    return p == NULL || low > 256 ? 256 : (uint32_t)low;
}

static struct gemm_shape shape_of(const struct cuda_gemm_args *a)
{
    struct gemm_shape s;
    memset(&s, 0, sizeof s);
    s.T = a->T;
    s.N = a->N;
    s.K = a->K;
    s.ldy = a->ldy;
    s.align[0] = alignment_of(a->w);
    s.align[1] = alignment_of(a->x);
    s.align[2] = alignment_of(a->y);
    s.align[3] = alignment_of(a->bias);
    s.is_sum = a->is_sum;
    s.is_relu = a->is_relu;
    s.is_fp32_out = a->is_fp32_out;
    s.has_bias = a->bias != NULL;
    return s;
}

static unsigned bucket_of(const struct gemm_shape *s)
{
    uint64_t h = (uint64_t)s->T * 0x9e3779b97f4a7c15U ^ (uint64_t)s->N * 0xc2b2ae3d27d4eb4fU ^
                 (uint64_t)s->K * 0x165667b19e3779f9U;
    return (unsigned)(h >> 40) % BUCKETS;
}

static cudaDataType_t data_type(enum kern_compute compute)
{
    static const cudaDataType_t all[] = {CUDA_R_32F, CUDA_R_16F, CUDA_R_16BF};
    return all[compute];
}

static cublasLtEpilogue_t epilogue_of(const struct gemm_shape *s)
{
    if (s->is_relu)
        return s->has_bias ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_RELU;
    return s->has_bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

static enum err_code plan_describe(struct gemm_plan *p, enum kern_compute compute, struct err *e)
{
    const struct gemm_shape *s = &p->shape;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue = epilogue_of(s);
    const cudaDataType_t in = data_type(compute), out = s->is_fp32_out ? CUDA_R_32F : in;
    LT_TRY(cublasLtMatmulDescCreate(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F), s);
    LT_TRY(cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                          sizeof transposed),
           s);
    LT_TRY(cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                          sizeof epilogue),
           s);
    LT_TRY(cublasLtMatrixLayoutCreate(&p->w, in, (uint64_t)s->K, (uint64_t)s->N, s->K), s);
    LT_TRY(cublasLtMatrixLayoutCreate(&p->x, in, (uint64_t)s->K, (uint64_t)s->T, s->K), s);
    LT_TRY(cublasLtMatrixLayoutCreate(&p->y, out, (uint64_t)s->N, (uint64_t)s->T, s->ldy), s);
    return ERR_OK;
}

static cublasStatus_t preference_fill(cublasLtMatmulPreference_t pref, const struct gemm_shape *s)
{
    static const cublasLtMatmulPreferenceAttributes_t align[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES};
    cublasStatus_t status = cublasLtMatmulPreferenceSetAttribute(
        pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes, sizeof workspace_bytes);
    for (int i = 0; i < 3 && status == CUBLAS_STATUS_SUCCESS; i++)
        status =
            cublasLtMatmulPreferenceSetAttribute(pref, align[i], &s->align[i], sizeof s->align[i]);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulPreferenceSetAttribute(
            pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &s->align[2], sizeof s->align[2]);
    return status;
}

/* Candidates of a shape, the library's favourite first. */
struct candidates {
    cublasLtMatmulHeuristicResult_t v[CANDIDATES];
    int n;
};

static enum err_code candidates_find(cublasLtHandle_t handle, const struct gemm_plan *p,
                                     struct candidates *out, struct err *e)
{
    const struct gemm_shape *s = &p->shape;
    cublasLtMatmulPreference_t pref;
    out->n = 0;
    LT_TRY(cublasLtMatmulPreferenceCreate(&pref), s);
    cublasStatus_t status = preference_fill(pref, s);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulAlgoGetHeuristic(handle, p->op, p->w, p->x, p->y, p->y, pref,
                                                CANDIDATES, out->v, &out->n);
    (void)cublasLtMatmulPreferenceDestroy(pref);
    LT_TRY(status == CUBLAS_STATUS_SUCCESS && out->n == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : status,
           s);
    return ERR_OK;
}

/* ---- trying candidates ---- */

/* What a try needs; outputs go to memory of their own, so that a sum can be repeated. */
struct trial {
    struct cuda_kern *c;
    const struct cuda_gemm_args *a;
    const struct gemm_plan *plan;
    unsigned *expected, *found; /* outputs, bytes / 4 words each */
    unsigned *n_different;
    int64_t words;
    cudaEvent_t start, stop;
};

static __global__ void words_differ_kernel(unsigned *n, const unsigned *a, const unsigned *b,
                                           int64_t words)
{
    bool differs = false;
    for (int64_t i = grid_thread(); i < words; i += grid_threads())
        differs = differs || a[i] != b[i];
    if (differs)
        atomicAdd(n, 1U);
}

static cublasStatus_t trial_run(const struct trial *t, const cublasLtMatmulAlgo_t *algo, void *out)
{
    const float one = 1.0F, zero = 0.0F;
    const struct gemm_plan *p = t->plan;
    return cublasLtMatmul(t->c->gemms->handle, p->op, &one, t->a->w, p->w, t->a->x, p->x,
                          t->a->is_sum ? &one : &zero, t->a->y, p->y, out, p->y, algo,
                          t->c->gemms->workspace, workspace_bytes, t->c->stream);
}

/* Milliseconds of a run, the least of several; negative when the candidate cannot run or gives other bits. */
static float trial_time(const struct trial *t, const cublasLtMatmulAlgo_t *algo)
{
    float best = -1.0F;
    unsigned n_different = 0;
    cudaStream_t stream = t->c->stream;
    if (trial_run(t, algo, t->found) != CUBLAS_STATUS_SUCCESS)
        return -1.0F;
    (void)cudaMemsetAsync(t->n_different, 0, sizeof *t->n_different, stream);
    words_differ_kernel<<<grid_for(t->words, THREADS), THREADS, 0, stream>>>(
        t->n_different, t->expected, t->found, t->words);
    if (cudaMemcpyAsync(&n_different, t->n_different, sizeof n_different, cudaMemcpyDeviceToHost,
                        stream) != cudaSuccess ||
        cudaStreamSynchronize(stream) != cudaSuccess || n_different != 0)
        return -1.0F;
    for (int i = 0; i < TIMED_RUNS; i++) {
        float ms = 0.0F;
        (void)cudaEventRecord(t->start, stream);
        (void)trial_run(t, algo, t->found);
        (void)cudaEventRecord(t->stop, stream);
        if (cudaEventSynchronize(t->stop) != cudaSuccess ||
            cudaEventElapsedTime(&ms, t->start, t->stop) != cudaSuccess)
            return -1.0F;
        best = best < 0.0F || ms < best ? ms : best;
    }
    return best;
}

static void trial_choose(const struct trial *t, const struct candidates *all,
                         cublasLtMatmulAlgo_t *algo)
{
    if (trial_run(t, &all->v[0].algo, t->expected) != CUBLAS_STATUS_SUCCESS)
        return;
    float best = trial_time(t, &all->v[0].algo) * CLEARLY;
    for (int i = 1; i < all->n; i++) {
        const float ms =
            all->v[i].state == CUBLAS_STATUS_SUCCESS ? trial_time(t, &all->v[i].algo) : -1.0F;
        if (ms > 0.0F && ms < best) {
            best = ms;
            *algo = all->v[i].algo;
        }
    }
}

/* The fastest of the candidates in *algo, which holds the first. Without memory for a try it stays. */
static void plan_tune(struct cuda_kern *c, const struct gemm_plan *p,
                      const struct cuda_gemm_args *a, const struct candidates *all,
                      cublasLtMatmulAlgo_t *algo)
{
    const size_t element = a->is_fp32_out ? sizeof(float) : (size_t)c->base.info.act_bytes;
    const size_t bytes = ((size_t)((a->T - 1) * a->ldy + a->N) * element + 15) / 16 * 16;
    struct trial t = {c, a, p, NULL, NULL, NULL, (int64_t)(bytes / sizeof(unsigned)), NULL, NULL};
    char *room = NULL;
    if (cudaMalloc((void **)&room, 2 * bytes + sizeof(unsigned)) == cudaSuccess &&
        cudaMemsetAsync(room, 0, 2 * bytes, c->stream) == cudaSuccess &&
        cudaEventCreate(&t.start) == cudaSuccess && cudaEventCreate(&t.stop) == cudaSuccess) {
        t.expected = (unsigned *)(void *)room;
        t.found = (unsigned *)(void *)(room + bytes);
        t.n_different = (unsigned *)(void *)(room + 2 * bytes);
        trial_choose(&t, all, algo);
        (void)cudaStreamSynchronize(c->stream);
    }
    if (t.start != NULL)
        (void)cudaEventDestroy(t.start);
    if (t.stop != NULL)
        (void)cudaEventDestroy(t.stop);
    (void)cudaFree(room);
    (void)cudaGetLastError(); /* a try that failed leaves the first candidate */
}

/* ---- choosing ---- */

/* A plan whose algorithm serves `s` too: equal but for the number of rows, many in both. */
static const struct gemm_plan *plan_alike(const struct cuda_gemm_plans *g,
                                          const struct gemm_shape *s)
{
    for (int i = 0; i < BUCKETS; i++) {
        for (const struct gemm_plan *p = g->bucket[i]; p != NULL; p = p->next) {
            struct gemm_shape other = p->shape;
            other.T = s->T;
            if (p->is_tuned && memcmp(&other, s, sizeof other) == 0)
                return p;
        }
    }
    return NULL;
}

static enum err_code plan_choose(struct cuda_kern *c, struct gemm_plan *p,
                                 const struct cuda_gemm_args *a, struct err *e)
{
    struct candidates all;
    cublasLtMatmulHeuristicResult_t checked;
    const bool is_large = a->T >= MANY_ROWS;
    const struct gemm_plan *alike = is_large ? plan_alike(c->gemms, &p->shape) : NULL;
    if (alike != NULL &&
        cublasLtMatmulAlgoCheck(c->gemms->handle, p->op, p->w, p->x, p->y, p->y, &alike->algo,
                                &checked) == CUBLAS_STATUS_SUCCESS &&
        checked.workspaceSize <= workspace_bytes) {
        p->algo = alike->algo;
        return ERR_OK;
    }
    TRY(candidates_find(c->gemms->handle, p, &all, e));
    p->algo = all.v[0].algo;
    if (is_large && all.n > 1)
        plan_tune(c, p, a, &all, &p->algo);
    p->is_tuned = is_large;
    return ERR_OK;
}

static void plan_free(struct gemm_plan *p)
{
    if (p->op != NULL)
        (void)cublasLtMatmulDescDestroy(p->op);
    cublasLtMatrixLayout_t layouts[] = {p->w, p->x, p->y};
    for (int i = 0; i < 3; i++)
        if (layouts[i] != NULL)
            (void)cublasLtMatrixLayoutDestroy(layouts[i]);
    xfree(p);
}

static enum err_code bias_set(const struct gemm_plan *p, const void *bias, struct err *e)
{
    if (bias != NULL)
        LT_TRY(cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                              sizeof bias),
               &p->shape);
    return ERR_OK;
}

static enum err_code plan_make(struct cuda_kern *c, struct gemm_plan *p,
                               const struct cuda_gemm_args *a, struct err *e)
{
    TRY(plan_describe(p, c->compute, e));
    TRY(bias_set(p, a->bias, e));
    return plan_choose(c, p, a, e);
}

static enum err_code plan_get(struct cuda_kern *c, const struct cuda_gemm_args *a,
                              struct gemm_plan **out, struct err *e)
{
    const struct gemm_shape s = shape_of(a);
    struct gemm_plan **bucket = &c->gemms->bucket[bucket_of(&s)];
    for (struct gemm_plan *p = *bucket; p != NULL; p = p->next) {
        if (memcmp(&p->shape, &s, sizeof s) == 0) {
            *out = p;
            return ERR_OK;
        }
    }
    struct gemm_plan *p = (struct gemm_plan *)xcalloc(1, sizeof *p);
    p->shape = s;
    enum err_code code = plan_make(c, p, a, e);
    if (code != ERR_OK) {
        plan_free(p);
        return code;
    }
    p->next = *bucket;
    *out = *bucket = p;
    return ERR_OK;
}

enum err_code cuda_gemm(struct cuda_kern *c, const struct cuda_gemm_args *a, struct err *e)
{
    const float one = 1.0F, zero = 0.0F;
    struct gemm_plan *p;
    if (a->T == 0 || a->N == 0)
        return ERR_OK;
    TRY(plan_get(c, a, &p, e));
    TRY(bias_set(p, a->bias, e));
    LT_TRY(cublasLtMatmul(c->gemms->handle, p->op, &one, a->w, p->w, a->x, p->x,
                          a->is_sum ? &one : &zero, a->y, p->y, a->y, p->y, &p->algo,
                          c->gemms->workspace, workspace_bytes, c->stream),
           &p->shape);
    return ERR_OK;
}

/* ---- life cycle ---- */

enum err_code cuda_gemm_open(struct cuda_kern *c, struct err *e)
{
    struct gemm_shape none = {};
    c->gemms = (struct cuda_gemm_plans *)xcalloc(1, sizeof *c->gemms);
    LT_TRY(cublasLtCreate(&c->gemms->handle), &none);
    CUDA_TRY(cudaMalloc(&c->gemms->workspace, workspace_bytes), "workspace of matrix products");
    cuda_gemm_find_encoder(c);
    return ERR_OK;
}

void cuda_gemm_close(struct cuda_kern *c)
{
    if (c->gemms == NULL)
        return;
    for (int i = 0; i < BUCKETS; i++) {
        for (struct gemm_plan *p = c->gemms->bucket[i], *next; p != NULL; p = next) {
            next = p->next;
            plan_free(p);
        }
    }
    (void)cudaFree(c->gemms->workspace);
    if (c->gemms->handle != NULL)
        (void)cublasLtDestroy(c->gemms->handle);
    xfree(c->gemms);
    c->gemms = NULL;
}

void cuda_gemm_name(char *out, size_t size)
{
    size_t v = cublasLtGetVersion(); /* major * 10000 + minor * 100 + patch */
    snprintf(out, size, "%zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
}

/* ---- activations ---- */

template <typename E, int N, kern_act ACT> static __global__ void act_kernel(E *y, int64_t packs)
{
    for (int64_t i = grid_thread(); i < packs; i += grid_threads()) {
        pack<E, N> p = pack_load<E, N>(y, i);
        float x[N];
#pragma unroll
        for (int j = 0; j < N; j++)
            x[j] = to_f32(p.v[j]);
        activate<E, ACT, false>(x);
#pragma unroll
        for (int j = 0; j < N; j++)
            p.v[j] = from_f32<E>(x[j]);
        pack_store<E, N>(y, i, p);
    }
}

template <typename E, kern_act ACT> static void act_launch(struct cuda_kern *c, void *y, int64_t n)
{
    if (can_pack<E>(y, n))
        act_kernel<E, 8, ACT><<<grid_for(n / 8, THREADS), THREADS, 0, c->stream>>>((E *)y, n / 8);
    else
        act_kernel<E, 1, ACT><<<grid_for(n, THREADS), THREADS, 0, c->stream>>>((E *)y, n);
}

static enum err_code act_apply(struct cuda_kern *c, enum kern_act act, void *y, int64_t n,
                               struct err *e)
{
    switch (act) {
    case KERN_ACT_NONE:
    case KERN_ACT_RELU: /* in the epilogue */
        return ERR_OK;
    case KERN_ACT_GELU_ERF:
        CUDA_BY_TYPE(c, (act_launch<E, KERN_ACT_GELU_ERF>(c, y, n)));
        break;
    case KERN_ACT_GELU_TANH:
        CUDA_BY_TYPE(c, (act_launch<E, KERN_ACT_GELU_TANH>(c, y, n)));
        break;
    }
    return cuda_launched("activation", e);
}

enum err_code cuda_linear(struct kern *k, const struct kern_linear_args *a, struct err *e)
{
    struct cuda_kern *c = cuda_of(k);
    struct cuda_gemm_args g = {};
    struct cuda_rotation rotation;
    if (a->T == 0)
        return ERR_OK;
    if (a->rotary != NULL)
        TRY(cuda_rotation_get(c, a->rotary, a->T, &rotation, e));
    if (cuda_linear_fused_can(c, a))
        return cuda_linear_fused(c, a, &rotation, e);
    g.y = a->y;
    g.x = a->x;
    g.w = a->w;
    g.bias = a->bias;
    g.T = a->T;
    g.N = g.ldy = a->N;
    g.K = a->K;
    g.is_sum = a->is_residual;
    g.is_relu = a->act == KERN_ACT_RELU;
    TRY(cuda_gemm(c, &g, e));
    if (a->rotary != NULL)
        return cuda_rotate(c, rotation, a->y, a->T, a->N, e);
    return act_apply(c, a->act, a->y, a->T * a->N, e);
}
