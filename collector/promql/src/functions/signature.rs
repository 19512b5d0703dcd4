//! Signatures, and the table of all functions.

use super::math;
use crate::ast::ValueType;

const SCALAR: ValueType = ValueType::Scalar;
const VECTOR: ValueType = ValueType::Vector;
const MATRIX: ValueType = ValueType::Matrix;
const STRING: ValueType = ValueType::String;

/// A function of the language.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// Types of the arguments; the last stands for all further ones.
    pub args: &'static [ValueType],
    /// How many of the arguments may be missing or added after the last but one; -1 for any number.
    pub variadic: i32,
    /// Type of the result.
    pub returns: ValueType,
    pub(crate) implementation: Implementation,
}

/// How a function is evaluated.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Implementation {
    /// Each float by itself.
    Float(fn(f64) -> f64),
    /// A window of samples to one value.
    OverTime(OverTime),
    Date(DatePart),
    HistogramStat(HistogramStat),
    Absent,
    Clamp,
    ClampMax,
    ClampMin,
    Round,
    HistogramFraction,
    HistogramQuantile,
    HistogramQuantiles,
    Info,
    LabelReplace,
    LabelJoin,
    Scalar,
    Vector,
    Time,
    Pi,
    QueryStart,
    QueryEnd,
    QueryStep,
    QueryRange,
    MinOf,
    MaxOf,
    Timestamp,
    StartTimestamp,
    Sort {
        descending: bool,
    },
    SortByLabel {
        descending: bool,
    },
}

/// Functions of a range vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OverTime {
    Absent,
    Avg,
    Changes,
    Count,
    Delta,
    Deriv,
    DoubleExponentialSmoothing,
    First,
    Idelta,
    Increase,
    Irate,
    Last,
    Mad,
    Max,
    Min,
    PredictLinear,
    Present,
    Quantile,
    Rate,
    Resets,
    Stddev,
    Stdvar,
    Sum,
    TsOfFirst,
    TsOfLast,
    TsOfMax,
    TsOfMin,
}

impl OverTime {
    /// Whether the result is a sample of the input and keeps the metric's name.
    pub(crate) fn keeps_name(self) -> bool {
        matches!(self, OverTime::First | OverTime::Last)
    }

    /// Whether start timestamps tell it of resets, where they are used.
    pub(crate) fn looks_at_starts(self) -> bool {
        matches!(self, OverTime::Increase | OverTime::Irate | OverTime::Rate | OverTime::Resets)
    }
}

/// A part of a date in UTC.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DatePart {
    DaysInMonth,
    DayOfMonth,
    DayOfWeek,
    DayOfYear,
    Hour,
    Minute,
    Month,
    Year,
}

/// A number that a native histogram has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum HistogramStat {
    Avg,
    Count,
    Sum,
    Stddev,
    Stdvar,
}

/// Finds a function by name.
pub(crate) fn find(name: &str) -> Option<&'static Function> {
    let index = FUNCTIONS.binary_search_by(|function| function.name.cmp(name)).ok()?;
    FUNCTIONS.get(index)
}

/// The names of all functions, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|function| function.name)
}

const fn function(
    name: &'static str,
    args: &'static [ValueType],
    variadic: i32,
    returns: ValueType,
    implementation: Implementation,
) -> Function {
    Function { name, args, variadic, returns, implementation }
}

