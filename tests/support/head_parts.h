/* A head that comes in parts against the whole head: likelihoods and divergences are the same to the bit. Operands with
 * maxima that tie across parts, targets in every part, and runs over both. For any kern. */
#ifndef ISOBIT_TESTS_SUPPORT_HEAD_PARTS_H
#define ISOBIT_TESTS_SUPPORT_HEAD_PARTS_H

#include "kernels/kernels.h"

/* Of a row r the arg max is known unless r % 4 is 3. */
struct head_operands {
    int64_t R, d, V, n;
    float *x, *ref, *head; /* [R, d], [R, d], [V, d] */
    int32_t *row, *token;  /* [n] by row; up to 46 of a row, every seventh has none */
};

/* V >= 16. `step`: of the kern; its edges are among the targets. */
struct head_operands head_operands_new(int64_t R, int64_t d, int64_t V, int64_t step,
                                       uint64_t seed);
void head_operands_free(struct head_operands *o);
/* The smallest of the largest logits' ids; -1: not known. */
int64_t head_operands_top(const struct head_operands *o, int64_t row);

struct head_answers {
    float *logprob;
    uint8_t *is_top; /* [n] */
    double *kl;
    uint8_t *same_top; /* [R] */
};

/* Operands as they lie on the device. */
struct head_device {
    const void *x, *ref, *head;
};

/* `part` rows of the head at a time, which stand at one address; 0: all by a call without parts. Release with
 * head_answers_release. */
MUST_USE enum err_code head_answers_get(struct kern *k, const struct head_operands *o,
                                        const struct head_device *at, int64_t part,
                                        struct head_answers *out, struct err *e);
void head_answers_release(struct head_answers *a);

/* Answers that are not the same, to the bit. */
int64_t head_answers_differ(const struct head_operands *o, const struct head_answers *a,
                            const struct head_answers *b);
/* Answers about the arg max that are wrong, where it is known. */
int64_t head_answers_wrong(const struct head_operands *o, const struct head_answers *a);

#endif
