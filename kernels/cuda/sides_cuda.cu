/* Finds the sides of the second-level cache (sides.h): one multiprocessor after the other times additions to lines of memory. */
#include "kernels/cuda/cuda_util.cuh"

static constexpr int APART = 4096 + 128; /* bytes from line to line */
static constexpr int ROUNDS = 4;         /* of which the shortest counts */
/* Shared memory that no two blocks find on one multiprocessor. */
static constexpr int ALONE_BYTES = 200 << 10;

struct sides_room {
    char lines[SIDES_LINES][APART];
    unsigned is_taken; /* by the block whose multiprocessor is at it */
    struct sides_times times;
};

static __device__ __forceinline__ uint32_t clock_now(void)
{
    uint32_t now;
    asm volatile("mov.u32 %0, %%clock;" : "=r"(now)::"memory");
    return now;
}

/* One thread a block. In any order: who waits, waits for a block that runs. */
static __global__ void sides_time(struct sides_room *room)
{
    uint32_t number;
    asm("mov.u32 %0, %%smid;" : "=r"(number));
    while (atomicExch(&room->is_taken, 1U) != 0U)
        __nanosleep(200);
    for (int i = 0; i < SIDES_LINES; i++) {
        uint32_t least = UINT32_MAX;
        for (int r = 0; r < ROUNDS; r++) {
            const uint32_t start = clock_now();
            if (atomicAdd((int *)room->lines[i], 1) < 0)
                __trap(); /* never; asking makes the clock wait for the answer */
            least = min(least, clock_now() - start);
        }
        if (number < SIDES_MOST)
            room->times.took[number][i] = least;
    }
    __threadfence();
    atomicExch(&room->is_taken, 0U);
}

static enum err_code sides_measure(struct cuda_kern *c, struct sides_room *room,
                                   struct sides_times *times, struct err *e)
{
    static const char what[] = "sides of the GPU's second-level cache";
    CUDA_TRY(cudaMemsetAsync(room, 0, sizeof *room, c->stream), what);
    CUDA_TRY(
        cudaFuncSetAttribute(sides_time, cudaFuncAttributeMaxDynamicSharedMemorySize, ALONE_BYTES),
        what);
    sides_time<<<c->n_multiprocessors, 1, ALONE_BYTES, c->stream>>>(room);
    TRY(cuda_launched(what, e));
    return cuda_pull(c, times, &room->times, sizeof *times, what, e);
}

enum err_code cuda_sides_open(struct cuda_kern *c, struct err *e)
{
    static const char what[] = "seats at the GPU's second-level cache";
    struct sides_times times;
    void *room;
    if (!c->has_wgmma)
        return ERR_OK;
    CUDA_TRY(cudaMalloc(&room, sizeof(struct sides_room)), what);
    const enum err_code code = sides_measure(c, (struct sides_room *)room, &times, e);
    (void)cudaFree(room);
    if (code != ERR_OK)
        return code;
    sides_find(&c->sides, &times);
    CUDA_TRY(cudaMalloc((void **)&c->seats, 4 * sizeof *c->seats), what);
    CUDA_TRY(cudaMemsetAsync(c->seats, 0, 4 * sizeof *c->seats, c->stream), what);
    return ERR_OK;
}

void cuda_sides_close(struct cuda_kern *c)
{
    (void)cudaFree(c->seats);
    c->seats = NULL;
}
