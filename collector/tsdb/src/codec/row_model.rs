//! The journal's form of a row: what each column is expected to do, and by how much the row differs.
//!
//! Writer and reader keep the same model of a group and move it on by every row, so the model itself is never
//! written. It knows three things. *Which columns move*: a column that moved in each of the last four rows, or
//! in none, is told only if it does otherwise; the others have a bit each. *Where to*: a column is expected to go
//! on by its average step (`drift`). *How far it misses*: what is left is written as a Rice code, whose
//! parameter follows from the average miss (`spread`); for misses that fall off evenly this is within a few
//! percent of the least there can be, at a few nanoseconds a value.
//!
//! FORMAT.md shows the bits. Every so often a row is told in full, on which nothing before has any bearing.

use super::bit_stream::{BitReader, BitWriter};
use super::units::{UNITS, unit_of, value_of};
use super::{to_scaled, unzigzag, zigzag};
use crate::row::{ABSENT, is_absent};

/// Columns whose flags are in one word.
const WORD: usize = 64;

/// Rows that agree before a column is sure to move, or to rest.
const ROWS_REMEMBERED: usize = 4;

/// Exceptions in a word that are listed; more are told by a bit for every column.
const LISTED_MAX: u32 = 8;

/// A Rice code of so many ones or more is an escape.
const ONES_MAX: u32 = 20;

/// Number of the unit of columns whose values are whole numbers of none.
const RAW: u8 = 15;
/// In full rows: the column has no value.
const NONE: u8 = 14;

/// What follows an escape, two bits.
const WIDE: u64 = 0;
const NO_VALUE: u64 = 1;
const OTHER_UNIT: u64 = 2;
const RAW_BITS: u64 = 3;

/// Averages are kept in sixteenths.
const FRACTION: u32 = 4;

/// Averages move by 1/2, 1/4, then 1/8 of what is new.
const AVERAGE_SHIFT_MAX: u8 = 3;

/// A spread is below two to this, so that it fits beside the other fields.
const SPREAD_BITS: u32 = 48;

/// A Rice parameter is below this.
const PARAMETER_MAX: u32 = SPREAD_BITS - FRACTION;

/// What is expected of a column.
#[derive(Clone, Copy, Debug, Default)]
struct Column {
    /// The last value as a whole number of its unit, or its bits; stays while there is no value.
    number: i64,
    /// Average step, in sixteenths.
    drift: i64,
    /// Average miss as an unsigned number, in sixteenths; then rows it has seen, and the unit, a byte each.
    packed: u64,
}

impl Column {
    fn new(number: i64, parameter: u32, unit: u8) -> Self {
        let spread = (1u64 << parameter.min(PARAMETER_MAX - 1)) << FRACTION;
        Column { number, drift: 0, packed: spread << 16 | u64::from(unit) }
    }

    fn unit(&self) -> u8 {
        self.packed as u8
    }

    fn spread(&self) -> u64 {
        self.packed >> 16
    }

    /// The Rice parameter: the average miss takes about so many bits.
    fn parameter(&self) -> u32 {
        (u64::BITS - (self.spread() >> (FRACTION + 1)).leading_zeros()).min(PARAMETER_MAX - 1)
    }

    fn expected(&self) -> i64 {
        self.number + (self.drift >> FRACTION)
    }

    /// Learns from a miss, which brings the column to `number`.
    #[inline]
    fn learn(&mut self, number: i64, miss: u64) {
        let age = (self.packed >> 8) as u8;
        let step = (number - self.number) << FRACTION;
        self.drift += (step - self.drift) >> age;
        self.number = number;
        let miss = (miss.min((1 << (PARAMETER_MAX - 1)) - 1) << FRACTION) as i64;
        let older = (age + 1).min(AVERAGE_SHIFT_MAX);
        let spread = self.spread() as i64;
        let spread = (spread + ((miss - spread) >> older)) as u64;
        self.packed = spread << 16 | u64::from(older) << 8 | self.packed & 0xff;
    }
}

