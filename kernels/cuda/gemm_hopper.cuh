/* Hopper's instructions for products that are fed by the tensor memory copier (compute capability 9.0): barriers in shared
 * memory, copies of boxes of a matrix, clusters, and wgmma with both sides in shared memory.
 *
 * A panel is 64 columns of 16-bit elements: a row is 128 bytes, its 16-byte chunks are swizzled (chunk ^ row % 8), and
 * eight rows make the 1024-byte atom that descriptors count in. Copier, wgmma and stmatrix agree on that; every panel
 * starts at a multiple of 1024 bytes. Shared memory is named by its 32-bit address. Only for code under GEMM_HAS_HOPPER. */
#ifndef ISOBIT_KERNELS_CUDA_GEMM_HOPPER_CUH
#define ISOBIT_KERNELS_CUDA_GEMM_HOPPER_CUH

#include <cuda.h>
#include <cudaTypedefs.h>

#include "kernels/cuda/cuda_util.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define GEMM_HAS_HOPPER 1
#else
#define GEMM_HAS_HOPPER 0
#endif

static constexpr int PANEL_WIDTH = 64, PANEL_ROW_BYTES = 128, GROUP_SIZE = 4 * WARP;
static constexpr int BLOCK_ROWS = 64; /* of a warpgroup's product */
static constexpr int PANEL_BYTES = BLOCK_ROWS * PANEL_ROW_BYTES;
static constexpr int ATOM_ROWS = 8, ATOM_BYTES = ATOM_ROWS * PANEL_ROW_BYTES;

#if GEMM_HAS_HOPPER

/* ---- barriers: a phase ends when all arrivals and all announced bytes are there ---- */

static __device__ __forceinline__ void barrier_init(uint32_t barrier, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}

/* Barriers initialized before are seen by the cluster and by copies, after cluster_sync. */
static __device__ __forceinline__ void barriers_publish(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/* Arrives and announces bytes that copies will bring. */
static __device__ __forceinline__ void barrier_expect(uint32_t barrier, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

static __device__ __forceinline__ void barrier_arrive(uint32_t barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/* Arrives at the same barrier of another block of the cluster. */
static __device__ __forceinline__ void barrier_arrive_at(uint32_t barrier, unsigned block)
{
    asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n}\n" ::"r"(barrier),
                 "r"(block)
                 : "memory");
}

/* Waits for the end of the phase with this parity; the one before the first counts as ended and as odd. A waiter must never
 * be two phases behind: it could not tell. */
static __device__ __forceinline__ void barrier_wait(uint32_t barrier, unsigned parity)
{
    asm volatile("{\n.reg .pred done;\nWAIT_%=:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra WAIT_%=;\n}\n" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}

/* Every thread of every block of the cluster. */
static __device__ __forceinline__ void cluster_sync(void)
{
    asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}

static __device__ __forceinline__ int cluster_rank(void)
{
    int rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

/* What all lanes of a warp have alike. By a shuffle, from which the compiler knows it: what follows from it stands in uniform
 * registers. */
static __device__ __forceinline__ int of_warp(int x)
{
    return __shfl_sync(ALL_LANES, x, 0);
}

/* Every thread of a warpgroup; `id` 1 to 15. */
static __device__ __forceinline__ void group_sync(int id)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "n"(GROUP_SIZE) : "memory");
}

/* ---- copies ---- */

/* How long the second-level cache should hold what a copy brings or writes: as anything, longest, shortest. */
#define CACHE_POLICY(name, priority)                                                               \
    static __device__ __forceinline__ uint64_t name(void)                                          \
    {                                                                                              \
        uint64_t policy;                                                                           \
        asm("createpolicy.fractional.L2::" priority ".b64 %0;" : "=l"(policy));                    \
        return policy;                                                                             \
    }
CACHE_POLICY(cache_normal, "evict_normal")
CACHE_POLICY(cache_keep, "evict_last")
CACHE_POLICY(cache_pass, "evict_first")

/* The box of the matrix whose first element is (row, col), to `to` in every block of `blocks` (bits), counted by the barrier
 * of each. Zeros beyond the matrix. */
static __device__ __forceinline__ void box_load_shared(uint32_t to, const CUtensorMap *map, int col,
                                                       int row, uint32_t barrier, uint16_t blocks,
                                                       uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".multicast::cluster.L2::cache_hint [%0], [%1, {%3, %4}], [%2], %5, %6;" ::"r"(to),
                 "l"(map), "r"(barrier), "r"(col), "r"(row), "h"(blocks), "l"(policy)
                 : "memory");
}

