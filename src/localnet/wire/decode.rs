//! Bytes of a client as the daemon's own decoder takes them: lenient where that is, strict where that is, and never at
//! more cost than the bytes themselves.
//!
//! A first pass over the bytes sees that they are one well-formed item within the decoder's limits; it keeps nothing, and
//! its stack is an array. The second pass reads what the types ask for and passes over the rest. Keys match whatever their
//! case is, the first of several is taken, null is as good as absent, tags are passed over, and a byte string may come as
//! an array of small numbers unless the type asks for no less than a byte string. Source: `thin-client-protocol.md` §2.2.

use std::fmt;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

/// Deepest nesting of arrays, maps and tags.
const DEEPEST: usize = 32;
/// Most elements of an array, and pairs of a map.
const MOST: u64 = 131_072;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

const FALSE: u64 = 20;
const TRUE: u64 = 21;
const NULL: u64 = 22;
/// Go's decoder takes it for null.
const UNDEFINED: u64 = 23;

/// Why bytes are not what was to be read. Says where and what, never which bytes.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::localnet) struct Malformed(String);

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

impl de::Error for Malformed {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self(what.to_string())
    }
}

fn malformed<T>(what: &str) -> Result<T, Malformed> {
    Err(Malformed(what.to_owned()))
}

/// Reads one item, which is all that the bytes hold. A null is no item: it would leave nothing to ask.
pub(in crate::localnet) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    let mut whole = Cursor { rest: bytes };
    whole.pass()?;
    if !whole.rest.is_empty() {
        return malformed("there are bytes after the item");
    }
    let mut cursor = Cursor { rest: bytes };
    if cursor.takes_null()? {
        return malformed("a null in the place of an item");
    }
    T::deserialize(&mut cursor)
}

/// What is left to read. Behind the first pass every item in it is well-formed.
struct Cursor<'de> {
    rest: &'de [u8],
}

/// The head of an item: its kind, the five low bits of its first byte, and the number that these or what follows give.
#[derive(Clone, Copy)]
struct Head {
    kind: u8,
    info: u8,
    number: u64,
}

impl Head {
    fn is_open(self) -> bool {
        self.info == 31
    }
}

/// A container that the first pass is inside of.
#[derive(Clone, Copy)]
struct Level {
    kind: u8,
    /// Items still to come; `None` until a break.
    left: Option<u64>,
    /// Items that came.
    seen: u64,
}

