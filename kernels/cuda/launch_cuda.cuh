/* Kernels that come to the multiprocessors while the last blocks of the one before still run (programmatic dependent launch, CUDA
 * programming guide; compute capability 9.0). Such a kernel calls launch_wait before it reads or writes device memory: all threads
 * of all blocks, so that its own end stands for the end of everything queued before it. launch_next lets the next one come once
 * every block of this one is there. Private to kernels/cuda. */
#ifndef ISOBIT_KERNELS_CUDA_LAUNCH_CUDA_CUH
#define ISOBIT_KERNELS_CUDA_LAUNCH_CUDA_CUH

#include "kernels/cuda/cuda_util.cuh"

static __device__ __forceinline__ void launch_wait(void)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

static __device__ __forceinline__ void launch_next(void)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

/* ---- host ---- */

struct launch_size {
    int64_t blocks;
    int threads;
    size_t shared_bytes; /* beyond what the kernel declares */
    int cluster;         /* blocks of a cluster, or 0 */
};

/* P as it stands in a parameter list, so that arguments convert to it. */
template <typename P> struct launch_argument {
    using type = P;
};

/* The kernel calls launch_wait. */
template <typename... P>
static enum err_code launch_overlapped(struct cuda_kern *c, void (*kernel)(P...),
                                       const struct launch_size &size, const char *what,
                                       struct err *e, typename launch_argument<P>::type... args)
{
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attributes[2] = {};
    config.gridDim = dim3((unsigned)size.blocks);
    config.blockDim = dim3((unsigned)size.threads);
    config.dynamicSmemBytes = size.shared_bytes;
    config.stream = c->stream;
    config.attrs = attributes;
    if (c->has_wgmma) {
        attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
    }
    if (size.cluster > 0) {
        attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
        attributes[config.numAttrs].val.clusterDim.x = (unsigned)size.cluster;
        attributes[config.numAttrs].val.clusterDim.y = 1;
        attributes[config.numAttrs++].val.clusterDim.z = 1;
    }
    if (size.shared_bytes > 48 << 10)
        CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      (int)size.shared_bytes),
                 what);
    CUDA_TRY(cudaLaunchKernelEx(&config, kernel, args...), what);
    return ERR_OK;
}

#endif
