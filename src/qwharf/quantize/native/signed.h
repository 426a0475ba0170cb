/* Q6_K, Q3_K: every group of sixteen weights has a signed scale. */

/* Rounds one group of 16; false as in affine_levels. */
INLINE int signed_levels(const float *x, float scale, int all_zero, int top, uint8_t *levels) {
    if (scale != 0)
        round16(x, 0, scale, -top, top - 1, top, levels);
    else if (all_zero)
        memset(levels, 0, 16);
    else
        return 0;
    return 1;
}

/* The largest of 16 scales in size, with its sign. */
INLINE float dominant(const float *scales, int lane) {
    float most = 0, found = 0;
    for (int g = 0; g < 16; ++g) {
        const float s = scales[g * LANES + lane], size = size_of(s);
        if (size > most) {
            most = size;
            found = s;
        }
    }
    return found;
}

INLINE uint32_t q6_k(const float *const *rows, const float *const *importance, int count,
                     uint8_t *out) {
    float x[16 * LANES] ALIGNED, w[16 * LANES] ALIGNED, wx[16 * LANES] ALIGNED;
    float scales[16 * LANES];
    uint32_t zero[16], odd = 0;
    for (int g = 0; g < 16; ++g) {
        symmetric_fit fit;
        gather(rows, 16 * g, 16, x);
        if (importance) gather(importance, 16 * g, 16, w);
        for (int i = 0; i < 16; ++i) {
            EACH {
                const V xi = at(x, i, k);
                if (!importance) put(w, i, k, xi * xi);
                put(wx, i, k, at(w, i, k) * xi);
            }
        }
        fit_symmetric(x, w, wx, 16, 32, &fit);
        EACH put(scales, g, k, fit.scale[k]);
        zero[g] = lane_bits(fit.zero);
        odd |= lane_bits(fit.odd);
    }
    for (int lane = 0; lane < count; ++lane, out += 210) {
        uint8_t levels[SUPER] ALIGNED;
        const float most = dominant(scales, lane);
        if (size_of(most) < TINY) {
            memset(out, 0, 210);
            continue;
        }
        const float factor = -128.0f / most;
        const uint16_t d = to_half(1 / factor);
        if (!half_is_finite(d) || odd >> lane & 1) {
            odd |= 1u << lane;
            continue;
        }
        put_half(out + 208, d);
        for (int g = 0; g < 16; ++g) {
            int s = rounded(factor * scales[g * LANES + lane]);
            if (s > 127) s = 127;
            out[192 + g] = (uint8_t)s;
            if (!signed_levels(rows[lane] + 16 * g, from_half(d) * (float)s, zero[g] >> lane & 1,
                               32, levels + 16 * g))
                odd |= 1u << lane;
        }
        for (int j = 0; j < 2; ++j) {
            const uint8_t *l = levels + 128 * j;
            for (int i = 0; i < 64; ++i)
                out[64 * j + i] = (uint8_t)((l[i] & 15) | (l[i + 64] & 15) << 4);
        }
        pack_pairs(levels, 4, out + 128);
    }
    return odd;
}

static uint32_t group_q6_k(const float *const *x, const float *const *importance, int count,
                           uint8_t *out) {
    (void)importance;
    return q6_k(x, NULL, count, out);
}

static uint32_t group_q6_k_weighted(const float *const *x, const float *const *importance,
                                    int count, uint8_t *out) {
    return q6_k(x, importance, count, out);
}

/* Sixteen six-bit scales (0 ... 63) in twelve bytes, the weights' levels, and d. */
INLINE int finish_q3_k(const float *x, const int *scales, uint16_t d, const uint32_t *zero,
                       int lane, uint8_t *out) {
    uint8_t levels[SUPER] ALIGNED;
    if (!half_is_finite(d)) return 0;
    memset(out + 96, 0, 12);
    for (int g = 0; g < 16; ++g) {
        out[96 + g % 8] = (uint8_t)(out[96 + g % 8] | (scales[g] & 15) << (g < 8 ? 0 : 4));
        out[104 + g % 4] = (uint8_t)(out[104 + g % 4] | (scales[g] >> 4) << 2 * (g / 4));
        if (!signed_levels(x + 16 * g, from_half(d) * (float)(scales[g] - 32),
                           zero[g] >> lane & 1, 4, levels + 16 * g))
            return 0;
    }
    pack_bits(levels, 2, out);
    pack_pairs(levels, 0, out + 32);
    put_half(out + 108, d);
    return 1;
}