/// The columns that moved in a word's last rows, newest first.
type Moved = [u64; ROWS_REMEMBERED];

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct RowModel {
    row: Box<[f64]>,
    columns: Box<[Column]>,
    moved: Box<[Moved]>,
}

impl RowModel {
    /// Of a group with so many columns. Its first row has to be told in full.
    pub(crate) fn new(width: usize) -> Self {
        RowModel {
            row: vec![0.0; width].into(),
            columns: vec![Column::default(); width].into(),
            moved: vec![Moved::default(); width.div_ceil(WORD)].into(),
        }
    }

    /// The row told last.
    pub(crate) fn row(&self) -> &[f64] {
        &self.row
    }

    /// For rows that are told in another form.
    pub(crate) fn row_mut(&mut self) -> &mut [f64] {
        &mut self.row
    }

    /// Bytes in memory, about, of the model of a group with so many columns.
    pub(crate) fn memory_bytes(width: usize) -> usize {
        width * (size_of::<f64>() + size_of::<Column>()) + width.div_ceil(WORD) * size_of::<Moved>()
    }

    /// Appends `row`, which has the width of the group; if `full`, so that what came before does not matter.
    pub(crate) fn encode(&mut self, row: &[f64], full: bool, out: &mut Vec<u8>) {
        let mut bits = BitWriter::new(out);
        bits.put(u64::from(full), 1);
        if full {
            self.encode_full(row, &mut bits);
        } else {
            self.encode_changes(row, &mut bits);
        }
        bits.finish();
    }

    /// Whether an encoded row was told in full.
    pub(crate) fn is_full(encoded: &[u8]) -> bool {
        encoded.first().is_some_and(|byte| byte & 1 == 1)
    }

    /// Reads a row, which [`RowModel::row`] has then. `None` if the bytes are no row; then the model is
    /// undefined until a row is told in full.
    pub(crate) fn decode(&mut self, encoded: &[u8]) -> Option<()> {
        let mut bits = BitReader::new(encoded);
        if bits.take(1) == 1 {
            self.decode_full(&mut bits)?;
        } else {
            self.decode_changes(&mut bits)?;
        }
        (!bits.is_past_end()).then_some(())
    }

    fn encode_changes(&mut self, row: &[f64], bits: &mut BitWriter<'_>) {
        let words = self.row.chunks_mut(WORD).zip(self.columns.chunks_mut(WORD));
        for (((before, columns), row), moved) in words.zip(row.chunks(WORD)).zip(&mut self.moved) {
            let mut changed = 0;
            for (column, (before, value)) in before.iter().zip(row).enumerate() {
                changed |= u64::from(before.to_bits() != value.to_bits()) << column;
            }
            encode_flags(moved, changed, row.len(), bits);
            while changed != 0 {
                let at = changed.trailing_zeros() as usize;
                changed &= changed - 1;
                if let (Some(column), Some(before), Some(&value)) =
                    (columns.get_mut(at), before.get_mut(at), row.get(at))
                {
                    encode_change(column, value, bits);
                    *before = value;
                }
            }
        }
    }

    fn decode_changes(&mut self, bits: &mut BitReader<'_>) -> Option<()> {
        let words = self.row.chunks_mut(WORD).zip(self.columns.chunks_mut(WORD));
        for ((row, columns), moved) in words.zip(&mut self.moved) {
            let mut changed = decode_flags(moved, row.len(), bits)?;
            while changed != 0 {
                let at = changed.trailing_zeros() as usize;
                changed &= changed - 1;
                *row.get_mut(at)? = decode_change(columns.get_mut(at)?, bits)?;
            }
        }
        Some(())
    }

