//! The dense codec of blocks: a column of one series, as long as the block, in pages that can be decoded
//! alone.
//!
//! A column is one `pco` chunk in wrapped mode: the chunk's meta once, then pages of [`PAGE_ROWS`] values.
//! Cheap tests choose what `pco` is fed: nothing at all for a constant, integers for whole numbers and
//! decimals (which decode faster and pack denser than the same numbers as doubles), doubles otherwise.
//! FORMAT.md shows the bytes.

use super::page::Page;
use super::{SCALES, to_scaled};
use pco::wrapped::{ChunkCompressor, FileCompressor, FileDecompressor};
use pco::{ChunkConfig, DeltaSpec, PagingSpec};
use std::sync::OnceLock;

/// Values of a page: five minutes at 1 s touch one or two pages, and `pco` still packs them well.
pub(crate) const PAGE_ROWS: usize = 1_024;

/// `pco`'s effort, 0 to 12. Beyond 6 our data shrink by less than a percent and encoding slows by half.
const LEVEL: usize = 6;

/// Part of the values that are those before them, from which on a column is encoded in two ways.
const SELDOM: f64 = 0.6;

/// How a column's numbers are fed to `pco`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// All values have these bits; there are no pages.
    Constant(u64),
    /// Whole numbers of 1, 1/100 or 1/1000 (index into `SCALES`).
    Scaled(u8),
    /// Doubles as they are.
    Float,
    /// Timestamps.
    Integer,
    /// Timestamps at equal distances; there are no pages.
    Even {
        /// The first.
        first: i64,
        /// From each to the next.
        step: i64,
    },
    /// Retention dropped the column; of timestamps, the first is still known.
    Dropped {
        /// The first.
        first: i64,
    },
}

/// A column's bytes: the chunk's meta and its pages.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    pub(crate) form: Form,
    pub(crate) meta: Vec<u8>,
    pub(crate) pages: Vec<Vec<u8>>,
}

impl Encoded {
    fn bytes(&self) -> usize {
        self.meta.len() + self.pages.iter().map(Vec::len).sum::<usize>()
    }
}

/// Rows of each page of a column of `rows` rows.
pub(crate) fn page_rows(rows: usize) -> impl Iterator<Item = usize> {
    (0..rows.div_ceil(PAGE_ROWS)).map(move |page| PAGE_ROWS.min(rows - page * PAGE_ROWS))
}

/// Encodes the values of a series.
pub(crate) fn encode_values(values: &[f64]) -> Result<Encoded, pco::errors::PcoError> {
    let first = values.first().copied().unwrap_or(0.0);
    if values.iter().all(|value| value.to_bits() == first.to_bits()) {
        return Ok(Encoded { form: Form::Constant(first.to_bits()), meta: Vec::new(), pages: Vec::new() });
    }
    let mut integers = Vec::new();
    for (index, &scale) in SCALES.iter().enumerate() {
        integers.clear();
        integers.extend(values.iter().map_while(|&value| to_scaled(value, scale)));
        if integers.len() == values.len() {
            return chunk(Form::Scaled(index as u8), &integers);
        }
    }
    chunk(Form::Float, values)
}

/// Encodes timestamps.
pub(crate) fn encode_timestamps(timestamps: &[i64]) -> Result<Encoded, pco::errors::PcoError> {
    let first = timestamps.first().copied().unwrap_or(0);
    let step = timestamps.get(1).map_or(0, |second| second.wrapping_sub(first));
    if timestamps.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step) {
        return Ok(Encoded { form: Form::Even { first, step }, meta: Vec::new(), pages: Vec::new() });
    }
    chunk(Form::Integer, timestamps)
}

fn chunk<T: pco::data_types::Number>(form: Form, numbers: &[T]) -> Result<Encoded, pco::errors::PcoError> {
    let guessed = compress(form, numbers, DeltaSpec::Auto)?;
    if !changes_seldom(numbers) {
        return Ok(guessed);
    }
    // pco tries its orders of differences on a part of the column, and there a column that changes seldom looks
    // like another: of a host's counters every tenth was several times larger than need be.
    let first_differences = compress(form, numbers, DeltaSpec::TryConsecutive(1))?;
    Ok(if first_differences.bytes() < guessed.bytes() { first_differences } else { guessed })
}

/// Whether most values are those before them, in a column that is long enough to be worth a second look.
fn changes_seldom<T: PartialEq>(numbers: &[T]) -> bool {
    let same = || numbers.windows(2).filter(|pair| pair[0] == pair[1]).count();
    numbers.len() > 2 * PAGE_ROWS && same() as f64 >= SELDOM * numbers.len() as f64
}

fn compress<T: pco::data_types::Number>(
    form: Form,
    numbers: &[T],
    differences: DeltaSpec,
) -> Result<Encoded, pco::errors::PcoError> {
    let config = ChunkConfig::default()
        .with_compression_level(LEVEL)
        .with_delta_spec(differences)
        .with_paging_spec(PagingSpec::Exact(page_rows(numbers.len()).collect()));
    let mut compressor: ChunkCompressor = FileCompressor::default().chunk_compressor(numbers, &config)?;
    let meta = compressor.write_meta(Vec::new())?;
    let pages = (0..compressor.n_per_page().len())
        .map(|page| compressor.write_page(page, Vec::new()))
        .collect::<Result<_, _>>()?;
    Ok(Encoded { form, meta, pages })
}