static __device__ __forceinline__ void box_load_hinted(uint32_t to, const CUtensorMap *map, int col,
                                                       int row, uint32_t barrier, uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".L2::cache_hint [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(to),
                 "l"(map), "r"(barrier), "r"(col), "r"(row), "l"(policy)
                 : "memory");
}

static __device__ __forceinline__ void box_load(uint32_t to, const CUtensorMap *map, int col,
                                                int row, uint32_t barrier)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%3, %4}], [%2];" ::"r"(to),
                 "l"(map), "r"(barrier), "r"(col), "r"(row)
                 : "memory");
}

/* Starts writing a box; what lies beyond the matrix is left out. One group of copies. */
static __device__ __forceinline__ void box_store(const CUtensorMap *map, uint32_t from, int col,
                                                 int row, uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group.L2::cache_hint"
                 " [%0, {%2, %3}], [%1], %4;\n"
                 "cp.async.bulk.commit_group;" ::"l"(map),
                 "r"(from), "r"(col), "r"(row), "l"(policy)
                 : "memory");
}

/* Waits until shared memory that this thread's stores read may be written again. */
static __device__ __forceinline__ void stores_wait_read(void)
{
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

static __device__ __forceinline__ void stores_wait(void)
{
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

/* Shared memory that this thread wrote is seen by copies, once a barrier has passed. */
static __device__ __forceinline__ void copies_publish(void)
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* Asks for what stands at p (global memory) in the first-level cache. */
static __device__ __forceinline__ void cache_fetch(const void *p)
{
    asm volatile("prefetch.global.L1 [%0];" ::"l"(p));
}

/* ---- registers to and from panels ---- */

/* Four 8x8 matrices whose rows start where lanes 0-7, 8-15, 16-23 and 24-31 point. */
static __device__ __forceinline__ void matrices_store(uint32_t to, const uint32_t m[4])
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(to),
                 "r"(m[0]), "r"(m[1]), "r"(m[2]), "r"(m[3])
                 : "memory");
}

static __device__ __forceinline__ void word_store(uint32_t to, uint32_t v)
{
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(to), "r"(v) : "memory");
}

static __device__ __forceinline__ uint32_t word_load(uint32_t from)
{
    uint32_t v;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(from));
    return v;
}

/* From the same place in another block of the cluster, or in this one. */
static __device__ __forceinline__ uint32_t word_load_at(uint32_t from, unsigned block)
{
    uint32_t v;
    asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %1, %2;\n"
                 "ld.shared::cluster.u32 %0, [there];\n}\n"
                 : "=r"(v)
                 : "r"(from), "r"(block));
    return v;
}

/* ---- products ---- */