impl<'de> Cursor<'de> {
    fn take(&mut self, bytes: u64) -> Result<&'de [u8], Malformed> {
        let taken = usize::try_from(bytes).ok().and_then(|bytes| self.rest.split_at_checked(bytes));
        let Some((taken, rest)) = taken else { return malformed("it ends too early") };
        self.rest = rest;
        Ok(taken)
    }

    fn head(&mut self) -> Result<Head, Malformed> {
        let first = self.take(1)?[0];
        let (kind, info) = (first >> 5, first & 31);
        let number = match info {
            0..24 => u64::from(info),
            24..28 => self.take(1 << (info - 24))?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)),
            31 if matches!(kind, BYTES | TEXT | ARRAY | MAP | SIMPLE) => 0,
            _ => return malformed("a head that CBOR does not have"),
        };
        if kind == SIMPLE && info == 24 && number < 32 {
            return malformed("a head that CBOR does not have");
        }
        Ok(Head { kind, info, number })
    }

    /// Passes over one item, and sees that it is well-formed and within the limits.
    fn pass(&mut self) -> Result<(), Malformed> {
        let mut levels = [Level { kind: ARRAY, left: None, seen: 0 }; DEEPEST];
        let mut depth = 0_usize;
        loop {
            let head = self.head()?;
            let inside = match head.kind {
                BYTES | TEXT => {
                    self.string(head)?;
                    None
                }
                ARRAY | MAP if head.number > MOST => return malformed("an array or map of too many elements"),
                ARRAY | MAP if head.is_open() => Some(None),
                ARRAY => Some(Some(head.number)),
                MAP => Some(Some(head.number * 2)),
                TAG => Some(Some(1)),
                _ if head.is_open() => {
                    let Some(level) = depth.checked_sub(1).map(|at| levels[at]) else {
                        return malformed("a break outside of everything");
                    };
                    if level.left.is_some() || level.kind == MAP && level.seen % 2 == 1 {
                        return malformed("a break in the wrong place");
                    }
                    depth -= 1;
                    None
                }
                _ => None,
            };
            if let Some(left) = inside {
                let Some(level) = levels.get_mut(depth) else { return malformed("it is nested too deeply") };
                *level = Level { kind: head.kind, left, seen: 0 };
                if left != Some(0) {
                    depth += 1;
                    continue;
                }
            }
            // An item has ended, and with it whatever it was the last item of.
            loop {
                let Some(level) = depth.checked_sub(1).map(|at| &mut levels[at]) else { return Ok(()) };
                level.seen += 1;
                if level.seen > MOST * 2 || level.kind == ARRAY && level.seen > MOST {
                    return malformed("an array or map of too many elements");
                }
                match &mut level.left {
                    None => break,
                    Some(left) => *left -= 1,
                }
                if level.left != Some(0) {
                    break;
                }
                depth -= 1;
            }
        }
    }

    /// The pieces of the string behind its head, each with `piece`.
    fn pieces(
        &mut self,
        head: Head,
        mut piece: impl FnMut(&'de [u8]) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        if !head.is_open() {
            return piece(self.take(head.number)?);
        }
        loop {
            let part = self.head()?;
            match part.kind {
                SIMPLE if part.is_open() => return Ok(()),
                kind if kind == head.kind && !part.is_open() => piece(self.take(part.number)?)?,
                _ => return malformed("a piece of a string that is none"),
            }
        }
    }

    /// Passes over the string behind its head; text must be text in each piece.
    fn string(&mut self, head: Head) -> Result<(), Malformed> {
        self.pieces(head, |piece| match head.kind {
            TEXT if std::str::from_utf8(piece).is_err() => malformed("text that is no UTF-8"),
            _ => Ok(()),
        })
    }

    /// The head of the next item, behind its tags.
    fn untagged(&mut self) -> Result<Head, Malformed> {
        loop {
            let head = self.head()?;
            if head.kind != TAG {
                return Ok(head);
            }
        }
    }

    /// Takes a null, if that is next.
    fn takes_null(&mut self) -> Result<bool, Malformed> {
        let mut ahead = Cursor { rest: self.rest };
        let head = ahead.untagged()?;
        let null = head.kind == SIMPLE && matches!(head.info, 0..24) && matches!(head.number, NULL | UNDEFINED);
        if null {
            self.rest = ahead.rest;
        }
        Ok(null)
    }

    /// Whether another item of a container follows; takes its break.
    fn goes_on(&mut self, left: &mut Option<u64>) -> Result<bool, Malformed> {
        match left {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None if self.rest.first() == Some(&0xff) => {
                self.take(1)?;
                Ok(false)
            }
            None => Ok(true),
        }
    }

    fn bytes(&mut self, head: Head) -> Result<Vec<u8>, Malformed> {
        let mut bytes = Vec::new();
        self.pieces(head, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    fn text(&mut self, head: Head) -> Result<String, Malformed> {
        String::from_utf8(self.bytes(head)?).or_else(|_| malformed("text that is no UTF-8"))
    }

    fn number(&mut self) -> Result<i128, Malformed> {
        match self.untagged()? {
            Head { kind: UNSIGNED, number, .. } => Ok(i128::from(number)),
            Head { kind: NEGATIVE, number, .. } => Ok(-1 - i128::from(number)),
            _ => malformed("something else in the place of a whole number"),
        }
    }

    /// Bytes from an array of numbers, in which a null is a zero.
    fn small_numbers(&mut self, head: Head) -> Result<Vec<u8>, Malformed> {
        let (mut bytes, mut left) = (Vec::new(), (!head.is_open()).then_some(head.number));
        while self.goes_on(&mut left)? {
            let number = if self.takes_null()? { 0 } else { self.number()? };
            bytes.push(u8::try_from(number).or_else(|_| malformed("a number that is no byte"))?);
        }
        Ok(bytes)
    }
}

macro_rules! whole_numbers {
    ($($method:ident => $visit:ident: $type:ty),+ $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
            let number = <$type>::try_from(self.number()?).or_else(|_| malformed("a number beyond its field"))?;
            visitor.$visit(number)
        })+
    };
}

