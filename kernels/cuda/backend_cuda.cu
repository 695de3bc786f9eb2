/* Life cycle and memory of the cuda backend, and its table. Built as the module isobit-cuda.so, which exports the
 * table and nothing else. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda_util.cuh"

enum err_code cuda_fail(cudaError_t status, const char *what, struct err *e)
{
    (void)cudaGetLastError(); /* an error that does not stick must not show up at the next launch */
    if (status == cudaErrorMemoryAllocation)
        return err_set(e, ERR_NOMEM, "%s: not enough memory on the GPU", what);
    return err_set(e, ERR_DEVICE, "%s: %s (%s)", what, cudaGetErrorString(status),
                   cudaGetErrorName(status));
}

/* ---- memory ---- */

enum err_code cuda_buffer_get(struct cuda_kern *c, struct cuda_buffer *b, size_t bytes,
                              const char *what, void **out, struct err *e)
{
    if (b->bytes < bytes) {
        CUDA_TRY(cudaStreamSynchronize(c->stream), what);
        cuda_buffer_release(b);
        CUDA_TRY(cudaMalloc(&b->p, bytes), what);
        b->bytes = bytes;
    }
    *out = b->p;
    return ERR_OK;
}

void cuda_buffer_release(struct cuda_buffer *b)
{
    (void)cudaFree(b->p);
    *b = {};
}

static void ring_release(struct cuda_ring *r)
{
    (void)cudaFreeHost(r->host);
    (void)cudaFree(r->device);
    r->host = r->device = NULL;
    r->place = {};
}

static enum err_code ring_grow(struct cuda_kern *c, size_t half, struct err *e)
{
    static const char what[] = "room for arguments of kernels";
    void *host = NULL, *device = NULL;
    CUDA_TRY(cudaStreamSynchronize(c->stream), what);
    ring_release(&c->ring);
    CUDA_TRY(cudaMallocHost(&host, 2 * half), what);
    c->ring.host = (char *)host;
    CUDA_TRY(cudaMalloc(&device, 2 * half), what);
    c->ring.device = (char *)device;
    c->ring.place.half = half;
    return ERR_OK;
}

/* Makes room for `bytes` in one piece. */
static enum err_code ring_reserve(struct cuda_kern *c, size_t bytes, struct err *e)
{
    static const char what[] = "arguments of kernels to the GPU";
    const size_t smallest = (size_t)4 << 20;
    struct cuda_ring *r = &c->ring;
    if (!ring_holds(&r->place, bytes))
        return ring_grow(c, 2 * bytes > smallest ? 2 * bytes : smallest, e);
    if (!ring_is_full(&r->place, bytes))
        return ERR_OK;
    CUDA_TRY(cudaEventRecord(r->filled[r->place.side], c->stream), what);
    ring_turn(&r->place);
    CUDA_TRY(cudaEventSynchronize(r->filled[r->place.side]), what);
    return ERR_OK;
}

enum err_code cuda_push(struct cuda_kern *c, const void *src, size_t bytes, void **out,
                        struct err *e)
{
    const size_t line = 64;
    struct cuda_ring *r = &c->ring;
    const size_t room = (bytes + line - 1) / line * line;
    TRY(ring_reserve(c, room, e));
    const size_t at = ring_take(&r->place, room);
    memcpy(r->host + at, src, bytes);
    CUDA_TRY(
        cudaMemcpyAsync(r->device + at, r->host + at, bytes, cudaMemcpyHostToDevice, c->stream),
        "arguments of kernels to the GPU");
    *out = r->device + at;
    return ERR_OK;
}

enum err_code cuda_keep(struct cuda_kern *c, struct cuda_buffer *b, const void *src, size_t bytes,
                        const char *what, struct err *e)
{
    void *kept, *pushed;
    TRY(cuda_buffer_get(c, b, bytes, what, &kept, e));
    TRY(cuda_push(c, src, bytes, &pushed, e));
    CUDA_TRY(cudaMemcpyAsync(kept, pushed, bytes, cudaMemcpyDeviceToDevice, c->stream), what);
    return ERR_OK;
}

enum err_code cuda_pull(struct cuda_kern *c, void *dst, const void *src, size_t bytes,
                        const char *what, struct err *e)
{
    CUDA_TRY(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, c->stream), what);
    CUDA_TRY(cudaStreamSynchronize(c->stream), what);
    return ERR_OK;
}

static enum err_code cuda_alloc(struct kern *k, size_t bytes, const char *what, void **out,
                                struct err *e)
{
    void *p = NULL;
    CUDA_TRY(cudaMalloc(&p, bytes > 0 ? bytes : 1), what);
    cudaError_t status = cudaMemsetAsync(p, 0, bytes, cuda_of(k)->stream);
    if (status != cudaSuccess) {
        (void)cudaFree(p);
        return cuda_fail(status, what, e);
    }
    *out = p;
    return ERR_OK;
}

/* cudaFree waits for the device, so that no queued kernel loses what it works on. */
static void cuda_free(struct kern *k, void *p)
{
    (void)k;
    (void)cudaFree(p);
}