/* Registers written before are seen by the products that follow. */
static __device__ __forceinline__ void products_begin(void)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ __forceinline__ void products_commit(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Waits until at most N of what was committed is under way. */
template <int N> static __device__ __forceinline__ void products_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* What a product reads from a panel on: atoms follow each other at ATOM_BYTES, 128-byte swizzle. */
static __device__ __forceinline__ uint64_t panel_descriptor(uint32_t at)
{
    return (uint64_t)(1U << 30 | ATOM_BYTES >> 4) << 32 | (ATOM_BYTES >> 4) << 16 |
           (at >> 4 & 0x3fff);
}

/* The same in two steps, of which the first serves many: at a shared address, and then so many bytes on: atoms follow each other at 1024 bytes, 128-byte swizzle.
 * `next_panel`: bytes to where columns 64 and on lie, of a right side with its columns along the row; of others nobody looks
 * at it. Shared addresses have 18 bits, of which 14 count here. */
static __device__ __forceinline__ uint32_t descriptor_base(uint32_t address, int next_panel)
{
    return address >> 4 | (uint32_t)(next_panel >> 4) << 16;
}

static __device__ __forceinline__ uint64_t descriptor(uint32_t base, int bytes)
{
    return (uint64_t)(1U << 30 | ATOM_BYTES >> 4) << 32 | (base + (unsigned)bytes / 16);
}

#define GEMM_OUT8(d, i)                                                                            \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]),    \
        "+f"(d[i + 6]), "+f"(d[i + 7])
#define GEMM_OUT32(d, i)                                                                           \
    GEMM_OUT8(d, i), GEMM_OUT8(d, i + 8), GEMM_OUT8(d, i + 16), GEMM_OUT8(d, i + 24)
#define GEMM_OUT64(d) GEMM_OUT32(d, 0), GEMM_OUT32(d, 32)
#define GEMM_OUT96(d) GEMM_OUT64(d), GEMM_OUT32(d, 64)
#define GEMM_LIST64                                                                                \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"                                       \
    "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"                             \
    "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"                             \
    "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define GEMM_LIST96                                                                                \
    GEMM_LIST64 ","                                                                                \
                "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,"                 \
                "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"

/* d[64, cols] (+)= a[64, 16] b[cols, 16]^T; a and b are descriptors. d holds of row lane / 4 of the warp's 16 the columns
 * 8 j + 2 (lane % 4) and the next at 4 j and 4 j + 1, of the row 8 below at 4 j + 2 and 4 j + 3. */
#define GEMM_PRODUCT(type, cols, list, out, a_at, b_at, sum_at)                                    \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " sum_at ", 0;\n"                               \
                 "wgmma.mma_async.sync.aligned.m64n" cols "k16.f32." type "." type " {" list       \
                 "}, " a_at ", " b_at ", p, 1, 1, 0, 0;\n}\n"                                      \
                 : out                                                                             \
                 : "l"(a), "l"(b), "r"((int)is_sum)                                                \
                 : "memory")

template <typename E, int COLS> struct product;

template <> struct product<__half, 128> {
    static __device__ __forceinline__ void add(float *d, uint64_t a, uint64_t b, bool is_sum)
    {
        GEMM_PRODUCT("f16", "128", GEMM_LIST64, GEMM_OUT64(d), "%64", "%65", "%66");
    }
};

template <> struct product<__nv_bfloat16, 128> {
    static __device__ __forceinline__ void add(float *d, uint64_t a, uint64_t b, bool is_sum)
    {
        GEMM_PRODUCT("bf16", "128", GEMM_LIST64, GEMM_OUT64(d), "%64", "%65", "%66");
    }
};

template <> struct product<__half, 192> {
    static __device__ __forceinline__ void add(float *d, uint64_t a, uint64_t b, bool is_sum)
    {
        GEMM_PRODUCT("f16", "192", GEMM_LIST96, GEMM_OUT96(d), "%96", "%97", "%98");
    }
};

template <> struct product<__nv_bfloat16, 192> {
    static __device__ __forceinline__ void add(float *d, uint64_t a, uint64_t b, bool is_sum)
    {
        GEMM_PRODUCT("bf16", "192", GEMM_LIST96, GEMM_OUT96(d), "%96", "%97", "%98");
    }
};

#endif /* GEMM_HAS_HOPPER */

/* ---- host ---- */

/* Boxes of `box_rows` rows and a panel's width of p[rows, cols], which the second-level cache reads by `line`. c->encode_map is
 * there. */
static inline enum err_code panel_map(const struct cuda_kern *c, CUtensorMap *map, const void *p,
                                      int64_t rows, int64_t cols, int box_rows,
                                      CUtensorMapL2promotion line, struct err *e)
{
    const bool is_bf16 = c->compute == KERN_BF16;
    const cuuint64_t sizes[] = {(cuuint64_t)cols, (cuuint64_t)rows}, row_bytes = sizes[0] * 2;
    const cuuint32_t box[] = {PANEL_WIDTH, (cuuint32_t)box_rows}, steps[] = {1, 1};
    const CUresult status = ((PFN_cuTensorMapEncodeTiled_v12000)c->encode_map)(
        map, is_bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2,
        (void *)(uintptr_t)p, sizes, &row_bytes, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
        CU_TENSOR_MAP_SWIZZLE_128B, line, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (status != CUDA_SUCCESS)
        return err_set(e, ERR_DEVICE, "map of a matrix of %lld rows and %lld columns: error %d",
                       (long long)rows, (long long)cols, (int)status);
    return ERR_OK;
}

#endif
