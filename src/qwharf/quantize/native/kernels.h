/* What the parts of the library share: the group kernels' signature and half precision. */
#ifndef QWHARF_KERNELS_H
#define QWHARF_KERNELS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SUPER 256     /* weights of a K-quant's block */
#define MAX_LANES 32  /* blocks that the widest kernel takes at once */
#define FP8_BLOCK 128 /* rows and columns that share a scale */
#define TINY 1e-15f   /* a group whose largest weight is below this counts as all zero */

/* ggml's numbers for the block types, as they stand in GGUF files. */
enum { TYPE_Q8_0 = 8, TYPE_Q2_K = 10, TYPE_Q3_K, TYPE_Q4_K, TYPE_Q5_K, TYPE_Q6_K, TYPE_IQ4_NL = 20, TYPE_IQ4_XS = 23 };

/*
 * Quantises `count` blocks at once; x[lane] is where a block's weights lie, and importance[lane]
 * their importances (only in kernels that use them). Pointers are valid for every lane: a group
 * that is not full repeats a block. Returns a bit per block that it could not do exactly; the
 * bytes of such a block are undefined.
 */
typedef uint32_t (*group_kernel)(const float *const *x, const float *const *importance, int count,
                                 uint8_t *out);

typedef struct {
    int type;
    int elements;            /* weights of a block */
    int bytes;               /* of a block */
    group_kernel plain;      /* without importances; may be missing */
    group_kernel weighted;   /* with */
} kernel;

/* Groups of `group` floats to words of `bits` bits, scales and biases: mlx.h. */
typedef void (*mlx_kernel)(const float *x, int64_t groups, int group, int bits, uint8_t *words,
                           float *scales, float *biases);

/* A matrix to e4m3 and the scales of its blocks: fp8.h. */
typedef void (*fp8_kernel)(const void *from, int source, int64_t rows, int64_t columns,
                           uint8_t *to, float *scales);

typedef struct {
    const char *name;
    int lanes;
    const kernel *kernels;
    int count;
    mlx_kernel mlx;
    fp8_kernel fp8;
} kernel_set;

/* The 16 values of IQ4_NL and IQ4_XS, and from where on a number is nearer to the next of them. */
static const float IQ4_VALUES[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};
static const float IQ4_BOUNDS[15] = {-115.5f, -93.5f, -74,    -57, -42, -28.5f, -16, -4.5f,
                                     7,       19,     31.5f, 45.5f, 61,  79,     101};

extern const kernel_set kernels_sse2, kernels_avx2, kernels_avx512;

static inline uint32_t float_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float bits_float(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* Rounds to half precision, to nearest, ties to even; too large becomes infinite. */
static inline uint16_t to_half(float f) {
    uint32_t u = float_bits(f);
    const uint32_t sign = (u >> 16) & 0x8000u;
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (u >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);
    if (u < 0x38800000u) /* subnormal: one unit of 0.5f's last place is one of its own */
        return (uint16_t)(sign | (float_bits(bits_float(u) + 0.5f) - 0x3f000000u));
    u += 0xfffu + ((u >> 13) & 1u);
    return (uint16_t)(sign | ((u - 0x38000000u) >> 13));
}

static inline float from_half(uint16_t h) {
    const uint32_t size = (uint32_t)(h & 0x7fff) << 13;
    /* 2^112 moves half's exponent range to float's, subnormals included. */
    uint32_t u = float_bits(bits_float(size) * 0x1p112f);
    if ((h & 0x7c00) == 0x7c00) u |= 0x7f800000u;
    return bits_float(u | (uint32_t)(h & 0x8000) << 16);
}

static inline float size_of(float f) { return bits_float(float_bits(f) & 0x7fffffffu); }

/* Neither NaN nor so large that the next product may not be a number. */
static inline int usable(float f) { return size_of(f) < 3.0e38f; }

/* To the nearest integer, ties to even; for sizes below 2^22. */
static inline int rounded(float f) {
    return (int)(float_bits(f + 12582912.0f) & 0x7fffffu) - 0x400000;
}

static inline int half_is_finite(uint16_t h) { return (h & 0x7c00) != 0x7c00; }

static inline void put_half(uint8_t *at, uint16_t h) { memcpy(at, &h, sizeof h); }

/* What weights are stored as. */
enum { F32, F16, BF16 };

static inline void widen(const void *from, int source, size_t n, float *to) {
    const uint16_t *h = from;
    if (source == BF16)
        for (size_t i = 0; i < n; ++i) to[i] = bits_float((uint32_t)h[i] << 16);
    else
        for (size_t i = 0; i < n; ++i) to[i] = from_half(h[i]);
}

/* n weights as floats: where they lie, or widened into `buffer`. */
static inline const float *as_floats(const void *from, int source, size_t n, float *buffer) {
    if (source == F32) return from;
    widen(from, source, n, buffer);
    return buffer;
}

#endif