impl<'de> Deserializer<'de> for &mut Cursor<'de> {
    type Error = Malformed;

    /// Nothing of the protocol is read without knowing what it is to be.
    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Malformed> {
        malformed("something that the protocol does not have")
    }

    whole_numbers! {
        deserialize_u8 => visit_u8: u8,
        deserialize_u32 => visit_u32: u32,
        deserialize_u64 => visit_u64: u64,
        deserialize_i64 => visit_i64: i64,
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        match self.untagged()? {
            Head { kind: SIMPLE, info: 0..24, number: FALSE, .. } => visitor.visit_bool(false),
            Head { kind: SIMPLE, info: 0..24, number: TRUE, .. } => visitor.visit_bool(true),
            _ => malformed("something else in the place of true or false"),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        match self.untagged()? {
            head @ Head { kind: TEXT, .. } => visitor.visit_string(self.text(head)?),
            _ => malformed("something else in the place of text"),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        self.deserialize_string(visitor)
    }

    /// A byte string and nothing else: what has a decoder of its own in the daemon.
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        match self.untagged()? {
            head @ Head { kind: BYTES, .. } => visitor.visit_byte_buf(self.bytes(head)?),
            _ => malformed("something else in the place of a capability or an index"),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        match self.untagged()? {
            head @ Head { kind: BYTES, .. } => visitor.visit_byte_buf(self.bytes(head)?),
            head @ Head { kind: ARRAY, .. } => visitor.visit_byte_buf(self.small_numbers(head)?),
            _ => malformed("something else in the place of bytes"),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        if self.takes_null()? { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Malformed> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        let head = self.untagged()?;
        if head.kind != ARRAY {
            return malformed("something else in the place of an array");
        }
        let left = (!head.is_open()).then_some(head.number);
        visitor.visit_seq(Elements { cursor: self, left })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Malformed> {
        let left = if self.takes_null()? {
            Some(0)
        } else {
            let head = self.untagged()?;
            if head.kind != MAP {
                return malformed("something else in the place of a map");
            }
            (!head.is_open()).then_some(head.number)
        };
        visitor.visit_map(Fields { cursor: self, left, fields, seen: 0 })
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u16 u128 f32 f64 char unit unit_struct tuple tuple_struct map enum identifier ignored_any
    }
}

struct Elements<'a, 'de> {
    cursor: &'a mut Cursor<'de>,
    left: Option<u64>,
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = Malformed;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Malformed> {
        if !self.cursor.goes_on(&mut self.left)? {
            return Ok(None);
        }
        seed.deserialize(&mut *self.cursor).map(Some)
    }
}

/// The pairs of a map that are fields of a type, each field once.
struct Fields<'a, 'de> {
    cursor: &'a mut Cursor<'de>,
    left: Option<u64>,
    fields: &'static [&'static str],
    /// A bit for each field that came.
    seen: u64,
}

impl<'de> MapAccess<'de> for Fields<'_, 'de> {
    type Error = Malformed;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Malformed> {
        while self.cursor.goes_on(&mut self.left)? {
            let head = self.cursor.untagged()?;
            let field = match head.kind {
                TEXT => {
                    let key = self.cursor.text(head)?;
                    let exact = self.fields.iter().position(|field| **field == key);
                    exact.or_else(|| self.fields.iter().position(|field| field.eq_ignore_ascii_case(&key)))
                }
                // The daemon's structs have no numbered fields.
                UNSIGNED | NEGATIVE => None,
                _ => return malformed("a key that is no text"),
            };
            match field {
                Some(at) if self.seen & (1 << at) == 0 => {
                    self.seen |= 1 << at;
                    return seed.deserialize(BorrowedStrDeserializer::new(self.fields[at])).map(Some);
                }
                _ => self.cursor.pass()?,
            }
        }
        Ok(None)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Malformed> {
        seed.deserialize(&mut *self.cursor)
    }
}

#[cfg(test)]
mod tests;
