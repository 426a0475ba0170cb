/* The kernels on 512-bit vectors. Compiled for any x86-64 processor, run only on one with AVX-512. */
#include <immintrin.h>

#include "kernels.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")
#endif

#define WIDTH 16
typedef __m512 V;
typedef __mmask16 M;

#define INLINE static inline __attribute__((always_inline))

INLINE V v_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void v_store(float *p, V a) { _mm512_storeu_ps(p, a); }
INLINE V v_set(float f) { return _mm512_set1_ps(f); }
INLINE V v_sqrt(V a) { return _mm512_sqrt_ps(a); }
INLINE V v_abs(V a) { return _mm512_abs_ps(a); }
INLINE V v_neg(V a) { return _mm512_xor_ps(_mm512_set1_ps(-0.0f), a); }
INLINE V v_min(V a, V b) { return _mm512_min_ps(a, b); }
INLINE V v_max(V a, V b) { return _mm512_max_ps(a, b); }
INLINE M v_lt(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
INLINE M v_gt(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
INLINE M v_ge(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
INLINE M v_ne(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ); }
INLINE M m_and(M a, M b) { return (M)(a & b); }
INLINE M m_or(M a, M b) { return (M)(a | b); }
INLINE M m_not(M a) { return (M)~a; }
INLINE uint32_t m_bits(M a) { return a; }
INLINE V v_pick(M m, V yes, V no) { return _mm512_mask_blend_ps(m, no, yes); }

INLINE V v_rint(V a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

INLINE __m512i wrapped_ints(V a) {
    const __m512i bits = _mm512_castps_si512(_mm512_add_ps(a, _mm512_set1_ps(12582912.0f)));
    return _mm512_sub_epi32(_mm512_and_si512(bits, _mm512_set1_epi32(0x7fffff)),
                            _mm512_set1_epi32(0x400000));
}

INLINE V v_rint_wrapped(V a) { return _mm512_cvtepi32_ps(wrapped_ints(a)); }

/* Quarters of rows r, r + 4, r + 8, r + 12 side by side, then the 4 x 4 transpose in each. */
INLINE void transpose_quarter(const float *const *rows, int at, float *out, int stride) {
    V r[4];
    for (int k = 0; k < 4; ++k) {
        r[k] = _mm512_castps128_ps512(_mm_loadu_ps(rows[k] + at));
        r[k] = _mm512_insertf32x4(r[k], _mm_loadu_ps(rows[k + 4] + at), 1);
        r[k] = _mm512_insertf32x4(r[k], _mm_loadu_ps(rows[k + 8] + at), 2);
        r[k] = _mm512_insertf32x4(r[k], _mm_loadu_ps(rows[k + 12] + at), 3);
    }
    const V a = _mm512_unpacklo_ps(r[0], r[1]), b = _mm512_unpackhi_ps(r[0], r[1]);
    const V c = _mm512_unpacklo_ps(r[2], r[3]), d = _mm512_unpackhi_ps(r[2], r[3]);
    v_store(out, _mm512_shuffle_ps(a, c, _MM_SHUFFLE(1, 0, 1, 0)));
    v_store(out + stride, _mm512_shuffle_ps(a, c, _MM_SHUFFLE(3, 2, 3, 2)));
    v_store(out + 2 * stride, _mm512_shuffle_ps(b, d, _MM_SHUFFLE(1, 0, 1, 0)));
    v_store(out + 3 * stride, _mm512_shuffle_ps(b, d, _MM_SHUFFLE(3, 2, 3, 2)));
}

INLINE void transpose(const float *const *rows, int at, float *out, int stride) {
    for (int k = 0; k < 16; k += 4) transpose_quarter(rows, at + k, out + k * stride, stride);
}

INLINE void round16(const float *x, float shift, float d, int low, int high, int bias,
                    uint8_t *out) {
    __m512i i = wrapped_ints(_mm512_div_ps(_mm512_add_ps(v_load(x), v_set(shift)), v_set(d)));
    i = _mm512_max_epi32(_mm512_min_epi32(i, _mm512_set1_epi32(high)), _mm512_set1_epi32(low));
    i = _mm512_add_epi32(i, _mm512_set1_epi32(bias));
    _mm_storeu_si128((__m128i *)(void *)out, _mm512_cvtepi32_epi8(i));
}

/* Per bin: its bound, the value below the bound, and that value's index. */
#define NEVER 3e38f
static const float BIN_BOUNDS[32] __attribute__((aligned(64))) = {
    NEVER, NEVER, NEVER, -115.5f, NEVER, -93.5f, NEVER, NEVER, -74, -57, NEVER, -42, NEVER,
    -28.5f, -16, -4.5f,
    NEVER, 7, 19, NEVER, 31.5f, 45.5f, NEVER, 61, NEVER, 79, NEVER, NEVER, 101, NEVER, NEVER,
    NEVER,
};
static const float BIN_VALUES[32] __attribute__((aligned(64))) = {
    -127, -127, -127, -127, -104, -104, -83, -83, -83, -65, -49, -49, -35, -35, -22, -10,
    1, 1, 13, 25, 25, 38, 53, 53, 69, 69, 89, 89, 89, 113, 113, 113,
};
static const int BIN_INDICES[32] __attribute__((aligned(64))) = {
    0, 0, 0, 0, 1, 1, 2, 2, 2, 3, 4, 4, 5, 5, 6, 7,
    8, 8, 9, 10, 10, 11, 12, 12, 13, 13, 14, 14, 14, 15, 15, 15,
};

/*
 * 32 bins of equal width, narrow enough that each holds at most one bound; a number is in the
 * value of its bin or in the next, which one exact comparison says. The magic number rounds to an
 * integer whose low five bits are the bin's.
 */
INLINE __m512i iq4_bin(V a) {
    const V inside = _mm512_min_ps(_mm512_max_ps(a, v_set(-130)), v_set(130));
    const V scaled = _mm512_mul_ps(inside, v_set(31.0f / 270));
    return _mm512_castps_si512(_mm512_add_ps(scaled, v_set(12582912.0f + 16)));
}

/* The bin, or the next one if `a` has reached the bound in it. */
INLINE __m512i iq4_step(V a, __m512i bin) {
    const V low = v_load(BIN_BOUNDS), high = v_load(BIN_BOUNDS + 16);
    const M beyond = v_ge(a, _mm512_permutex2var_ps(low, bin, high));
    return _mm512_mask_add_epi32(bin, beyond, bin, _mm512_set1_epi32(1));
}

INLINE V v_iq4(V a) {
    const V low = v_load(BIN_VALUES), high = v_load(BIN_VALUES + 16);
    const __m512i bin = iq4_bin(a);
    return _mm512_permutex2var_ps(low, iq4_step(a, bin), high);
}

INLINE void iq4_index16(const float *x, float scale, uint8_t *out) {
    const __m512i low = _mm512_load_si512(BIN_INDICES);
    const __m512i high = _mm512_load_si512(BIN_INDICES + 16);
    const V a = _mm512_mul_ps(v_set(scale), v_load(x));
    const __m512i index = _mm512_permutex2var_epi32(low, iq4_step(a, iq4_bin(a)), high);
    _mm_storeu_si128((__m128i *)(void *)out, _mm512_cvtepi32_epi8(index));
}

#define SET kernels_avx512
#define SET_NAME "avx512"
#include "formats.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
