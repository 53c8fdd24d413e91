//! OVSDB values (RFC 7047 section 5.1) and how they are patched (ovsdb-server(7), "update2").

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde_json::Value;
use thiserror::Error;

/// A row's identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub u128);

impl fmt::Display for Uuid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = [self.0 >> 96, self.0 >> 80, self.0 >> 64, self.0 >> 48];
        let [b, c, d] = [b & 0xffff, c & 0xffff, d & 0xffff];
        write!(out, "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{:012x}", self.0 & 0xffff_ffff_ffff)
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for Uuid {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let bytes = text.as_bytes();
        let mut bits = 0;
        if bytes.len() != 36 {
            return Err(ValueError::NotAUuid);
        }
        for (at, byte) in bytes.iter().enumerate() {
            let digit = char::from(*byte).to_digit(16);
            match (at, digit) {
                (8 | 13 | 18 | 23, None) if *byte == b'-' => {}
                (8 | 13 | 18 | 23, _) | (_, None) => return Err(ValueError::NotAUuid),
                (_, Some(digit)) => bits = bits << 4 | u128::from(digit),
            }
        }
        Ok(Self(bits))
    }
}

/// Why JSON is no OVSDB value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ValueError {
    /// Not an atom, and not `["set",…]`, `["map",…]` or `["uuid",…]`.
    #[error("not an OVSDB value")]
    Unknown,
    /// A uuid of the wrong shape.
    #[error("not a uuid")]
    NotAUuid,
    /// A set where a map belongs, or the other way round.
    #[error("a set where a map belongs, or a map where a set belongs")]
    KindMismatch,
}

/// A single value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Atom {
    Integer(i64),
    /// The bits of a double. Only kept to be compared for equality.
    Real(u64),
    Boolean(bool),
    String(String),
    Uuid(Uuid),
}

impl Atom {
    fn parse(json: &Value) -> Result<Self, ValueError> {
        match json {
            Value::Number(number) => Ok(match (number.as_i64(), number.as_f64()) {
                (Some(integer), _) => Self::Integer(integer),
                (None, Some(real)) => Self::Real(real.to_bits()),
                (None, None) => return Err(ValueError::Unknown),
            }),
            Value::Bool(boolean) => Ok(Self::Boolean(*boolean)),
            Value::String(text) => Ok(Self::String(text.clone())),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(kind), Value::String(uuid)] if kind == "uuid" => uuid.parse().map(Self::Uuid),
                _ => Err(ValueError::Unknown),
            },
            Value::Null | Value::Object(_) => Err(ValueError::Unknown),
        }
    }
}

/// A column's value. A single or optional value is a set of at most one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Datum {
    Set(BTreeSet<Atom>),
    Map(BTreeMap<Atom, Atom>),
}

impl Datum {
    /// Reads `["set",[…]]`, `["map",[[k,v],…]]` or a bare atom, which is how a set of one may be written.
    pub(super) fn parse(json: &Value) -> Result<Self, ValueError> {
        match json.as_array().map(Vec::as_slice) {
            Some([Value::String(kind), Value::Array(items)]) if kind == "set" => {
                items.iter().map(Atom::parse).collect::<Result<_, _>>().map(Self::Set)
            }
            Some([Value::String(kind), Value::Array(items)]) if kind == "map" => {
                items.iter().map(pair).collect::<Result<_, _>>().map(Self::Map)
            }
            _ => Ok(Self::Set(BTreeSet::from([Atom::parse(json)?]))),
        }
    }

    /// No values, of the same kind.
    pub(super) fn empty(&self) -> Self {
        match self {
            Self::Set(_) => Self::Set(BTreeSet::new()),
            Self::Map(_) => Self::Map(BTreeMap::new()),
        }
    }