    fn encode_full(&mut self, row: &[f64], bits: &mut BitWriter<'_>) {
        for (at, (&value, (before, column))) in
            row.iter().zip(self.row.iter_mut().zip(&mut self.columns)).enumerate()
        {
            let moves = self.moved.get(at / WORD).is_some_and(|moved| all_of(moved) >> (at % WORD) & 1 == 1);
            let parameter = column.parameter();
            *before = value;
            if value.to_bits() == 0 && !moves {
                bits.put(0, 1);
                *column = Column::new(0, 0, 0);
                continue;
            }
            bits.put(1 | u64::from(moves) << 1, 2);
            bits.put(u64::from(parameter), 6);
            let (number, unit) = match unit_of(value, 0) {
                _ if is_absent(value) => (0, NONE),
                Some((unit, number)) => (number, unit as u8),
                None => (value.to_bits() as i64, RAW),
            };
            bits.put(u64::from(unit), 4);
            match unit {
                NONE => {}
                RAW => bits.put_wide(number as u64, 64),
                _ => put_counted(zigzag(number), bits),
            }
            *column = Column::new(number, parameter, if unit == NONE { 0 } else { unit });
        }
        self.moved.iter_mut().for_each(|moved| *moved = [all_of(moved); ROWS_REMEMBERED]);
    }

    fn decode_full(&mut self, bits: &mut BitReader<'_>) -> Option<()> {
        self.moved.fill(Moved::default());
        for (at, (value, column)) in self.row.iter_mut().zip(&mut self.columns).enumerate() {
            if bits.take(1) == 0 {
                (*value, *column) = (0.0, Column::new(0, 0, 0));
                continue;
            }
            let moves = bits.take(1);
            self.moved.get_mut(at / WORD)?.iter_mut().for_each(|moved| *moved |= moves << (at % WORD));
            let parameter = bits.take(6) as u32;
            let unit = bits.take(4) as u8;
            let number = match unit {
                NONE => 0,
                RAW => bits.take_wide(64) as i64,
                _ => unzigzag(take_counted(bits)),
            };
            *value = match unit {
                NONE => ABSENT,
                RAW => f64::from_bits(number as u64),
                _ => value_of(usize::from(unit), number)?,
            };
            *column = Column::new(number, parameter, if unit == NONE { 0 } else { unit });
        }
        Some(())
    }
}

/// Columns that moved in every row.
fn all_of(moved: &Moved) -> u64 {
    moved.iter().fold(u64::MAX, |all, moved| all & moved)
}

/// Which columns of a word are sure to move, and which are sure to move or to rest.
fn expectation(moved: &Moved, width: usize) -> (u64, u64) {
    let valid = if width >= WORD { u64::MAX } else { (1 << width) - 1 };
    let any = moved.iter().fold(0, |any, moved| any | moved);
    let all = all_of(moved);
    (all & valid, (all | !any) & valid)
}

fn remember(moved: &mut Moved, changed: u64) {
    moved.rotate_right(1);
    if let Some(newest) = moved.first_mut() {
        *newest = changed;
    }
}

/// Bits of a column's number in a word.
fn position_bits(width: usize) -> u32 {
    usize::BITS - (width.max(1) - 1).leading_zeros()
}

fn encode_flags(moved: &mut Moved, changed: u64, width: usize, bits: &mut BitWriter<'_>) {
    let (expected, sure) = expectation(moved, width);
    let mut exceptions = (changed ^ expected) & sure;
    let mut unsure = if width >= WORD { !sure } else { !sure & ((1 << width) - 1) };
    let count = exceptions.count_ones();
    bits.put(u64::from(count > 0), 1);
    let list_bits = 3 + count * position_bits(width);
    if count > 0 && (count > LISTED_MAX || list_bits as usize > width) {
        // All of them plainly.
        bits.put(1, 1);
        bits.put_wide(changed, width.min(WORD) as u32);
        unsure = 0;
    } else if count > 0 {
        bits.put(u64::from(count - 1) << 1, 4);
        while exceptions != 0 {
            bits.put(u64::from(exceptions.trailing_zeros()), position_bits(width));
            exceptions &= exceptions - 1;
        }
    }
    while unsure != 0 {
        bits.put(changed >> unsure.trailing_zeros() & 1, 1);
        unsure &= unsure - 1;
    }
    remember(moved, changed);
}

