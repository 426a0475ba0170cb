/* Q4_K, Q5_K, Q2_K: every group of weights has a scale and a minimum. */

typedef struct {
    float scales[16 * LANES], lows[16 * LANES]; /* small integers, per group and lane */
    float d[LANES], m[LANES];
    uint32_t flat[16], odd;
} affine_blocks;

/*
 * All groups of all lanes. Without importances a weight's error counts |x|, to which a group's
 * root mean square is added if `rooted`; `doubled` is about the power in the weights with them.
 */
INLINE void affine_groups(const float *const *rows, const float *const *importance, affine a,
                          int rooted, int doubled, int scale_top, affine_blocks *out) {
    const int groups = SUPER / a.n;
    float x[SUPER * LANES] ALIGNED, w[32 * LANES] ALIGNED, scales[16 * LANES], lows[16 * LANES];
    float weights[16 * LANES];
    V power[VECTORS], d[VECTORS], m[VECTORS];
    M odd[VECTORS], odd_low[VECTORS];
    gather(rows, 0, SUPER, x);
    if (importance) {
        sum_of_squares(x, SUPER, power);
        if (doubled) EACH power[k] = v_set(2) * power[k];
        EACH power[k] = power[k] / v_set(SUPER);
    }
    out->odd = 0;
    for (int g = 0; g < groups; ++g) {
        const float *xg = x + g * a.n * LANES;
        affine_fit fit;
        if (importance) {
            gather(importance, g * a.n, a.n, w);
            error_weights(xg, w, a.n, power, w);
        } else {
            V root[VECTORS];
            if (rooted) sum_of_squares(xg, a.n, root);
            if (rooted) EACH root[k] = v_sqrt(root[k] / v_set((float)a.n));
            for (int i = 0; i < a.n; ++i) {
                EACH {
                    V size = v_abs(at(xg, i, k));
                    if (rooted) size = root[k] + size;
                    put(w, i, k, size);
                }
            }
        }
        fit_affine(xg, w, a, &fit);
        EACH {
            put(scales, g, k, fit.scale[k]);
            put(lows, g, k, v_neg(fit.low[k]));
            put(weights, g, k, fit.weight[k]);
        }
        out->flat[g] = fit.flat;
        out->odd |= fit.odd;
    }
    if (importance) {
        fit_positive(scales, weights, groups, scale_top, out->scales, d, odd);
        fit_positive(lows, weights, groups, scale_top, out->lows, m, odd_low);
    } else {
        spread_positive(scales, groups, scale_top, out->scales, d, odd);
        spread_positive(lows, groups, scale_top, out->lows, m, odd_low);
    }
    EACH {
        put(out->d, 0, k, d[k]);
        put(out->m, 0, k, m[k]);
    }
    out->odd |= lane_bits(odd) | lane_bits(odd_low);
}

/*
 * Rounds a block with the scales as they will be read back, and stores d and m at `at`. False if
 * that is not possible here: a scale that is infinite, or zero for a group that is not flat (the
 * reference then keeps the search's levels).
 */
INLINE int affine_levels(const float *x, const affine_blocks *found, int lane, affine a,
                         uint8_t *at_d, uint8_t *levels) {
    const uint16_t d = to_half(found->d[lane]), m = to_half(found->m[lane]);
    if (!half_is_finite(d) || !half_is_finite(m)) return 0;
    put_half(at_d, d);
    put_half(at_d + 2, m);
    for (int g = 0; g < SUPER / a.n; ++g) {
        const float scale = from_half(d) * found->scales[g * LANES + lane];
        const float low = from_half(m) * found->lows[g * LANES + lane];
        uint8_t *to = levels + g * a.n;
        if (scale == 0) {
            if (!(found->flat[g] >> lane & 1)) return 0;
            memset(to, 0, (size_t)a.n);
            continue;
        }
        for (int i = 0; i < a.n; i += 16)
            round16(x + g * a.n + i, low, scale, 0, a.top, 0, to + i);
    }
    return 1;
}

/* Eight six-bit scales and minima in twelve bytes. */
INLINE void pack_scales(const affine_blocks *found, int lane, uint8_t *out) {
    for (int g = 0; g < 4; ++g) {
        const uint8_t s = (uint8_t)found->scales[g * LANES + lane];
        const uint8_t m = (uint8_t)found->lows[g * LANES + lane];
        const uint8_t s4 = (uint8_t)found->scales[(g + 4) * LANES + lane];
        const uint8_t m4 = (uint8_t)found->lows[(g + 4) * LANES + lane];
        out[g] = (uint8_t)(s | (s4 >> 4) << 6);
        out[g + 4] = (uint8_t)(m | (m4 >> 4) << 6);
        out[g + 8] = (uint8_t)((s4 & 15) | (m4 & 15) << 4);
    }
}

INLINE uint32_t q45_k(const float *const *x, const float *const *importance, int count,
                      uint8_t *out, affine a) {
    affine_blocks found;
    const int five = a.top == 31, bytes = five ? 176 : 144;
    affine_groups(x, importance, a, 1, 1, 63, &found);
    for (int lane = 0; lane < count; ++lane, out += bytes) {
        uint8_t levels[SUPER] ALIGNED;
        if (!affine_levels(x[lane], &found, lane, a, out, levels)) {
            found.odd |= 1u << lane;
            continue;
        }
        pack_scales(&found, lane, out + 4);
        if (five) pack_bits(levels, 4, out + 16);
        pack_nibbles(levels, out + (five ? 48 : 16));
    }
    return found.odd;
}

INLINE uint32_t q2_k(const float *const *x, const float *const *importance, int count,
                     uint8_t *out, affine a) {
    affine_blocks found;
    affine_groups(x, importance, a, 0, 0, 15, &found);
    for (int lane = 0; lane < count; ++lane, out += 84) {
        uint8_t levels[SUPER] ALIGNED;
        if (!affine_levels(x[lane], &found, lane, a, out + 80, levels)) {
            found.odd |= 1u << lane;
            continue;
        }
        for (int g = 0; g < 16; ++g)
            out[g] = (uint8_t)((uint8_t)found.scales[g * LANES + lane] |
                               (uint8_t)found.lows[g * LANES + lane] << 4);
        pack_pairs(levels, 0, out + 16);
    }
    return found.odd;
}

#define AFFINE_KERNEL(name, body, n, top, plain_from, plain_steps, plain_absolute)                 \
    static uint32_t name(const float *const *x, const float *const *importance, int count,         \
                         uint8_t *out) {                                                           \
        (void)importance;                                                                          \
        return body(x, NULL, count, out,                                                           \
                    (affine){n, top, plain_steps, plain_from, 0.1f, plain_absolute});              \
    }                                                                                              \
    static uint32_t name##_weighted(const float *const *x, const float *const *importance,         \
                                    int count, uint8_t *out) {                                     \
        return body(x, importance, count, out, (affine){n, top, 37, -0.9f, 0.05f, 0});             \
    }

AFFINE_KERNEL(group_q4_k, q45_k, 32, 15, -1.0f, 21, 0)
AFFINE_KERNEL(group_q5_k, q45_k, 32, 31, -0.5f, 16, 0)
AFFINE_KERNEL(group_q2_k, q2_k, 16, 3, -0.5f, 16, 1)
