/* The kernels on 128-bit vectors, which every x86-64 processor has. */
#include <emmintrin.h>

#include "kernels.h"

#define WIDTH 4
typedef __m128 V;
typedef __m128 M;

#define INLINE static inline __attribute__((always_inline))

INLINE V v_load(const float *p) { return _mm_loadu_ps(p); }
INLINE void v_store(float *p, V a) { _mm_storeu_ps(p, a); }
INLINE V v_set(float f) { return _mm_set1_ps(f); }
INLINE V v_sqrt(V a) { return _mm_sqrt_ps(a); }
INLINE V v_abs(V a) { return _mm_andnot_ps(_mm_set1_ps(-0.0f), a); }
INLINE V v_neg(V a) { return _mm_xor_ps(_mm_set1_ps(-0.0f), a); }
INLINE V v_min(V a, V b) { return _mm_min_ps(a, b); }
INLINE V v_max(V a, V b) { return _mm_max_ps(a, b); }
INLINE M v_lt(V a, V b) { return _mm_cmplt_ps(a, b); }
INLINE M v_gt(V a, V b) { return _mm_cmpgt_ps(a, b); }
INLINE M v_ge(V a, V b) { return _mm_cmpge_ps(a, b); }
INLINE M v_ne(V a, V b) { return _mm_cmpneq_ps(a, b); }
INLINE M m_and(M a, M b) { return _mm_and_ps(a, b); }
INLINE M m_or(M a, M b) { return _mm_or_ps(a, b); }
INLINE M m_not(M a) { return _mm_xor_ps(a, _mm_castsi128_ps(_mm_set1_epi32(-1))); }
INLINE uint32_t m_bits(M a) { return (uint32_t)_mm_movemask_ps(a); }
INLINE V v_pick(M m, V yes, V no) {
    return _mm_or_ps(_mm_and_ps(m, yes), _mm_andnot_ps(m, no));
}

/* Only for sizes below 2^22, which the callers make sure of. */
INLINE V v_rint(V a) {
    const V magic = _mm_set1_ps(12582912.0f);
    return _mm_sub_ps(_mm_add_ps(a, magic), magic);
}

INLINE __m128i wrapped_ints(V a) {
    const __m128i bits = _mm_castps_si128(_mm_add_ps(a, _mm_set1_ps(12582912.0f)));
    return _mm_sub_epi32(_mm_and_si128(bits, _mm_set1_epi32(0x7fffff)),
                         _mm_set1_epi32(0x400000));
}

INLINE V v_rint_wrapped(V a) { return _mm_cvtepi32_ps(wrapped_ints(a)); }

INLINE void transpose(const float *const *rows, int at, float *out, int stride) {
    V a = v_load(rows[0] + at), b = v_load(rows[1] + at);
    V c = v_load(rows[2] + at), d = v_load(rows[3] + at);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    v_store(out, a);
    v_store(out + stride, b);
    v_store(out + 2 * stride, c);
    v_store(out + 3 * stride, d);
}

INLINE void round16(const float *x, float shift, float d, int low, int high, int bias,
                    uint8_t *out) {
    const V vs = v_set(shift), vd = v_set(d);
    __m128i i[4];
    for (int k = 0; k < 4; ++k)
        i[k] = wrapped_ints(_mm_div_ps(_mm_add_ps(v_load(x + 4 * k), vs), vd));
    __m128i a = _mm_packs_epi32(i[0], i[1]), b = _mm_packs_epi32(i[2], i[3]);
    const __m128i lo = _mm_set1_epi16((short)low), hi = _mm_set1_epi16((short)high);
    const __m128i add = _mm_set1_epi16((short)bias);
    a = _mm_add_epi16(_mm_max_epi16(_mm_min_epi16(a, hi), lo), add);
    b = _mm_add_epi16(_mm_max_epi16(_mm_min_epi16(b, hi), lo), add);
    _mm_storeu_si128((__m128i *)(void *)out, _mm_packus_epi16(a, b));
}

/* By counting the thresholds that a value has reached. */
INLINE V v_iq4(V a) {
    V value = v_set(IQ4_VALUES[0]);
    for (int i = 0; i < 15; ++i)
        value = _mm_add_ps(value, _mm_and_ps(v_ge(a, v_set(IQ4_BOUNDS[i])),
                                             v_set(IQ4_VALUES[i + 1] - IQ4_VALUES[i])));
    return value;
}

INLINE void iq4_index16(const float *x, float scale, uint8_t *out) {
    const V s = v_set(scale);
    __m128i i[4];
    for (int k = 0; k < 4; ++k) {
        const V a = _mm_mul_ps(s, v_load(x + 4 * k));
        i[k] = _mm_setzero_si128();
        for (int t = 0; t < 15; ++t)
            i[k] = _mm_sub_epi32(i[k], _mm_castps_si128(v_ge(a, v_set(IQ4_BOUNDS[t]))));
    }
    _mm_storeu_si128((__m128i *)(void *)out, _mm_packus_epi16(_mm_packs_epi32(i[0], i[1]),
                                                              _mm_packs_epi32(i[2], i[3])));
}

#define SET kernels_sse2
#define SET_NAME "sse2"
#include "formats.h"