fn decode_flags(moved: &mut Moved, width: usize, bits: &mut BitReader<'_>) -> Option<u64> {
    let (expected, sure) = expectation(moved, width);
    let mut unsure = if width >= WORD { !sure } else { !sure & ((1 << width) - 1) };
    let mut changed = expected;
    if bits.take(1) == 1 {
        if bits.take(1) == 1 {
            changed = bits.take_wide(width.min(WORD) as u32);
            unsure = 0;
        } else {
            for _ in 0..=bits.take(3) {
                changed ^= 1 << bits.take(position_bits(width));
            }
        }
    }
    while unsure != 0 {
        changed |= bits.take(1) << unsure.trailing_zeros();
        unsure &= unsure - 1;
    }
    remember(moved, changed);
    Some(changed)
}

#[inline]
fn encode_change(column: &mut Column, value: f64, bits: &mut BitWriter<'_>) {
    if column.unit() == RAW {
        return encode_raw(column, value, bits);
    }
    let scale = UNITS.get(usize::from(column.unit())).copied().unwrap_or(1.0);
    let Some(number) = to_scaled(value, scale) else { return encode_other(column, value, bits) };
    let miss = zigzag(number - column.expected());
    let parameter = column.parameter();
    let ones = miss >> parameter;
    if ones < u64::from(ONES_MAX) {
        bits.put((1 << ones) - 1, ones as u32 + 1);
        bits.put(miss & ((1 << parameter) - 1), parameter);
    } else {
        put_escape(WIDE, bits);
        put_counted(miss, bits);
    }
    column.learn(number, miss);
}

/// The value is no whole number of the column's unit.
#[cold]
fn encode_other(column: &mut Column, value: f64, bits: &mut BitWriter<'_>) {
    if is_absent(value) {
        return put_escape(NO_VALUE, bits);
    }
    // Never back to a coarser one, so that a column does not go to and fro.
    match unit_of(value, usize::from(column.unit()) + 1) {
        Some((unit, number)) => {
            put_escape(OTHER_UNIT, bits);
            bits.put(unit as u64, 4);
            put_counted(zigzag(number), bits);
            *column = Column::new(number, 0, unit as u8);
        }
        None => {
            put_escape(RAW_BITS, bits);
            bits.put_wide(value.to_bits(), 64);
            *column = Column::new(value.to_bits() as i64, 0, RAW);
        }
    }
}

fn encode_raw(column: &mut Column, value: f64, bits: &mut BitWriter<'_>) {
    if is_absent(value) {
        return bits.put(1, 1);
    }
    let xor = value.to_bits() ^ column.number as u64;
    let leading = xor.leading_zeros().min(31);
    let trailing = xor.trailing_zeros().min(63 - leading);
    let significant = 64 - leading - trailing;
    bits.put(u64::from(leading) << 1 | u64::from(significant - 1) << 6, 12);
    bits.put_wide(xor >> trailing, significant);
    column.number = value.to_bits() as i64;
}

#[inline]
fn decode_change(column: &mut Column, bits: &mut BitReader<'_>) -> Option<f64> {
    if column.unit() == RAW {
        return decode_raw(column, bits);
    }
    let ones = bits.peek().trailing_ones();
    let miss = if ones < ONES_MAX {
        let parameter = column.parameter();
        bits.skip(ones + 1);
        u64::from(ones) << parameter | bits.take(parameter)
    } else {
        bits.skip(ONES_MAX);
        match bits.take(2) {
            WIDE => take_counted(bits),
            other => return decode_other(column, other, bits),
        }
    };
    let number = column.expected().checked_add(unzigzag(miss))?;
    let value = value_of(usize::from(column.unit()), number)?;
    column.learn(number, miss);
    Some(value)
}

#[cold]
fn decode_other(column: &mut Column, kind: u64, bits: &mut BitReader<'_>) -> Option<f64> {
    match kind {
        NO_VALUE => Some(ABSENT),
        OTHER_UNIT => {
            let unit = bits.take(4) as u8;
            let number = unzigzag(take_counted(bits));
            let value = value_of(usize::from(unit), number)?;
            *column = Column::new(number, 0, unit);
            Some(value)
        }
        _ => {
            let raw = bits.take_wide(64);
            *column = Column::new(raw as i64, 0, RAW);
            Some(f64::from_bits(raw))
        }
    }
}

