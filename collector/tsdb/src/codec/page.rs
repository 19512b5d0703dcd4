//! One page of a column, decoded: values of a series or timestamps, narrow enough to keep many in memory.
//!
//! Whole numbers and decimals are kept as offsets from the least of them, in as few bytes as the largest
//! needs, so a page of a counter takes two bytes a value, any row is found without decoding the others, and
//! runs of rows become floats a few at a time.

use super::{INTEGER_MAX, from_scaled};
use std::ops::Range;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) enum Page {
    /// Whole numbers of `1/scale`.
    Integers { least: i64, offsets: Offsets, scale: f64 },
    /// Doubles as they are.
    Floats(Box<[f64]>),
}

/// Distances from the least number.
#[derive(Debug)]
pub(crate) enum Offsets {
    Narrow(Box<[u8]>),
    Short(Box<[u16]>),
    /// Never negative, so that they are as good as unsigned.
    Wide(Box<[i32]>),
    /// The numbers themselves: they are too far apart, or too large to be added as floats.
    Whole(Box<[i64]>),
}

impl Page {
    /// Keeps whole numbers of `1/scale`.
    pub(crate) fn of_integers(numbers: &[i64], scale: f64) -> Page {
        let least = numbers.iter().copied().min().unwrap_or(0);
        let most = numbers.iter().copied().max().unwrap_or(0);
        let largest = least.unsigned_abs().max(most.unsigned_abs());
        // Below this, sums of a least number and an offset are exact as floats.
        let spread = if largest <= INTEGER_MAX as u64 { most.abs_diff(least) } else { u64::MAX };
        let offsets = || numbers.iter().map(|number| number.abs_diff(least));
        let offsets = if u8::try_from(spread).is_ok() {
            Offsets::Narrow(offsets().map(|offset| offset as u8).collect())
        } else if u16::try_from(spread).is_ok() {
            Offsets::Short(offsets().map(|offset| offset as u16).collect())
        } else if i32::try_from(spread).is_ok() {
            Offsets::Wide(offsets().map(|offset| offset as i32).collect())
        } else {
            Offsets::Whole(numbers.into())
        };
        Page::Integers { least, offsets, scale }
    }

    /// Keeps doubles.
    pub(crate) fn of_floats(values: &[f64]) -> Page {
        Page::Floats(values.into())
    }

    /// Rows of the page.
    #[cfg(test)]
    pub(crate) fn rows(&self) -> usize {
        match self {
            Page::Integers { offsets: Offsets::Narrow(offsets), .. } => offsets.len(),
            Page::Integers { offsets: Offsets::Short(offsets), .. } => offsets.len(),
            Page::Integers { offsets: Offsets::Wide(offsets), .. } => offsets.len(),
            Page::Integers { offsets: Offsets::Whole(numbers), .. } => numbers.len(),
            Page::Floats(values) => values.len(),
        }
    }

