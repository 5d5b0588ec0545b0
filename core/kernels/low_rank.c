/* Low-rank updates of a packed batch: y[t] += weight * up (down x[t]) for every token of a segment.
 *
 * Each token's sums run in an order that depends on its adapter alone: never on how many tokens
 * there are, nor on which tokens stand beside it. So a row gives the same bits in any batch.
 */

#include <stdint.h>
#include <string.h>

#define LANES 16
#define TOKENS 4 /* computed at once: every load of a weight serves four tokens */
#define RANKS 4

typedef float lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(4)));

typedef float half __attribute__((vector_size(LANES / 2 * sizeof(float)), aligned(4)));

static inline float sum(lanes values)
{
    union { lanes all; half halves[2]; float each[LANES]; } split = {.all = values};
    const half folded = split.halves[0] + split.halves[1];
    return ((folded[0] + folded[4]) + (folded[1] + folded[5])) +
           ((folded[2] + folded[6]) + (folded[3] + folded[7]));
}

/* projected[token][rank] = weight * down[rank] . x[token], for `count` ranks (1..RANKS). */
static inline void project(const float *const x[TOKENS], const float *down, int64_t width,
                           int count, float weight, float *projected, int64_t stride)
{
    lanes sums[RANKS][TOKENS];
    memset(sums, 0, sizeof sums);
    int64_t at = 0;
    for (; at + LANES <= width; at += LANES)
        for (int rank = 0; rank < count; rank++) {
            const lanes a = *(const lanes *)(down + rank * width + at);
            for (int token = 0; token < TOKENS; token++)
                sums[rank][token] += a * *(const lanes *)(x[token] + at);
        }
    for (int rank = 0; rank < count; rank++)
        for (int token = 0; token < TOKENS; token++) {
            float total = sum(sums[rank][token]);
            for (int64_t rest = at; rest < width; rest++)
                total += down[rank * width + rest] * x[token][rest];
            projected[token * stride + rank] = weight * total;
        }
}

/* y[token] += sum over ranks of projected[token][rank] * up[rank], for the first `live` tokens. */
static inline void expand(float *const y[TOKENS], int live, const float *up, int64_t width,
                          int64_t ranks, const float *projected, int64_t stride)
{
    int64_t at = 0;
    for (; at + LANES <= width; at += LANES) {
        lanes sums[TOKENS];
        memset(sums, 0, sizeof sums);
        for (int64_t rank = 0; rank < ranks; rank++) {
            const lanes b = *(const lanes *)(up + rank * width + at);
            for (int token = 0; token < TOKENS; token++)
                sums[token] += projected[token * stride + rank] * b;
        }
        for (int token = 0; token < live; token++)
            *(lanes *)(y[token] + at) += sums[token];
    }
    for (; at < width; at++)
        for (int token = 0; token < live; token++) {
            float total = 0.0f;
            for (int64_t rank = 0; rank < ranks; rank++)
                total += projected[token * stride + rank] * up[rank * width + at];
            y[token][at] += total;
        }
}

/* x [tokens, in], y [tokens, out]; arena: all slots' weights.
 * places [slots, 3]: where a slot's down [rank, in] and up [rank, out] begin in the arena, and the
 * rank, 0 where the slot leaves this layer alone.
 * segments [count, 3]: first token, token after the last, slot; weights [count].
 * Only tokens first..last are written, so that threads can share a batch. */
void isogloss_low_rank(const float *x, float *y, int64_t in, int64_t out, const float *arena,
                       const int64_t *places, const int64_t *segments, const float *weights,
                       int64_t count, int64_t first, int64_t last)
{
    float projected[TOKENS * 64];
    for (int64_t segment = 0; segment < count; segment++) {
        const int64_t *place = places + 3 * segments[3 * segment + 2];
        const int64_t ranks = place[2];
        int64_t begin = segments[3 * segment], end = segments[3 * segment + 1];
        begin = begin < first ? first : begin;
        end = end > last ? last : end;
        if (ranks == 0 || begin >= end)
            continue;
        const float *down = arena + place[0], *up = arena + place[1];
        for (int64_t token = begin; token < end; token += TOKENS) {
            const int live = end - token < TOKENS ? (int)(end - token) : TOKENS;
            const float *inputs[TOKENS];
            float *outputs[TOKENS];
            for (int at = 0; at < TOKENS; at++) {
                /* The last block repeats a token rather than take another path through the code. */
                const int64_t row = token + (at < live ? at : live - 1);
                inputs[at] = x + row * in;
                outputs[at] = y + row * out;
            }
            /* 64 ranks at a time, so that the scratch space is small and fixed. */
            for (int64_t rank = 0; rank < ranks; rank += 64) {
                const int64_t block = ranks - rank < 64 ? ranks - rank : 64;
                int64_t at = 0;
                for (; at + RANKS <= block; at += RANKS)
                    project(inputs, down + (rank + at) * in, in, RANKS, weights[segment],
                            projected + at, 64);
                for (; at < block; at++)
                    project(inputs, down + (rank + at) * in, in, 1, weights[segment],
                            projected + at, 64);
                expand(outputs, live, up + rank * out, out, block, projected, 64);
            }
        }
    }
}
