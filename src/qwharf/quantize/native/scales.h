/* How a block's scales (and minima) become small integers; one block per lane. */

/*
 * Non-negative numbers to 0 ... top with weights: nine factors are tried, then up to five rounds
 * of single moves, as in fit_by_moves.
 */
INLINE void fit_positive(const float *x, const float *w, int n, int top, float *levels, V *scale,
                         M *odd) {
    V most[VECTORS], factor[VECTORS], best[VECTORS], slx[VECTORS], sll[VECTORS];
    M none[VECTORS];
    const V zero = v_set(0), limit = v_set((float)top);
    EACH {
        most[k] = best[k] = slx[k] = sll[k] = zero;
        odd[k] = v_lt(zero, zero);
    }
    for (int i = 0; i < n; ++i) {
        EACH {
            most[k] = v_max(most[k], at(x, i, k));
            odd[k] = m_or(odd[k], v_lt(at(x, i, k), zero)); /* would wrap around */
        }
    }
    V inverse[VECTORS];
    EACH {
        none[k] = v_lt(most[k], v_set(TINY));
        factor[k] = limit / most[k];
        inverse[k] = v_set(1) / factor[k];
    }
    for (int i = 0; i < n; ++i) {
        EACH {
            const V xi = at(x, i, k), off = xi - inverse[k] * v_rint(factor[k] * xi);
            best[k] = best[k] + at(w, i, k) * off * off;
        }
    }
    for (int s = -4; s <= 4; ++s) {
        if (s == 0) continue;
        const float range = 0.1f * s + top;
        V tried[VECTORS], e[VECTORS];
        EACH {
            tried[k] = v_set(range) / most[k];
            inverse[k] = v_set(1) / tried[k];
            e[k] = zero;
        }
        for (int i = 0; i < n; ++i) {
            EACH {
                const V xi = at(x, i, k), l = v_min(v_rint(tried[k] * xi), limit);
                const V off = xi - inverse[k] * l;
                e[k] = e[k] + at(w, i, k) * off * off;
            }
        }
        EACH {
            const M better = v_lt(e[k], best[k]);
            best[k] = v_pick(better, e[k], best[k]);
            factor[k] = v_pick(better, tried[k], factor[k]);
        }
    }
    for (int i = 0; i < n; ++i) {
        EACH {
            const V xi = at(x, i, k), wi = at(w, i, k);
            const V l = v_min(v_rint(factor[k] * xi), limit);
            put(levels, i, k, l);
            slx[k] = slx[k] + wi * xi * l;
            sll[k] = sll[k] + wi * l * l;
        }
    }
    for (int round = 0; round < 5; ++round) {
        uint32_t moved = 0;
        for (int i = 0; i < n; ++i) {
            EACH {
                const V xi = at(x, i, k), wi = at(w, i, k), l = at(levels, i, k);
                V others_x = slx[k] - wi * xi * l, others_l = sll[k] - wi * l * l;
                M move = m_and(v_gt(others_x, zero), v_gt(others_l, zero));
                const V to = v_min(v_rint_wrapped(xi * others_l / others_x), limit);
                move = m_and(move, v_ne(to, l));
                others_x = others_x + wi * xi * to;
                others_l = others_l + wi * to * to;
                move = m_and(move, v_gt(others_x * others_x * sll[k],
                                        slx[k] * slx[k] * others_l));
                move = m_and(move, m_not(none[k]));
                odd[k] = m_or(odd[k], m_and(move, v_lt(to, zero)));
                put(levels, i, k, v_pick(move, to, l));
                slx[k] = v_pick(move, others_x, slx[k]);
                sll[k] = v_pick(move, others_l, sll[k]);
                moved |= m_bits(move);
            }
        }
        if (!moved) break;
    }
    for (int i = 0; i < n; ++i) {
        EACH put(levels, i, k, v_pick(none[k], zero, at(levels, i, k)));
    }
    EACH {
        scale[k] = v_pick(v_gt(sll[k], zero), slx[k] / sll[k], zero);
        scale[k] = v_pick(none[k], zero, scale[k]);
        odd[k] = m_or(odd[k], not_finite(scale[k]));
    }
}

/* Non-negative numbers to 0 ... top by the largest of them, which also gives the scale. */
INLINE void spread_positive(const float *x, int n, int top, float *levels, V *scale, M *odd) {
    V most[VECTORS];
    EACH most[k] = v_set(0);
    for (int i = 0; i < n; ++i) {
        EACH most[k] = v_max(at(x, i, k), most[k]);
    }
    V factor[VECTORS];
    EACH {
        const V limit = v_set((float)top);
        factor[k] = v_pick(v_gt(most[k], v_set(0)), limit / most[k], v_set(0));
        scale[k] = most[k] / limit;
        odd[k] = not_finite(factor[k]);
    }
    for (int i = 0; i < n; ++i) {
        EACH put(levels, i, k, v_rint(factor[k] * at(x, i, k)));
    }
}

/* The squares of a block's weights, summed in order. */
INLINE void sum_of_squares(const float *x, int n, V *sum) {
    EACH sum[k] = v_set(0);
    for (int i = 0; i < n; ++i) {
        EACH sum[k] = sum[k] + at(x, i, k) * at(x, i, k);
    }
}

/* importance * sqrt(power + x^2), the weight of an error. */
INLINE void error_weights(const float *x, const float *importance, int n, const V *power,
                          float *w) {
    for (int i = 0; i < n; ++i) {
        EACH put(w, i, k,
                 at(importance, i, k) * v_sqrt(power[k] + at(x, i, k) * at(x, i, k)));
    }
}