/// All functions, sorted by name.
static FUNCTIONS: &[Function] = &[
    function("abs", &[VECTOR], 0, VECTOR, Implementation::Float(math::abs)),
    function("absent", &[VECTOR], 0, VECTOR, Implementation::Absent),
    function("absent_over_time", &[MATRIX], 0, VECTOR, Implementation::OverTime(OverTime::Absent)),
    function("acos", &[VECTOR], 0, VECTOR, Implementation::Float(math::acos)),
    function("acosh", &[VECTOR], 0, VECTOR, Implementation::Float(math::acosh)),
    function("asin", &[VECTOR], 0, VECTOR, Implementation::Float(math::asin)),
    function("asinh", &[VECTOR], 0, VECTOR, Implementation::Float(math::asinh)),
    function("atan", &[VECTOR], 0, VECTOR, Implementation::Float(math::atan)),
    function("atanh", &[VECTOR], 0, VECTOR, Implementation::Float(math::atanh)),
    function("avg_over_time", &[MATRIX], 0, VECTOR, Implementation::OverTime(OverTime::Avg)),
    function("ceil", &[VECTOR], 0, VECTOR, Implementation::Float(math::ceil)),
    function("changes", &[MATRIX], 0, VECTOR, Implementation::OverTime(OverTime::Changes)),
    function("clamp", &[VECTOR, SCALAR, SCALAR], 0, VECTOR, Implementation::Clamp),
    function("clamp_max", &[VECTOR, SCALAR], 0, VECTOR, Implementation::ClampMax),
    function("clamp_min", &[VECTOR, SCALAR], 0, VECTOR, Implementation::ClampMin),
    function("cos", &[VECTOR], 0, VECTOR, Implementation::Float(math::cos)),
    function("cosh", &[VECTOR], 0, VECTOR, Implementation::Float(math::cosh)),
    function("count_over_time", &[MATRIX], 0, VECTOR, Implementation::OverTime(OverTime::Count)),
    function("day_of_month", &[VECTOR], 1, VECTOR, Implementation::Date(DatePart::DayOfMonth)),
    function("day_of_week", &[VECTOR], 1, VECTOR, Implementation::Date(DatePart::DayOfWeek)),
    function("day_of_year", &[VECTOR], 1, VECTOR, Implementation::Date(DatePart::DayOfYear)),
    function("days_in_month", &[VECTOR], 1, VECTOR, Implementation::Date(DatePart::DaysInMonth)),
    function("deg", &[VECTOR], 0, VECTOR, Implementation::Float(math::deg)),
    function("delta", &[MATRIX], 0, VECTOR, Implementation::OverTime(OverTime::Delta)),
    function("deriv", &[MATRIX], 0, VECTOR, Implementation::OverTime(OverTime::Deriv)),
    function(
        "double_exponential_smoothing",
        &[MATRIX, SCALAR, SCALAR],
        0,
        VECTOR,
        Implementation::OverTime(OverTime::DoubleExponentialSmoothing),
    ),
    function("end", &[], 0, SCALAR, Implementation::QueryEnd),
    function("exp", &[VECTOR], 0, VECTOR, Implementation::Float(math::exp)),
    function("first_over_time", &[MATRIX], 0, VECTOR, Implementation::OverTime(OverTime::First)),
    function("floor", &[VECTOR], 0, VECTOR, Implementation::Float(math::floor)),
    function("histogram_avg", &[VECTOR], 0, VECTOR, Implementation::HistogramStat(HistogramStat::Avg)),
    function("histogram_count", &[VECTOR], 0, VECTOR, Implementation::HistogramStat(HistogramStat::Count)),
    function("histogram_fraction", &[SCALAR, SCALAR, VECTOR], 0, VECTOR, Implementation::HistogramFraction),
    function("histogram_quantile", &[SCALAR, VECTOR], 0, VECTOR, Implementation::HistogramQuantile),
    function(
        "histogram_quantiles",
        &[VECTOR, STRING, SCALAR, SCALAR],
        9,
        VECTOR,
        Implementation::HistogramQuantiles,
    ),
    function("histogram_stddev", &[VECTOR], 0, VECTOR, Implementation::HistogramStat(HistogramStat::Stddev)),
    function("histogram_stdvar", &[VECTOR], 0, VECTOR, Implementation::HistogramStat(HistogramStat::Stdvar)),
    function("histogram_sum", &[VECTOR], 0, VECTOR, Implementation::HistogramStat(HistogramStat::Sum)),
    function("hour", &[VECTOR], 1, VECTOR, Implementation::Date(DatePart::Hour)),
    function("idelta", &[MATRIX], 0, VECTOR, Implementation::OverTime(OverTime::Idelta)),
    function("increase", &[MATRIX], 0, VECTOR, Implementation::OverTime(OverTime::Increase)),
    function("info", &[VECTOR, VECTOR], 1, VECTOR, Implementation::Info),
    function("irate", &[MATRIX], 0, VECTOR, Implementation::OverTime(OverTime::Irate)),
    function("label_join", &[VECTOR, STRING, STRING, STRING], -1, VECTOR, Implementation::LabelJoin),
    function(
        "label_replace",
        &[VECTOR, STRING, STRING, STRING, STRING],
        0,
        VECTOR,
        Implementation::LabelReplace,
    ),
    function("last_over_time", &[MATRIX], 0, VECTOR, Implementation::OverTime(OverTime::Last)),
    function("ln", &[VECTOR], 0, VECTOR, Implementation::Float(math::ln)),
    function("log10", &[VECTOR], 0, VECTOR, Implementation::Float(math::log10)),
    function("log2", &[VECTOR], 0, VECTOR, Implementation::Float(math::log2)),
    function("mad_over_time", &[MATRIX], 0, VECTOR, Implementation::OverTime(OverTime::Mad)),
    function("max_of", &[SCALAR, SCALAR], 0, SCALAR, Implementation::MaxOf),
    function("max_over_time", &[MATRIX], 0, VECTOR, Implementation::OverTime(OverTime::Max)),
    function("min_of", &[SCALAR, SCALAR], 0, SCALAR, Implementation::MinOf),
    function("min_over_time", &[MATRIX], 0, VECTOR, Implementation::OverTime(OverTime::Min)),
    function("minute", &[VECTOR], 1, VECTOR, Implementation::Date(DatePart::Minute)),
    function("month", &[VECTOR], 1, VECTOR, Implementation::Date(DatePart::Month)),
    function("pi", &[], 0, SCALAR, Implementation::Pi),
    function(
        "predict_linear",
        &[MATRIX, SCALAR],
        0,
        VECTOR,
        Implementation::OverTime(OverTime::PredictLinear),
    ),
    function("present_over_time", &[MATRIX], 0, VECTOR, Implementation::OverTime(OverTime::Present)),
    function(
        "quantile_over_time",
        &[SCALAR, MATRIX],
        0,
        VECTOR,
        Implementation::OverTime(OverTime::Quantile),
    ),
    function("rad", &[VECTOR], 0, VECTOR, Implementation::Float(math::rad)),
    function("range", &[], 0, SCALAR, Implementation::QueryRange),
    function("rate", &[MATRIX], 0, VECTOR, Implementation::OverTime(OverTime::Rate)),
    function("resets", &[MATRIX], 0, VECTOR, Implementation::OverTime(OverTime::Resets)),
    function("round", &[VECTOR, SCALAR], 1, VECTOR, Implementation::Round),
    function("scalar", &[VECTOR], 0, SCALAR, Implementation::Scalar),
    function("sgn", &[VECTOR], 0, VECTOR, Implementation::Float(math::sgn)),
    function("sin", &[VECTOR], 0, VECTOR, Implementation::Float(math::sin)),
    function("sinh", &[VECTOR], 0, VECTOR, Implementation::Float(math::sinh)),
    function("sort", &[VECTOR], 0, VECTOR, Implementation::Sort { descending: false }),
    function(
        "sort_by_label",
        &[VECTOR, STRING],
        -1,
        VECTOR,
        Implementation::SortByLabel { descending: false },
    ),
    function(
        "sort_by_label_desc",
        &[VECTOR, STRING],
        -1,
        VECTOR,
        Implementation::SortByLabel { descending: true },
    ),
    function("sort_desc", &[VECTOR], 0, VECTOR, Implementation::Sort { descending: true }),
    function("sqrt", &[VECTOR], 0, VECTOR, Implementation::Float(math::sqrt)),
    function("start", &[], 0, SCALAR, Implementation::QueryStart),
    function("start_timestamp", &[VECTOR], 0, VECTOR, Implementation::StartTimestamp),
    function("stddev_over_time", &[MATRIX], 0, VECTOR, Implementation::OverTime(OverTime::Stddev)),
    function("stdvar_over_time", &[MATRIX], 0, VECTOR, Implementation::OverTime(OverTime::Stdvar)),
    function("step", &[], 0, SCALAR, Implementation::QueryStep),
    function("sum_over_time", &[MATRIX], 0, VECTOR, Implementation::OverTime(OverTime::Sum)),
    function("tan", &[VECTOR], 0, VECTOR, Implementation::Float(math::tan)),
    function("tanh", &[VECTOR], 0, VECTOR, Implementation::Float(math::tanh)),
    function("time", &[], 0, SCALAR, Implementation::Time),
    function("timestamp", &[VECTOR], 0, VECTOR, Implementation::Timestamp),
    function("ts_of_first_over_time", &[MATRIX], 0, VECTOR, Implementation::OverTime(OverTime::TsOfFirst)),
    function("ts_of_last_over_time", &[MATRIX], 0, VECTOR, Implementation::OverTime(OverTime::TsOfLast)),
    function("ts_of_max_over_time", &[MATRIX], 0, VECTOR, Implementation::OverTime(OverTime::TsOfMax)),
    function("ts_of_min_over_time", &[MATRIX], 0, VECTOR, Implementation::OverTime(OverTime::TsOfMin)),
    function("vector", &[SCALAR], 0, VECTOR, Implementation::Vector),
    function("year", &[VECTOR], 1, VECTOR, Implementation::Date(DatePart::Year)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_every_function_is_found() {
        assert!(FUNCTIONS.is_sorted_by(|a, b| a.name < b.name));
        assert!(FUNCTIONS.iter().all(|function| find(function.name).is_some()));
        assert!(find("no_such_function").is_none());
    }
}
