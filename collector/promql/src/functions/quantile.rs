//! Quantiles of plain values.

/// The value below which a share of the values lies, interpolated between neighbours. Sorts the values.
pub(crate) fn quantile(share: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || share.is_nan() {
        return f64::NAN;
    }
    if share < 0.0 {
        return f64::NEG_INFINITY;
    }
    if share > 1.0 {
        return f64::INFINITY;
    }
    values.sort_unstable_by(|a, b| nan_first(*a, *b));
    let count = values.len() as f64;
    let rank = share * (count - 1.0);
    let lower = rank.floor().max(0.0);
    let upper = (lower + 1.0).min(count - 1.0);
    let weight = rank - rank.floor();
    let at = |index: f64| values.get(index as usize).copied().unwrap_or(f64::NAN);
    at(lower) * (1.0 - weight) + at(upper) * weight
}

/// Rising order with NaN before all numbers, as Prometheus' heaps have it.
pub(crate) fn nan_first(a: f64, b: f64) -> std::cmp::Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
        (false, false) => a.partial_cmp(&b).unwrap_or(std::cmp::Ordering::Equal),
    }
}

/// The remark for a share that is none, or nothing.
pub(crate) fn invalid(share: f64) -> Option<String> {
    if (0.0..=1.0).contains(&share) {
        return None;
    }
    let shown = crate::number::format_general(share);
    Some(format!("quantile value should be between 0 and 1, got {shown}"))
}