/* From pageable memory the call returns once the source has been copied; from pinned memory it would not. */
static enum err_code cuda_upload(struct kern *k, void *dst, const void *src, size_t bytes,
                                 struct err *e)
{
    CUDA_TRY(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, cuda_of(k)->stream),
             "copy to the GPU");
    return ERR_OK;
}

static enum err_code cuda_download(struct kern *k, void *dst, const void *src, size_t bytes,
                                   struct err *e)
{
    return cuda_pull(cuda_of(k), dst, src, bytes, "copy from the GPU", e);
}

static enum err_code cuda_sync(struct kern *k, struct err *e)
{
    return cuda_answers_sync(cuda_of(k), e);
}

/* ---- copies beside the work ---- */

static enum err_code cuda_host_alloc(struct kern *k, size_t bytes, const char *what, void **out,
                                     struct err *e)
{
    void *p = NULL;
    (void)k;
    cudaError_t status = cudaMallocHost(&p, bytes > 0 ? bytes : 1);
    if (status == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        return err_set(e, ERR_NOMEM, "%s: not enough memory to pin on the host", what);
    }
    CUDA_TRY(status, what);
    *out = p;
    return ERR_OK;
}

static void cuda_host_free(struct kern *k, void *p)
{
    (void)k;
    (void)cudaFreeHost(p);
}

static enum err_code copies_open(struct cuda_kern *c, struct err *e)
{
    static const char what[] = "a stream of copies";
    if (c->copies != NULL)
        return ERR_OK;
    CUDA_TRY(cudaStreamCreateWithFlags(&c->copies, cudaStreamNonBlocking), what);
    CUDA_TRY(cudaEventCreateWithFlags(&c->worked, cudaEventDisableTiming), what);
    CUDA_TRY(cudaEventCreateWithFlags(&c->copied, cudaEventDisableTiming), what);
    return ERR_OK;
}

static void copies_close(struct cuda_kern *c)
{
    if (c->copies == NULL)
        return;
    (void)cudaStreamSynchronize(c->copies);
    (void)cudaStreamDestroy(c->copies);
    if (c->worked != NULL)
        (void)cudaEventDestroy(c->worked);
    if (c->copied != NULL)
        (void)cudaEventDestroy(c->copied);
}

static enum err_code cuda_copy_mark(struct kern *k, struct err *e)
{
    static const char what[] = "copies behind the work before them";
    struct cuda_kern *c = cuda_of(k);
    TRY(copies_open(c, e));
    CUDA_TRY(cudaEventRecord(c->worked, c->stream), what);
    CUDA_TRY(cudaStreamWaitEvent(c->copies, c->worked, 0), what);
    return ERR_OK;
}

static enum err_code cuda_copy_ahead(struct kern *k, void *dst, const void *src, size_t bytes,
                                     struct err *e)
{
    struct cuda_kern *c = cuda_of(k);
    TRY(copies_open(c, e));
    CUDA_TRY(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, c->copies),
             "copy of weights to the GPU");
    return ERR_OK;
}

static enum err_code cuda_copy_join(struct kern *k, struct err *e)
{
    static const char what[] = "work behind copies";
    struct cuda_kern *c = cuda_of(k);
    TRY(copies_open(c, e));
    CUDA_TRY(cudaEventRecord(c->copied, c->copies), what);
    CUDA_TRY(cudaStreamWaitEvent(c->stream, c->copied, 0), what);
    return ERR_OK;
}

static enum err_code cuda_copy_wait(struct kern *k, struct err *e)
{
    struct cuda_kern *c = cuda_of(k);
    TRY(copies_open(c, e));
    CUDA_TRY(cudaStreamSynchronize(c->copies), "copy of weights to the GPU");
    return ERR_OK;
}

/* ---- life cycle ---- */

static enum err_code parse_unit(const char *unit, int *device, struct err *e)
{
    char *end;
    long n = strtol(unit, &end, 10);
    if (unit[0] < '0' || unit[0] > '9' || *end != '\0' || n > 1023)
        return err_set(e, ERR_FORMAT, "device 'cuda:%s': expected a number, as in cuda:0", unit);
    int count = 0;
    cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess) {
        (void)cudaGetLastError();
        return err_set(e, ERR_NOTFOUND, "device 'cuda:%s': no usable GPU here: %s", unit,
                       cudaGetErrorString(status));
    }
    if (n >= count)
        return err_set(e, ERR_NOTFOUND, "device 'cuda:%s': this machine has %d GPU%s", unit, count,
                       count == 1 ? "" : "s");
    *device = (int)n;
    return ERR_OK;
}