fn decode_raw(column: &mut Column, bits: &mut BitReader<'_>) -> Option<f64> {
    if bits.take(1) == 1 {
        return Some(ABSENT);
    }
    let leading = bits.take(5) as u32;
    let significant = bits.take(6) as u32 + 1;
    let trailing = 64u32.checked_sub(leading + significant)?;
    column.number ^= (bits.take_wide(significant) << trailing) as i64;
    Some(f64::from_bits(column.number as u64))
}

fn put_escape(kind: u64, bits: &mut BitWriter<'_>) {
    bits.put(((1 << ONES_MAX) - 1) | (kind << ONES_MAX), ONES_MAX + 2);
}

/// Appends a number with the count of its bits before it.
fn put_counted(number: u64, bits: &mut BitWriter<'_>) {
    let width = (u64::BITS - number.leading_zeros()).max(1);
    bits.put(u64::from(width - 1), 6);
    bits.put_wide(number, width);
}

fn take_counted(bits: &mut BitReader<'_>) -> u64 {
    let width = bits.take(6) as u32 + 1;
    bits.take_wide(width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::dense::tests::columns;
    use proptest::prelude::*;

    fn bits(row: &[f64]) -> Vec<u64> {
        row.iter().map(|value| value.to_bits()).collect()
    }

    /// Encodes rows one after the other, reads them back, and tells how many bytes each took.
    #[track_caller]
    fn round_trip(rows: &[Vec<f64>], full_every: usize) -> Vec<usize> {
        let width = rows.first().map_or(0, Vec::len);
        let (mut writer, mut reader) = (RowModel::new(width), RowModel::new(width));
        let mut sizes = Vec::new();
        for (number, row) in rows.iter().enumerate() {
            let mut bytes = Vec::new();
            writer.encode(row, number % full_every == 0, &mut bytes);
            assert_eq!(RowModel::is_full(&bytes), number % full_every == 0);
            reader.decode(&bytes).unwrap();
            assert_eq!(bits(reader.row()), bits(row), "row {number}");
            sizes.push(bytes.len());
        }
        sizes
    }

    #[test]
    fn rows_that_rest_take_a_byte() {
        let sizes = round_trip(&vec![vec![7.25; 40]; 20], 64);
        assert_eq!(sizes[8..], [1; 12]);
    }

    #[test]
    fn steady_counters_take_a_bit_a_column() {
        let rows: Vec<Vec<f64>> =
            (0..40).map(|tick| (0..32).map(|column| (tick * 10 + column) as f64 / 100.0).collect()).collect();
        let sizes = round_trip(&rows, 64);
        assert!(sizes[30..].iter().all(|&size| size <= 9), "{sizes:?}");
    }

    #[test]
    fn a_reader_that_missed_rows_goes_on_where_one_is_told_in_full() {
        let row = |tick: usize| vec![tick as f64 * 1.5, (tick % 3) as f64, f64::sqrt(tick as f64), ABSENT];
        let mut writer = RowModel::new(4);
        let mut reader = RowModel::new(4);
        for tick in 0..200 {
            let mut bytes = Vec::new();
            writer.encode(&row(tick), tick % 64 == 0, &mut bytes);
            if tick >= 128 {
                reader.decode(&bytes).unwrap();
                assert_eq!(bits(reader.row()), bits(&row(tick)));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn any_rows_round_trip(
            all in prop::collection::vec(columns(80), 1..80),
            absent in prop::collection::vec((0usize..80, 0usize..80), 0..40),
            full_every in 1usize..40,
        ) {
            let height = all.iter().map(Vec::len).max().unwrap_or(0);
            let mut rows: Vec<Vec<f64>> = (0..height)
                .map(|row| all.iter().map(|column| column.get(row).copied().unwrap_or(ABSENT)).collect())
                .collect();
            for (row, column) in absent {
                if let Some(value) = rows.get_mut(row).and_then(|row| row.get_mut(column)) {
                    *value = ABSENT;
                }
            }
            round_trip(&rows, full_every);
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(
            rows in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..8),
            width in 1usize..70,
        ) {
            let mut model = RowModel::new(width);
            for row in rows {
                let _ = model.decode(&row);
            }
        }
    }
}
