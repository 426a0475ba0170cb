/* The kernels on 256-bit vectors. Compiled for any x86-64 processor, run only on one with AVX2. */
#include <immintrin.h>

#include "kernels.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif

#define WIDTH 8
typedef __m256 V;
typedef __m256 M;

#define INLINE static inline __attribute__((always_inline))

INLINE V v_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void v_store(float *p, V a) { _mm256_storeu_ps(p, a); }
INLINE V v_set(float f) { return _mm256_set1_ps(f); }
INLINE V v_sqrt(V a) { return _mm256_sqrt_ps(a); }
INLINE V v_abs(V a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
INLINE V v_neg(V a) { return _mm256_xor_ps(_mm256_set1_ps(-0.0f), a); }
INLINE V v_min(V a, V b) { return _mm256_min_ps(a, b); }
INLINE V v_max(V a, V b) { return _mm256_max_ps(a, b); }
INLINE M v_lt(V a, V b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
INLINE M v_gt(V a, V b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
INLINE M v_ge(V a, V b) { return _mm256_cmp_ps(a, b, _CMP_GE_OQ); }
INLINE M v_ne(V a, V b) { return _mm256_cmp_ps(a, b, _CMP_NEQ_UQ); }
INLINE M m_and(M a, M b) { return _mm256_and_ps(a, b); }
INLINE M m_or(M a, M b) { return _mm256_or_ps(a, b); }
INLINE M m_not(M a) { return _mm256_xor_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(-1))); }
INLINE uint32_t m_bits(M a) { return (uint32_t)_mm256_movemask_ps(a); }
INLINE V v_pick(M m, V yes, V no) { return _mm256_blendv_ps(no, yes, m); }

INLINE V v_rint(V a) {
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

INLINE __m256i wrapped_ints(V a) {
    const __m256i bits = _mm256_castps_si256(_mm256_add_ps(a, _mm256_set1_ps(12582912.0f)));
    return _mm256_sub_epi32(_mm256_and_si256(bits, _mm256_set1_epi32(0x7fffff)),
                            _mm256_set1_epi32(0x400000));
}

INLINE V v_rint_wrapped(V a) { return _mm256_cvtepi32_ps(wrapped_ints(a)); }

/* Halves of rows r and r + 4 side by side, then the 4 x 4 transpose within each half. */
INLINE void transpose_half(const float *const *rows, int at, float *out, int stride) {
    V r[4];
    for (int k = 0; k < 4; ++k)
        r[k] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(rows[k] + at)),
                                    _mm_loadu_ps(rows[k + 4] + at), 1);
    const V a = _mm256_unpacklo_ps(r[0], r[1]), b = _mm256_unpackhi_ps(r[0], r[1]);
    const V c = _mm256_unpacklo_ps(r[2], r[3]), d = _mm256_unpackhi_ps(r[2], r[3]);
    v_store(out, _mm256_shuffle_ps(a, c, _MM_SHUFFLE(1, 0, 1, 0)));
    v_store(out + stride, _mm256_shuffle_ps(a, c, _MM_SHUFFLE(3, 2, 3, 2)));
    v_store(out + 2 * stride, _mm256_shuffle_ps(b, d, _MM_SHUFFLE(1, 0, 1, 0)));
    v_store(out + 3 * stride, _mm256_shuffle_ps(b, d, _MM_SHUFFLE(3, 2, 3, 2)));
}

INLINE void transpose(const float *const *rows, int at, float *out, int stride) {
    transpose_half(rows, at, out, stride);
    transpose_half(rows, at + 4, out + 4 * stride, stride);
}

INLINE void store_bytes(__m256i a, __m256i b, uint8_t *out) {
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
    _mm_storeu_si128((__m128i *)(void *)out, _mm_packus_epi16(_mm256_castsi256_si128(words),
                                                              _mm256_extracti128_si256(words, 1)));
}

INLINE void round16(const float *x, float shift, float d, int low, int high, int bias,
                    uint8_t *out) {
    const V vs = v_set(shift), vd = v_set(d);
    const __m256i lo = _mm256_set1_epi32(low), hi = _mm256_set1_epi32(high);
    const __m256i add = _mm256_set1_epi32(bias);
    __m256i i[2];
    for (int k = 0; k < 2; ++k) {
        i[k] = wrapped_ints(_mm256_div_ps(_mm256_add_ps(v_load(x + 8 * k), vs), vd));
        i[k] = _mm256_max_epi32(_mm256_min_epi32(i[k], hi), lo);
        i[k] = _mm256_add_epi32(i[k], add);
    }
    store_bytes(i[0], i[1], out);
}

/*
 * A search through the sorted bounds, four comparisons deep. Where a comparison holds its mask is
 * -1, so the path comes out negative; the look-up takes its index modulo 8, and the tables are
 * laid out for that.
 */
INLINE __m256i iq4_path(V a, M *last) {
    const V third = _mm256_setr_ps(-93.5f, 79, 19, -28.5f, -93.5f, 79, 19, -28.5f);
    const V fourth = _mm256_setr_ps(-115.5f, 101, 61, 31.5f, 7, -16, -42, -74);
    const __m256i first = _mm256_castps_si256(v_ge(a, v_set(-4.5f)));
    const M second = v_ge(a, v_pick(_mm256_castsi256_ps(first), v_set(45.5f), v_set(-57)));
    __m256i path = _mm256_add_epi32(_mm256_add_epi32(first, first), _mm256_castps_si256(second));
    const M more = v_ge(a, _mm256_permutevar8x32_ps(third, path));
    path = _mm256_add_epi32(_mm256_add_epi32(path, path), _mm256_castps_si256(more));
    *last = v_ge(a, _mm256_permutevar8x32_ps(fourth, path));
    return path;
}

INLINE V v_iq4(V a) {
    const V even = _mm256_setr_ps(-127, 89, 53, 25, 1, -22, -49, -83);
    const V odd = _mm256_setr_ps(-104, 113, 69, 38, 13, -10, -35, -65);
    M last;
    const __m256i path = iq4_path(a, &last);
    return v_pick(last, _mm256_permutevar8x32_ps(odd, path),
                  _mm256_permutevar8x32_ps(even, path));
}

INLINE void iq4_index16(const float *x, float scale, uint8_t *out) {
    const V s = v_set(scale);
    __m256i i[2];
    for (int k = 0; k < 2; ++k) {
        M last;
        const __m256i path = iq4_path(_mm256_mul_ps(s, v_load(x + 8 * k)), &last);
        i[k] = _mm256_add_epi32(_mm256_add_epi32(path, path), _mm256_castps_si256(last));
        i[k] = _mm256_sub_epi32(_mm256_setzero_si256(), i[k]);
    }
    store_bytes(i[0], i[1], out);
}

#define SET kernels_avx2
#define SET_NAME "avx2"
#include "formats.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