static enum err_code describe(struct cuda_kern *c, int device, struct err *e)
{
    struct cudaDeviceProp prop;
    int driver = 0, runtime = 0;
    char gemm[32];
    CUDA_TRY(cudaGetDeviceProperties(&prop, device), "properties of the GPU");
    CUDA_TRY(cudaDriverGetVersion(&driver), "version of the driver");
    CUDA_TRY(cudaRuntimeGetVersion(&runtime), "version of the CUDA runtime");
    if (prop.major < 8)
        return err_set(e, ERR_UNSUPPORTED,
                       "device 'cuda:%d' (%s) has compute capability %d.%d; 8.0 or newer is needed",
                       device, prop.name, prop.major, prop.minor);
    cuda_gemm_name(gemm, sizeof gemm);
    CUDA_TRY(cudaDeviceGetPCIBusId(c->base.info.pci, sizeof c->base.info.pci, device),
             "position of the GPU");
    struct kern_info *info = &c->base.info;
    snprintf(info->device, sizeof info->device,
             "cuda: %.40s sm_%d%d driver %d.%d runtime %d.%d cuBLASLt %.14s", prop.name, prop.major,
             prop.minor, driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10,
             gemm);
    info->act_bytes = c->compute == KERN_FP32 ? 4 : 2;
    info->memory_bytes = (int64_t)prop.totalGlobalMem;
    info->threads = 1;
    info->batch_tokens = 16384; /* products of the smallest models then fill the GPU */
    info->activation_bytes = (int64_t)1 << 30;
    info->head_step = HEAD_STEP;
    info->row_step = 128; /* tiles of products; few shapes, whose algorithms are chosen once */
    c->n_multiprocessors = prop.multiProcessorCount;
    c->shared_bytes = prop.sharedMemPerBlockOptin;
#ifdef ISOBIT_HAS_SM_90A
    c->has_wgmma = prop.major == 9 && prop.minor == 0;
#endif
    return ERR_OK;
}

static void cuda_close(struct kern *k)
{
    struct cuda_kern *c = cuda_of(k);
    if (c->stream != NULL)
        (void)cudaStreamSynchronize(c->stream);
    copies_close(c);
    cuda_gemm_close(c);
    cuda_sides_close(c);
    cuda_attention_close(c);
    cuda_rotary_close(c);
    cuda_book_close(c);
    cuda_quant_close(c);
    cuda_answers_close(c);
    ring_release(&c->ring);
    for (int i = 0; i < 2; i++)
        if (c->ring.filled[i] != NULL)
            (void)cudaEventDestroy(c->ring.filled[i]);
    cuda_buffer_release(&c->scratch);
    cuda_buffer_release(&c->counts);
    (void)cudaFreeHost(c->order);
    if (c->stream != NULL)
        (void)cudaStreamDestroy(c->stream);
    xfree(c);
}

static enum err_code open_into(struct cuda_kern *c, int device, struct err *e)
{
    TRY(describe(c, device, e));
    CUDA_TRY(cudaSetDevice(device), "choosing the GPU");
    CUDA_TRY(cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking), "a stream of the GPU");
    for (int i = 0; i < 2; i++)
        CUDA_TRY(cudaEventCreateWithFlags(&c->ring.filled[i], cudaEventDisableTiming),
                 "an event of the GPU");
    TRY(cuda_answers_open(c, e));
    TRY(cuda_sides_open(c, e));
    return cuda_gemm_open(c, e);
}

static enum err_code cuda_open(const char *unit, const struct kern_options *o, struct kern **out,
                               struct err *e)
{
    int device = 0;
    TRY(parse_unit(unit, &device, e));
    struct cuda_kern *c = (struct cuda_kern *)xcalloc(1, sizeof *c);
    c->compute = o->compute;
    enum err_code code = open_into(c, device, e);
    if (code != ERR_OK) {
        cuda_close(&c->base);
        return code;
    }
    *out = &c->base;
    return ERR_OK;
}

/* The name is KERN_BACKEND_SYMBOL. */
extern "C" __attribute__((visibility("default"))) const struct backend_ops isobit_kern_backend;

const struct backend_ops isobit_kern_backend = {
    .version = KERN_BACKEND_VERSION,
    .name = "cuda",
    .open = cuda_open,
    .close = cuda_close,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .upload = cuda_upload,
    .download = cuda_download,
    .sync = cuda_sync,
    .host_alloc = cuda_host_alloc,
    .host_free = cuda_host_free,
    .copy_mark = cuda_copy_mark,
    .copy_ahead = cuda_copy_ahead,
    .copy_join = cuda_copy_join,
    .copy_wait = cuda_copy_wait,
    .mark = cuda_mark,
    .wait = cuda_wait,
    .cast_f16 = cuda_cast_f16,
    .cast_f32 = cuda_cast_f32,
    .embed = cuda_embed,
    .layernorm = cuda_layernorm,
    .linear = cuda_linear,
    .attention = cuda_attention,
    .copy_rows = cuda_copy_rows,
    .head_bytes = cuda_head_bytes,
    .score = cuda_score,
    .kl = cuda_kl,
    .logits = cuda_logits,
    .quantize = cuda_quantize,
    .quant_check = cuda_quant_check,
    .order_statistics = cuda_order_statistics,
    .spread = cuda_spread,
};
