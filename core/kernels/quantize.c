/* int8 activations, a scale per token, and what stands around the integer products.
 *
 * Whatever happens to a token depends on that token alone: each column is computed by the same
 * instructions in every row, so a row gives the same bits alone and in any batch.
 */

#include <float.h>
#include <stdint.h>
#include <string.h>

#define LANES 16
#define BLOCK 64 /* columns at once: compilers make the best of loops of a fixed length */
#define LARGEST 127.0f
#define ZERO_POINT 128.0f
/* Adding 1.5 * 2^23 leaves a small number, rounded to even, in the low bits of the sum. */
#define ROUNDER 12582912.0f

typedef int32_t ints __attribute__((vector_size(LANES * sizeof(int32_t))));

static inline int32_t bits_of(float value)
{
    int32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline ints magnitudes(const float *x)
{
    ints bits;
    memcpy(&bits, x, sizeof bits);
    return bits & INT32_MAX;
}

/* C has no choice between vectors; a comparison gives -1 or 0 in each lane. */
static inline ints larger(ints a, ints b)
{
    const ints where = a > b;
    return (where & a) | (~where & b);
}

/* The largest magnitude, found by bits: they order as magnitudes do, and a NaN is larger than any
 * number, so that it reaches the scale, and the answer. */
static inline float find_peak(const float *x, int64_t width)
{
    ints even = {0}, odd = {0}; /* two, since each comparison waits for the one before */
    int64_t at = 0;
    for (; at + 2 * LANES <= width; at += 2 * LANES) {
        even = larger(even, magnitudes(x + at));
        odd = larger(odd, magnitudes(x + at + LANES));
    }
    even = larger(even, odd);
    int32_t bits = 0;
    for (int lane = 0; lane < LANES; lane++)
        bits = even[lane] > bits ? even[lane] : bits;
    for (; at < width; at++) {
        const int32_t one = bits_of(x[at]) & INT32_MAX;
        bits = one > bits ? one : bits;
    }
    float peak;
    memcpy(&peak, &bits, sizeof peak);
    return peak;
}

static inline void encode_block(const float *restrict x, float inverse, uint8_t *restrict to)
{
    for (int at = 0; at < BLOCK; at++)
        to[at] = (uint8_t)bits_of(x[at] * inverse + (ROUNDER + ZERO_POINT));
}

/* The codes of one token; returns its scale. */
static inline float encode(const float *x, int64_t width, uint8_t *to)
{
    const float peak = find_peak(x, width);
    /* Below this a quotient would overflow, and such a token adds nothing. */
    const float inverse = peak < FLT_MIN * ZERO_POINT ? 0.0f : LARGEST / peak;
    int64_t at = 0;
    for (; at + BLOCK <= width; at += BLOCK)
        encode_block(x + at, inverse, to + at);
    if (at < width) {
        const size_t count = (size_t)(width - at);
        float rest[BLOCK] = {0.0f};
        uint8_t found[BLOCK];
        memcpy(rest, x + at, count * sizeof(float));
        encode_block(rest, inverse, found);
        memcpy(to + at, found, count);
    }
    return peak / LARGEST;
}

/* x [tokens, width], factors [width] or null → to [tokens, width], 128 for zero; scales [tokens]:
 * x * factors = (to - 128) * scale. */
void isogloss_quantize(const float *x, const float *factors, int64_t width, uint8_t *to,
                       float *scales, int64_t first, int64_t last)
{
    float scaled[width];
    for (int64_t token = first; token < last; token++) {
        const float *row = x + token * width;
        if (factors) {
            for (int64_t at = 0; at < width; at++)
                scaled[at] = row[at] * factors[at];
            row = scaled;
        }
        scales[token] = encode(row, width, to + token * width);
    }
}

/* x Φ(x), where erf is a quotient of two polynomials of degree 5 in z², fitted on |z| <= 3.93 with
 * an error of 2e-8; beyond, erf is 1 in single precision. */
static inline float gelu(float x)
{
    float z = x * 0.70710678118654752f;
    z = z < 3.93f ? z : 3.93f;
    z = z > -3.93f ? z : -3.93f;
    const float s = z * z;
    float p = s * 2.02700357476715e-06f + 0.0002875064965337515f;
    p = p * s + 0.00388437882065773f;
    p = p * s + 0.05310840159654617f;
    p = p * s + 0.19318224489688873f;
    p = p * s + 1.128378987312317f;
    float q = s * 3.799232217716053e-05f + 0.0011913978960365057f;
    q = q * s + 0.015204524621367455f;
    q = q * s + 0.11525081098079681f;
    q = q * s + 0.504534900188446f;
    q = q * s + 1.0f;
    const float half = x * 0.5f;
    return half * (z * p / q) + half;
}

static inline void gelu_block(float *x)
{
    for (int at = 0; at < BLOCK; at++)
        x[at] = gelu(x[at]);
}

/* As isogloss_quantize, of GELU(x), which takes the place of x. */
void isogloss_gelu_quantize(float *x, const float *factors, int64_t width, uint8_t *to,
                            float *scales, int64_t first, int64_t last)
{
    for (int64_t token = first; token < last; token++) {
        float *row = x + token * width;
        int64_t at = 0;
        for (; at + BLOCK <= width; at += BLOCK)
            gelu_block(row + at);
        if (at < width) {
            const size_t bytes = (size_t)(width - at) * sizeof(float);
            float rest[BLOCK] = {0.0f};
            memcpy(rest, row + at, bytes);
            gelu_block(rest);
            memcpy(row + at, rest, bytes);
        }
        isogloss_quantize(x, factors, width, to, scales, token, token + 1);
    }
}

static inline void rescale_block(float *restrict y, float scale, const float *restrict bias)
{
    for (int at = 0; at < BLOCK; at++)
        y[at] = y[at] * scale + bias[at];
}

static inline void add_block(float *restrict y, float factor, const float *restrict weights)
{
    for (int at = 0; at < BLOCK; at++)
        y[at] += factor * weights[at];
}

/* y [tokens, out] = y * scales + bias + sum over k of x[columns[k]] * weights[k].
 * bias [out]; x [tokens, in]; columns [count]; weights [count, out]: the input channels that are
 * too large for int8, in single precision. */
void isogloss_rescale(float *y, const float *scales, const float *bias, int64_t out, const float *x,
                      int64_t in, const int64_t *columns, const float *weights, int64_t count,
                      int64_t first, int64_t last)
{
    for (int64_t token = first; token < last; token++) {
        float *row = y + token * out;
        const float *inputs = x + token * in;
        int64_t at = 0;
        for (; at + BLOCK <= out; at += BLOCK) {
            rescale_block(row + at, scales[token], bias + at);
            for (int64_t k = 0; k < count; k++)
                add_block(row + at, inputs[columns[k]], weights + k * out + at);
        }
        for (; at < out; at++) {
            row[at] = row[at] * scales[token] + bias[at];
            for (int64_t k = 0; k < count; k++)
                row[at] += inputs[columns[k]] * weights[k * out + at];
        }
    }
}
