//! D-Bus messages, as much of them as calls of methods and their answers need: texts and numbers in, bytes of
//! the wire out, and back.
//!
//! Follows the D-Bus specification, "Marshaling (Wire Format)" and "Message Format". Every value is aligned to
//! its size, counted from the start of header or body.

/// A message begins with this much: byte order, type, flags, version, length of the body, serial, and the length
/// of the header's fields.
pub(super) const START_BYTES: usize = 16;
pub(super) const METHOD_CALL: u8 = 1;
pub(super) const METHOD_RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
const LITTLE_ENDIAN: u8 = b'l';
const VERSION: u8 = 1;
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A call of a method; its arguments are texts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    pub(super) arguments: &'a [&'a str],
}

impl Call<'_> {
    /// The message's bytes.
    pub(super) fn encode(&self, serial: u32) -> Vec<u8> {
        let mut body = Writer::default();
        self.arguments.iter().for_each(|argument| body.text(argument));
        let mut message = Writer::default();
        message.bytes.extend([LITTLE_ENDIAN, METHOD_CALL, 0, VERSION]);
        message.number(body.bytes.len() as u32);
        message.number(serial);
        // The length of the fields, known once they are written.
        message.number(0);
        message.field(PATH, "o", self.path);
        message.field(INTERFACE, "s", self.interface);
        message.field(MEMBER, "s", self.member);
        message.field(DESTINATION, "s", self.destination);
        if !self.arguments.is_empty() {
            message.field(SIGNATURE, "g", &"s".repeat(self.arguments.len()));
        }
        let fields = (message.bytes.len() - START_BYTES) as u32;
        message.bytes[START_BYTES - 4..START_BYTES].copy_from_slice(&fields.to_le_bytes());
        message.align(8);
        message.bytes.append(&mut body.bytes);
        message.bytes
    }
}

#[derive(Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    pub(super) fn number(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend(value.to_le_bytes());
    }

    pub(super) fn text(&mut self, text: &str) {
        self.number(text.len() as u32);
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    pub(super) fn signature(&mut self, signature: &str) {
        self.bytes.push(signature.len() as u8);
        self.bytes.extend(signature.as_bytes());
        self.bytes.push(0);
    }

    fn field(&mut self, code: u8, signature: &str, text: &str) {
        self.align(8);
        self.bytes.push(code);
        self.signature(signature);
        if signature == "g" { self.signature(text) } else { self.text(text) }
    }
}

/// The beginning of a message that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) kind: u8,
    /// Bytes of the header's fields, with what fills them up.
    pub(super) fields: usize,
    /// Bytes of the body.
    pub(super) body: usize,
}

impl Start {
    /// `None` if this is no message of this protocol's version in the machine's usual byte order.
    pub(super) fn decode(bytes: &[u8; START_BYTES]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let [order, kind, _, version] = *reader.take(4)? else { return None };
        let (body, _serial, fields) = (reader.number()?, reader.number()?, reader.number()?);
        let fields = (fields as usize).checked_next_multiple_of(8)?;
        (order == LITTLE_ENDIAN && version == VERSION).then_some(Start { kind, fields, body: body as usize })
    }
}

/// What the fields of a header say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) reply_to: Option<u32>,
    pub(super) error: Option<String>,
    pub(super) path: Option<String>,
    pub(super) member: Option<String>,
}

impl Fields {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::default();
        let mut reader = Reader::new(bytes);
        loop {
            reader.align(8);
            // What fills the header up is zero, and no field's code.
            match reader.take(1) {
                Some([code]) if *code != 0 => match (*code, reader.variant()?) {
                    (REPLY_SERIAL, Value::Number(serial)) => fields.reply_to = u32::try_from(serial).ok(),
                    (ERROR_NAME, Value::Text(name)) => fields.error = Some(name),
                    (PATH, Value::Text(path)) => fields.path = Some(path),
                    (MEMBER, Value::Text(member)) => fields.member = Some(member),
                    _ => {}
                },
                _ => return Some(fields),
            }
        }
    }
}

/// A value whose type travels with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(u64),
}

/// Reads values one after another; `None` where the bytes end or are odd.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    pub(super) fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    pub(super) fn number(&mut self) -> Option<u32> {
        self.align(4);
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn long_number(&mut self) -> Option<u64> {
        self.align(8);
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = self.number()? as usize;
        self.ending_in_zero(length)
    }

    fn signature(&mut self) -> Option<&'a str> {
        let length = usize::from(*self.take(1)?.first()?);
        self.ending_in_zero(length)
    }

    fn ending_in_zero(&mut self, length: usize) -> Option<&'a str> {
        let (zero, text) = self.take(length.checked_add(1)?)?.split_last()?;
        (*zero == 0).then(|| std::str::from_utf8(text).ok()).flatten()
    }

    /// A text or a number; other types are not expected anywhere.
    pub(super) fn variant(&mut self) -> Option<Value> {
        Some(match self.signature()? {
            "s" | "o" => Value::Text(self.text()?.to_owned()),
            "g" => Value::Text(self.signature()?.to_owned()),
            "u" | "b" => Value::Number(self.number()?.into()),
            "t" => Value::Number(self.long_number()?),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CALL: Call<'_> = Call {
        destination: "org.freedesktop.systemd1",
        path: "/org/freedesktop/systemd1",
        interface: "org.freedesktop.DBus.Properties",
        member: "Get",
        arguments: &["org.freedesktop.systemd1.Manager", "Version"],
    };

    #[test]
    fn a_call_is_read_back_as_it_was_written() {
        let bytes = CALL.encode(7);
        let start = Start::decode(bytes[..START_BYTES].try_into().unwrap()).unwrap();
        assert_eq!((start.kind, START_BYTES + start.fields + start.body), (METHOD_CALL, bytes.len()));
        let (fields, body) = bytes[START_BYTES..].split_at(start.fields);
        let fields = Fields::decode(fields).unwrap();
        assert_eq!((fields.path.as_deref(), fields.member.as_deref()), (Some(CALL.path), Some("Get")));
        let mut body = Reader::new(body);
        assert_eq!(body.text(), Some("org.freedesktop.systemd1.Manager"));
        assert_eq!(body.text(), Some("Version"));
        assert_eq!(body.text(), None);
    }

    #[test]
    fn other_byte_orders_and_versions_are_refused() {
        let good: [u8; START_BYTES] = CALL.encode(7)[..START_BYTES].try_into().unwrap();
        for (at, byte) in [(0, b'B'), (3, 2)] {
            let mut bad = good;
            bad[at] = byte;
            assert_eq!(Start::decode(&bad), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Fields::decode(&bytes);
            let mut reader = Reader::new(&bytes);
            while reader.variant().is_some() || reader.text().is_some() {}
            if let Some(Ok(start)) = bytes.get(..START_BYTES).map(<&[u8; START_BYTES]>::try_from) {
                let _ = Start::decode(start);
            }
        }
    }
}