    /// Applies the difference that an update2 or update3 message carries for a modified row.
    ///
    /// Columns that hold at most one value carry the new value, even when that is none. In sets, members of the
    /// difference come if they were absent and go if they were present. In maps, a key with the value it already
    /// has goes; any other pair comes or replaces (`ovsdb_datum_apply_diff`, OVS `lib/ovsdb-data.c`).
    pub(super) fn apply(&mut self, difference: Self, holds_many: bool) -> Result<(), ValueError> {
        match (self, difference) {
            (current, new) if !holds_many => *current = new,
            (Self::Set(current), Self::Set(toggled)) => {
                for atom in toggled {
                    if !current.remove(&atom) {
                        current.insert(atom);
                    }
                }
            }
            (Self::Map(current), Self::Map(changed)) => {
                for (key, value) in changed {
                    if current.get(&key) == Some(&value) {
                        current.remove(&key);
                    } else {
                        current.insert(key, value);
                    }
                }
            }
            _ => return Err(ValueError::KindMismatch),
        }
        Ok(())
    }
}

fn pair(json: &Value) -> Result<(Atom, Atom), ValueError> {
    match json.as_array().map(Vec::as_slice) {
        Some([key, value]) => Ok((Atom::parse(key)?, Atom::parse(value)?)),
        _ => Err(ValueError::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn datum(json: Value) -> Datum {
        Datum::parse(&json).unwrap()
    }

    fn patched(before: Value, difference: Value, holds_many: bool) -> Datum {
        let mut value = datum(before);
        value.apply(datum(difference), holds_many).unwrap();
        value
    }

    #[test]
    fn uuids_round_trip() {
        let text = "1fcbfefd-7539-429c-0c56-bbf5da343cb7";
        assert_eq!(text.parse::<Uuid>().unwrap().to_string(), text);
        for text in
            ["", "1fcbfefd", "1fcbfefd-7539-429c-0c56-bbf5da343cbg", "1fcbfefd07539-429c-0c56-bbf5da343cb7"]
        {
            assert_eq!(text.parse::<Uuid>(), Err(ValueError::NotAUuid), "{text}");
        }
    }

    #[test]
    fn a_set_of_one_may_be_a_bare_atom() {
        assert_eq!(datum(json!(7)), datum(json!(["set", [7]])));
        let uuid = json!(["uuid", "1fcbfefd-7539-429c-0c56-bbf5da343cb7"]);
        assert_eq!(datum(uuid.clone()), datum(json!(["set", [uuid]])));
    }

    #[test]
    fn a_column_of_at_most_one_value_is_replaced() {
        assert_eq!(patched(json!(10), json!(11), false), datum(json!(11)));
        assert_eq!(patched(json!(10), json!(10), false), datum(json!(10)));
        assert_eq!(patched(json!(10), json!(["set", []]), false), datum(json!(["set", []])));
        assert_eq!(patched(json!(["set", []]), json!(5), false), datum(json!(5)));
    }

    #[test]
    fn members_of_sets_are_toggled() {
        assert_eq!(patched(json!(["set", [1, 2]]), json!(2), true), datum(json!(1)));
        assert_eq!(
            patched(json!(["set", [1, 2]]), json!(["set", [2, 3]]), true),
            datum(json!(["set", [1, 3]]))
        );
        assert_eq!(patched(json!(1), json!(1), true), datum(json!(["set", []])));
    }

    #[test]
    fn pairs_of_maps_come_change_and_go() {
        let before = json!(["map", [["a", "1"], ["b", "2"]]]);
        let difference = json!(["map", [["a", "1"], ["b", "3"], ["c", "4"]]]);
        assert_eq!(patched(before, difference, true), datum(json!(["map", [["b", "3"], ["c", "4"]]])));
    }

    #[test]
    fn a_set_does_not_patch_a_map() {
        let mut map = datum(json!(["map", []]));
        assert_eq!(map.apply(datum(json!(1)), true), Err(ValueError::KindMismatch));
    }

    #[test]
    fn other_json_is_refused() {
        for json in [
            json!(null),
            json!({}),
            json!([]),
            json!(["set"]),
            json!(["set", 1]),
            json!(["set", [["set", []]]]),
            json!(["map", [1]]),
            json!(["map", [[1, 2, 3]]]),
            json!(["uuid", "x"]),
            json!(["named-uuid", "x"]),
        ] {
            assert!(Datum::parse(&json).is_err(), "{json}");
        }
    }
}
