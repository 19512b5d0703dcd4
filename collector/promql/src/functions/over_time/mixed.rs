//! Functions over ranges that hold native histograms, alone or among floats.

use super::RangeCall;
use crate::annotations::Annotations;
use crate::error::QueryError;
use crate::eval::column::Column;
use crate::storage::SeriesColumns;
use std::ops::Range;

pub(super) fn evaluate(
    _call: &RangeCall,
    _series: &SeriesColumns,
    _bounds: &[Range<usize>],
    _annotations: &mut Annotations,
) -> Result<Column, QueryError> {
    Err(QueryError::execution("native histograms are not supported here yet"))
}
