/* Places in a buffer of two halves that are filled in turns. A half must not be filled again before what was taken from it
 * the last time is done with; its user notes that where the ring turns. Pure. Private to kernels/cuda. */
#ifndef ISOBIT_KERNELS_CUDA_RING_H
#define ISOBIT_KERNELS_CUDA_RING_H

#include <stdbool.h>
#include <stddef.h>

struct ring {
    size_t half; /* bytes */
    int side;    /* the half that is being filled, 0 or 1 */
    size_t at;   /* in it */
};

/* True where `bytes` would fit into an empty half. */
static inline bool ring_holds(const struct ring *r, size_t bytes)
{
    return bytes <= r->half;
}

/* True where the half at hand has no room for them: then ring_turn comes first. */
static inline bool ring_is_full(const struct ring *r, size_t bytes)
{
    return bytes > r->half - r->at;
}

/* To the other half, from its start. */
static inline void ring_turn(struct ring *r)
{
    r->side = 1 - r->side;
    r->at = 0;
}

/* Offset of `bytes` for which there is room. */
static inline size_t ring_take(struct ring *r, size_t bytes)
{
    const size_t place = (size_t)r->side * r->half + r->at;
    r->at += bytes;
    return place;
}

#endif
