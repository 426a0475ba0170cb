/* IQ4_XS, IQ4_NL: levels are places in a table of values. */

INLINE void iq4_weights(const float *x, const float *const *importance, int first,
                        const V *power, float *w) {
    if (importance) {
        gather(importance, first, 32, w);
        error_weights(x, w, 32, power, w);
    } else {
        for (int i = 0; i < 32; ++i) {
            EACH put(w, i, k, at(x, i, k) * at(x, i, k));
        }
    }
}

/* Weights i and i + 16 of each 32 share a byte. */
INLINE void iq4_pack32(const float *x, float factor, uint8_t *out) {
    uint8_t levels[32] ALIGNED;
    iq4_index16(x, factor, levels);
    iq4_index16(x + 16, factor, levels + 16);
    for (int i = 0; i < 16; ++i) out[i] = (uint8_t)(levels[i] | levels[i + 16] << 4);
}

INLINE uint32_t iq4_xs(const float *const *rows, const float *const *importance, int count,
                       uint8_t *out) {
    float x[SUPER * LANES] ALIGNED, w[32 * LANES] ALIGNED, scales[8 * LANES], d[LANES];
    V most[VECTORS], signed_most[VECTORS], power[VECTORS];
    uint32_t odd = 0;
    gather(rows, 0, SUPER, x);
    if (importance) {
        sum_of_squares(x, SUPER, power);
        EACH power[k] = power[k] * v_set(2.0f / SUPER);
    }
    EACH most[k] = signed_most[k] = v_set(0);
    for (int g = 0; g < 8; ++g) {
        symmetric_fit fit;
        iq4_weights(x + 32 * g * LANES, importance, 32 * g, power, w);
        fit_iq4(x + 32 * g * LANES, w, 32, &fit);
        EACH {
            const V size = v_abs(fit.scale[k]);
            const M more = v_gt(size, most[k]);
            most[k] = v_pick(more, size, most[k]);
            signed_most[k] = v_pick(more, fit.scale[k], signed_most[k]);
            put(scales, g, k, fit.scale[k]);
        }
        odd |= lane_bits(fit.odd);
    }
    EACH put(d, 0, k, v_neg(signed_most[k]) / v_set(32));
    for (int lane = 0; lane < count; ++lane, out += 136) {
        const float factor = d[lane] != 0 ? 1 / d[lane] : 0;
        const uint16_t half = to_half(d[lane]);
        uint16_t high = 0;
        if (odd >> lane & 1) continue;
        if (!half_is_finite(half) || !usable(factor)) {
            odd |= 1u << lane;
            continue;
        }
        put_half(out, half);
        memset(out + 4, 0, 4);
        for (int g = 0; g < 8; ++g) {
            int s = rounded(factor * scales[g * LANES + lane]);
            s = s > 31 ? 31 : s < -32 ? -32 : s;
            const float scale = d[lane] * (float)s, inverse = scale != 0 ? 1 / scale : 0;
            if (!usable(inverse)) odd |= 1u << lane;
            iq4_pack32(rows[lane] + 32 * g, inverse, out + 8 + 16 * g);
            s += 32;
            out[4 + g / 2] = (uint8_t)(out[4 + g / 2] | (s & 15) << 4 * (g % 2));
            high = (uint16_t)(high | (s >> 4) << 2 * g);
        }
        put_half(out + 2, high);
    }
    return odd;
}

static uint32_t group_iq4_xs(const float *const *x, const float *const *importance, int count,
                             uint8_t *out) {
    (void)importance;
    return iq4_xs(x, NULL, count, out);
}

static uint32_t group_iq4_xs_weighted(const float *const *x, const float *const *importance,
                                      int count, uint8_t *out) {
    return iq4_xs(x, importance, count, out);
}

INLINE uint32_t iq4_nl(const float *const *rows, const float *const *importance, int count,
                       uint8_t *out) {
    float x[32 * LANES] ALIGNED, w[32 * LANES] ALIGNED, scales[LANES];
    V power[VECTORS];
    symmetric_fit fit;
    gather(rows, 0, 32, x);
    if (importance) {
        sum_of_squares(x, 32, power);
        EACH power[k] = power[k] * v_set(2.0f / 32);
    }
    iq4_weights(x, importance, 0, power, w);
    fit_iq4(x, w, 32, &fit);
    EACH put(scales, 0, k, fit.scale[k]);
    uint32_t odd = lane_bits(fit.odd);
    for (int lane = 0; lane < count; ++lane, out += 18) {
        const float factor = scales[lane] != 0 ? 1 / scales[lane] : 0;
        const uint16_t half = to_half(scales[lane]);
        if (odd >> lane & 1) continue;
        if (!half_is_finite(half) || !usable(factor)) {
            odd |= 1u << lane;
            continue;
        }
        put_half(out, half);
        iq4_pack32(rows[lane], factor, out + 2);
    }
    return odd;
}

static uint32_t group_iq4_nl(const float *const *x, const float *const *importance, int count,
                             uint8_t *out) {
    (void)importance;
    return iq4_nl(x, NULL, count, out);
}

static uint32_t group_iq4_nl_weighted(const float *const *x, const float *const *importance,
                                      int count, uint8_t *out) {
    return iq4_nl(x, importance, count, out);
}