    /// Bytes in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        let values = match self {
            Page::Integers { offsets: Offsets::Narrow(offsets), .. } => offsets.len(),
            Page::Integers { offsets: Offsets::Short(offsets), .. } => offsets.len() * 2,
            Page::Integers { offsets: Offsets::Wide(offsets), .. } => offsets.len() * 4,
            Page::Integers { offsets: Offsets::Whole(numbers), .. } => numbers.len() * 8,
            Page::Floats(values) => values.len() * 8,
        };
        values + size_of::<Page>()
    }

    /// Appends the values of some rows; rows that are not there are left out.
    pub(crate) fn append_values(&self, rows: Range<usize>, out: &mut Vec<f64>) {
        match self {
            Page::Integers { least, offsets, scale } => {
                let (least, scale) = (*least, *scale);
                let start = least as f64;
                match offsets {
                    Offsets::Narrow(offsets) => {
                        extend(out, offsets, rows, scale, |offset| start + f64::from(offset));
                    }
                    Offsets::Short(offsets) => {
                        extend(out, offsets, rows, scale, |offset| start + f64::from(offset));
                    }
                    Offsets::Wide(offsets) => {
                        extend(out, offsets, rows, scale, |offset| start + f64::from(offset));
                    }
                    Offsets::Whole(numbers) => {
                        let numbers = numbers.get(rows).unwrap_or_default();
                        out.extend(numbers.iter().map(|&number| from_scaled(number, scale)));
                    }
                }
            }
            Page::Floats(values) => out.extend_from_slice(values.get(rows).unwrap_or_default()),
        }
    }

    /// Appends whole numbers; none if the page has floats.
    pub(crate) fn append_integers(&self, out: &mut Vec<i64>) {
        let Page::Integers { least, offsets, .. } = self else { return };
        match offsets {
            Offsets::Narrow(offsets) => out.extend(offsets.iter().map(|&offset| least + i64::from(offset))),
            Offsets::Short(offsets) => out.extend(offsets.iter().map(|&offset| least + i64::from(offset))),
            Offsets::Wide(offsets) => out.extend(offsets.iter().map(|&offset| least + i64::from(offset))),
            Offsets::Whole(numbers) => out.extend_from_slice(numbers),
        }
    }
}

/// Appends rows as floats. Both forms of the loop are free of branches.
#[inline]
fn extend<T: Copy>(
    out: &mut Vec<f64>,
    offsets: &[T],
    rows: Range<usize>,
    scale: f64,
    number: impl Fn(T) -> f64,
) {
    let offsets = offsets.get(rows).unwrap_or_default();
    if scale == 1.0 {
        out.extend(offsets.iter().map(|&offset| number(offset)));
    } else {
        out.extend(offsets.iter().map(|&offset| number(offset) / scale));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::SCALES;
    use proptest::prelude::*;

    fn numbers() -> impl Strategy<Value = Vec<i64>> {
        let magnitude = INTEGER_MAX as i64;
        let around = |spread: i64| {
            (-magnitude..magnitude - spread, prop::collection::vec(0..=spread, 1..40))
                .prop_map(|(least, offsets)| offsets.into_iter().map(|offset| least + offset).collect())
        };
        prop_oneof![
            around(200),
            around(60_000),
            around(2_000_000_000),
            around(1 << 50),
            prop::collection::vec(any::<i64>(), 1..40),
        ]
    }

    proptest! {
        #[test]
        fn a_page_gives_back_any_rows_bit_for_bit(
            numbers in numbers(), scale in prop::sample::select(SCALES.to_vec()),
            from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(),
        ) {
            let page = Page::of_integers(&numbers, scale);
            let (from, to) = (from.index(numbers.len()), to.index(numbers.len()));
            let rows = from.min(to)..from.max(to) + 1;
            let mut values = Vec::new();
            page.append_values(rows.clone(), &mut values);
            let want: Vec<u64> = numbers[rows].iter().map(|&n| from_scaled(n, scale).to_bits()).collect();
            prop_assert_eq!(values.iter().map(|value| value.to_bits()).collect::<Vec<_>>(), want);
            let mut back = Vec::new();
            page.append_integers(&mut back);
            prop_assert_eq!(page.rows(), back.len());
            prop_assert_eq!(back, numbers);
        }
    }

    #[test]
    fn a_page_takes_as_few_bytes_as_its_numbers_need() {
        let bytes = |numbers: &[i64]| Page::of_integers(numbers, 1.0).bytes() - size_of::<Page>();
        assert_eq!(bytes(&[1 << 40, (1 << 40) + 255]), 2);
        assert_eq!(bytes(&[0, 256]), 4);
        assert_eq!(bytes(&[0, 1 << 20]), 8);
        assert_eq!(bytes(&[0, 1 << 40]), 16);
        assert_eq!(Page::of_floats(&[0.5]).bytes() - size_of::<Page>(), 8);
    }
}
