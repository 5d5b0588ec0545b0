/* Rescaling an int8 product and adding low-rank updates to it, while its rows are in the cache. */

#include <stdint.h>

#define ROWS 32

void isogloss_rescale(float *y, const float *scales, const float *bias, int64_t out, const float *x,
                      int64_t in, const int64_t *columns, const float *weights, int64_t count,
                      int64_t first, int64_t last);
void isogloss_low_rank(const float *x, float *y, int64_t in, int64_t out, const float *arena,
                       const int64_t *places, const int64_t *segments, const float *weights,
                       int64_t count, int64_t first, int64_t last);

/* As isogloss_rescale, then isogloss_low_rank, with the arguments of both. */
void isogloss_rescale_low_rank(float *y, const float *scales, const float *bias, int64_t out,
                               const float *x, int64_t in, const int64_t *columns,
                               const float *outliers, int64_t outlier_count, const float *arena,
                               const int64_t *places, const int64_t *segments,
                               const float *weights, int64_t count, int64_t first, int64_t last)
{
    for (int64_t begin = first; begin < last; begin += ROWS) {
        const int64_t end = last - begin < ROWS ? last : begin + ROWS;
        isogloss_rescale(y, scales, bias, out, x, in, columns, outliers, outlier_count, begin, end);
        isogloss_low_rank(x, y, in, out, arena, places, segments, weights, count, begin, end);
    }
}