/// What reads chunks; it comes from the header that `pco` wants to see before any: its format version.
fn file_decompressor() -> Result<FileDecompressor, pco::errors::PcoError> {
    static KNOWN: OnceLock<FileDecompressor> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(known.clone());
    }
    let header = FileCompressor::default().write_header(Vec::new())?;
    let decompressor = FileDecompressor::new(header.as_slice())?.0;
    Ok(KNOWN.get_or_init(|| decompressor).clone())
}

/// Decodes some pages of a column: bytes and rows of each flow in, pages out. The caller has checked the bytes'
/// checksums. Forms without pages give none.
pub(crate) fn decode<'a>(
    form: Form,
    meta: &[u8],
    pages: impl Iterator<Item = (&'a [u8], usize)>,
    mut each: impl FnMut(Page),
) -> Result<(), pco::errors::PcoError> {
    let scale = match form {
        Form::Float => return decode_pages(meta, pages, |values: &[f64]| each(Page::of_floats(values)), 0.0),
        Form::Scaled(index) => SCALES.get(usize::from(index)).copied().unwrap_or(1.0),
        Form::Integer => 1.0,
        Form::Constant(_) | Form::Even { .. } | Form::Dropped { .. } => return Ok(()),
    };
    decode_pages(meta, pages, |numbers: &[i64]| each(Page::of_integers(numbers, scale)), 0)
}

fn decode_pages<'a, T: pco::data_types::Number>(
    meta: &[u8],
    pages: impl Iterator<Item = (&'a [u8], usize)>,
    mut each: impl FnMut(&[T]),
    zero: T,
) -> Result<(), pco::errors::PcoError> {
    let (mut chunk, _) = file_decompressor()?.chunk_decompressor::<T, _>(meta)?;
    let mut buffer = [zero; PAGE_ROWS];
    for (page, rows) in pages {
        let rows = rows.min(PAGE_ROWS);
        let mut decompressor = chunk.page_decompressor(page, rows)?;
        decompressor.read(&mut buffer[..rows])?;
        each(&buffer[..rows]);
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use pharos_common::sample::STALE_NAN;
    use proptest::prelude::*;

    /// Columns as sensors, counters and enemies make them.
    pub(crate) fn columns(rows: usize) -> impl Strategy<Value = Vec<f64>> {
        let anything = prop::collection::vec(any::<u64>().prop_map(f64::from_bits), 0..rows);
        let special = prop::sample::select(vec![0.0, -0.0, f64::NAN, STALE_NAN, f64::INFINITY, 1e300, 0.1]);
        let mixed = prop::collection::vec(special, 0..rows);
        let counter =
            (any::<u32>(), prop::collection::vec(0u32..1000, 0..rows)).prop_map(|(start, steps)| {
                steps
                    .into_iter()
                    .scan(f64::from(start), |sum, step| {
                        *sum += f64::from(step);
                        Some(*sum)
                    })
                    .collect()
            });
        let sensor =
            prop::collection::vec((-5000i32..5000).prop_map(|tick| f64::from(tick) / 100.0), 0..rows);
        let float = prop::collection::vec(-1.0f64..1.0, 0..rows);
        prop_oneof![anything, mixed, counter, sensor, float]
    }

    fn bits(values: &[f64]) -> Vec<u64> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    fn decode(encoded: &Encoded, rows: usize) -> Vec<f64> {
        if let Form::Constant(bits) = encoded.form {
            return vec![f64::from_bits(bits); rows];
        }
        let mut out = Vec::new();
        let pages = encoded.pages.iter().map(Vec::as_slice).zip(page_rows(rows));
        let each = |page: Page| page.append_values(0..page.rows(), &mut out);
        super::decode(encoded.form, &encoded.meta, pages, each).unwrap();
        out
    }

    #[test]
    fn a_counter_that_moves_seldom_costs_its_moves() {
        // Retransmissions: nothing for seconds, then some at once.
        let counter = |at: u32| f64::from((at / 700) * 40 + (at % 700).min(3));
        let values: Vec<f64> = (0..7_200).map(counter).collect();
        let encoded = encode_values(&values).unwrap();
        assert!(encoded.bytes() < 500, "{}", encoded.bytes());
        assert_eq!(bits(&decode(&encoded, values.len())), bits(&values));
    }

    #[test]
    fn sensors_choose_the_short_forms() {
        #[track_caller]
        fn check(values: impl Iterator<Item = f64>, want: Form) {
            let values: Vec<f64> = values.collect();
            let encoded = encode_values(&values).unwrap();
            assert_eq!(encoded.form, want);
            assert_eq!(bits(&decode(&encoded, values.len())), bits(&values));
        }
        check((0..3000).map(|_| 7.25), Form::Constant(7.25f64.to_bits()));
        check((0..3000).map(f64::from), Form::Scaled(0));
        check((0..3000).map(|tick| f64::from(tick * 7 % 500) / 100.0), Form::Scaled(1));
        check((0..3000).map(|tick| f64::from(tick * 7 % 500) / 1000.0), Form::Scaled(2));
        check((0..3000).map(|tick| f64::from(tick).sqrt()), Form::Float);
    }

    #[test]
    fn even_timestamps_take_no_pages() {
        let encoded = encode_timestamps(&[1_000, 2_000, 3_000]).unwrap();
        assert_eq!(encoded.form, Form::Even { first: 1_000, step: 1_000 });
        assert_eq!(encode_timestamps(&[1_000, 2_000, 3_001]).unwrap().form, Form::Integer);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_column_round_trips(values in columns(2_500)) {
            let encoded = encode_values(&values).unwrap();
            prop_assert_eq!(bits(&decode(&encoded, values.len())), bits(&values));
        }
    }
}
