//! What a histogram's bucket indexes mean.

use pharos_common::histogram::FloatHistogram;
use std::fmt;

/// Schema, width of the zero bucket and custom bounds: histograms of one layout have the same buckets under
/// the same indexes.
#[derive(Clone, Debug)]
pub struct Layout {
    pub(super) schema: i32,
    pub(super) zero_threshold: f64,
    pub(super) custom_values: Vec<f64>,
}

impl Layout {
    /// The layout of a histogram.
    pub fn of(histogram: &FloatHistogram) -> Layout {
        Layout {
            schema: histogram.schema,
            zero_threshold: histogram.zero_threshold,
            custom_values: histogram.custom_values.clone(),
        }
    }

    /// Names the layout among those of one series: FNV-1a of its text.
    pub(super) fn key(&self) -> u64 {
        self.to_string()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    /// Reads what `Display` wrote.
    pub(super) fn parse(text: &str) -> Option<Layout> {
        let mut numbers = text.split(';');
        let schema = numbers.next()?.parse().ok()?;
        let zero_threshold = numbers.next()?.parse().ok()?;
        let custom_values = numbers.map(|number| number.parse().ok()).collect::<Option<_>>()?;
        Some(Layout { schema, zero_threshold, custom_values })
    }
}

/// Bit for bit: a bound that is NaN equals itself.
impl PartialEq for Layout {
    fn eq(&self, other: &Self) -> bool {
        self.schema == other.schema
            && self.zero_threshold.to_bits() == other.zero_threshold.to_bits()
            && self.custom_values.len() == other.custom_values.len()
            && self.custom_values.iter().zip(&other.custom_values).all(|(a, b)| a.to_bits() == b.to_bits())
    }
}

/// The numbers with `;` between them, each so that it reads back to the same bits.
impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};{:?}", self.schema, self.zero_threshold)?;
        self.custom_values.iter().try_for_each(|bound| write!(f, ";{bound:?}"))
    }
}