static uint32_t group_q3_k(const float *const *rows, const float *const *importance, int count,
                           uint8_t *out) {
    float x[16 * LANES] ALIGNED, scales[16 * LANES];
    uint32_t zero[16], odd = 0;
    (void)importance;
    for (int g = 0; g < 16; ++g) {
        symmetric_fit fit;
        gather(rows, 16 * g, 16, x);
        fit_by_moves(x, 16, 4, &fit);
        EACH put(scales, g, k, fit.scale[k]);
        zero[g] = lane_bits(fit.zero);
        odd |= lane_bits(fit.odd);
    }
    for (int lane = 0; lane < count; ++lane, out += 110) {
        const float most = dominant(scales, lane), factor = -32.0f / most;
        int small[16] = {0};
        if (odd >> lane & 1) continue;
        if (most != 0) {
            if (!usable(factor)) {
                odd |= 1u << lane;
                continue;
            }
            for (int g = 0; g < 16; ++g) {
                const int s = rounded(factor * scales[g * LANES + lane]);
                small[g] = (s > 31 ? 31 : s < -32 ? -32 : s) + 32;
            }
        }
        if (!finish_q3_k(rows[lane], small, to_half(most != 0 ? 1 / factor : 0), zero, lane, out))
            odd |= 1u << lane;
    }
    return odd;
}

static uint32_t group_q3_k_weighted(const float *const *rows, const float *const *importance,
                                    int count, uint8_t *out) {
    float x[SUPER * LANES] ALIGNED, w[16 * LANES] ALIGNED, wx[16 * LANES] ALIGNED;
    float scales[16 * LANES], weights[16 * LANES], d[LANES], factors[LANES];
    uint32_t zero[16], odd = 0;
    symmetric_fit fit;
    V power[VECTORS];
    gather(rows, 0, SUPER, x);
    sum_of_squares(x, SUPER, power);
    EACH power[k] = v_set(2) * power[k] / v_set(SUPER);
    for (int g = 0; g < 16; ++g) {
        const float *xg = x + 16 * g * LANES;
        V sum[VECTORS];
        gather(importance, 16 * g, 16, w);
        error_weights(xg, w, 16, power, w);
        EACH sum[k] = v_set(0);
        for (int i = 0; i < 16; ++i) {
            EACH {
                put(wx, i, k, at(w, i, k) * at(xg, i, k));
                sum[k] = sum[k] + at(w, i, k);
            }
        }
        fit_symmetric(xg, w, wx, 16, 4, &fit);
        EACH {
            put(scales, g, k, fit.scale[k]);
            put(weights, g, k, sum[k]);
        }
        zero[g] = lane_bits(fit.zero);
        odd |= lane_bits(fit.odd);
    }
    for (int g = 0; g < 16; ++g) {
        EACH put(wx, g, k, at(weights, g, k) * at(scales, g, k));
    }
    fit_symmetric(scales, weights, wx, 16, 32, &fit);
    EACH {
        put(d, 0, k, fit.scale[k]);
        put(factors, 0, k, fit.factor[k]);
    }
    odd |= lane_bits(fit.odd);
    const uint32_t none = lane_bits(fit.zero);
    for (int lane = 0; lane < count; ++lane, out += 110) {
        int small[16] = {0};
        if (odd >> lane & 1) continue;
        for (int g = 0; g < 16 && !(none >> lane & 1); ++g) {
            const int s = rounded(factors[lane] * scales[g * LANES + lane]);
            small[g] = (s > 31 ? 31 : s < -32 ? -32 : s) + 32;
        }
        if (!finish_q3_k(rows[lane], small, to_half(d[lane]), zero, lane, out))
            odd |= 1u << lane;
    }
    return odd;
}
