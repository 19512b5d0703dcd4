//! Functions of one float.

macro_rules! forward {
    ($($name:ident => $method:ident),+ $(,)?) => {
        $(pub(crate) fn $name(value: f64) -> f64 {
            value.$method()
        })+
    };
}

forward! {
    abs => abs, acos => acos, acosh => acosh, asin => asin, asinh => asinh, atan => atan, atanh => atanh,
    ceil => ceil, cos => cos, cosh => cosh, exp => exp, floor => floor, ln => ln, log10 => log10,
    log2 => log2, sin => sin, sinh => sinh, sqrt => sqrt, tan => tan, tanh => tanh,
}

pub(crate) fn deg(value: f64) -> f64 {
    value * 180.0 / std::f64::consts::PI
}

pub(crate) fn rad(value: f64) -> f64 {
    value * std::f64::consts::PI / 180.0
}

pub(crate) fn sgn(value: f64) -> f64 {
    if value < 0.0 {
        -1.0
    } else if value > 0.0 {
        1.0
    } else {
        value
    }
}

/// The larger of two floats as Go's `math.Max` sees it: infinity first, then NaN, then sign of zero.
pub(crate) fn max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { b } else { a }
    } else if a > b {
        a
    } else {
        b
    }
}

/// The smaller of two floats as Go's `math.Min` sees it.
pub(crate) fn min(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY || b == f64::NEG_INFINITY {
        f64::NEG_INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { a } else { b }
    } else if a < b {
        a
    } else {
        b
    }
}

/// One more term of a sum with Neumaier's compensation, term by term as Prometheus adds them. The sum is
/// `sum + compensation`.
#[inline]
pub(crate) fn add_compensated(term: f64, sum: &mut f64, compensation: &mut f64) {
    let total = *sum + term;
    if total.is_infinite() {
        *compensation = 0.0;
    } else if sum.abs() >= term.abs() {
        *compensation += (*sum - total) + term;
    } else {
        *compensation += (term - total) + *sum;
    }
    *sum = total;
}
