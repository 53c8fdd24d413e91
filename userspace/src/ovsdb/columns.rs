//! Reading a row's columns by name and type.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::schema::Table;
use super::value::{Atom, Datum, Uuid};

/// A value that its column cannot hold.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("column {column} of {} row {row} does not hold {expected}", table.name())]
pub(super) struct ColumnError {
    table: Table,
    row: Uuid,
    column: &'static str,
    expected: &'static str,
}

/// One row's values. A column that is absent reads as none, empty or false.
pub(super) struct Columns<'a> {
    pub(super) table: Table,
    pub(super) row: Uuid,
    pub(super) values: &'a BTreeMap<&'static str, Datum>,
}

impl Columns<'_> {
    pub(super) fn string(&self, column: &'static str) -> Result<Option<String>, ColumnError> {
        self.one(column, "a text", string)
    }

    pub(super) fn boolean(&self, column: &'static str) -> Result<bool, ColumnError> {
        Ok(self.one(column, "true or false", boolean)?.unwrap_or(false))
    }

    pub(super) fn integer(&self, column: &'static str) -> Result<Option<i64>, ColumnError> {
        self.one(column, "an integer", integer)
    }

    pub(super) fn vlan(&self, column: &'static str) -> Result<Option<u16>, ColumnError> {
        self.one(column, "a VLAN from 0 to 4095", vlan)
    }

    pub(super) fn uuid(&self, column: &'static str) -> Result<Option<Uuid>, ColumnError> {
        self.one(column, "a reference", uuid)
    }

    pub(super) fn vlans(&self, column: &'static str) -> Result<BTreeSet<u16>, ColumnError> {
        self.many(column, "VLANs from 0 to 4095", vlan)
    }

    pub(super) fn uuids(&self, column: &'static str) -> Result<BTreeSet<Uuid>, ColumnError> {
        self.many(column, "references", uuid)
    }

    pub(super) fn map(&self, column: &'static str) -> Result<BTreeMap<String, String>, ColumnError> {
        self.pairs(column, "pairs of texts", string, string)
    }

    pub(super) fn numbered_uuids(&self, column: &'static str) -> Result<BTreeMap<i64, Uuid>, ColumnError> {
        self.pairs(column, "numbered references", integer, uuid)
    }

    fn one<T>(
        &self,
        column: &'static str,
        expected: &'static str,
        read: fn(&Atom) -> Option<T>,
    ) -> Result<Option<T>, ColumnError> {
        match self.value(column) {
            None => Ok(None),
            Some(Datum::Set(atoms)) if atoms.is_empty() => Ok(None),
            Some(Datum::Set(atoms)) if atoms.len() == 1 => {
                let value = atoms.first().and_then(read);
                value.map(Some).ok_or_else(|| self.error(column, expected))
            }
            Some(_) => Err(self.error(column, expected)),
        }
    }

    fn many<T: Ord>(
        &self,
        column: &'static str,
        expected: &'static str,
        read: fn(&Atom) -> Option<T>,
    ) -> Result<BTreeSet<T>, ColumnError> {
        let values = match self.value(column) {
            None => Some(BTreeSet::new()),
            Some(Datum::Set(atoms)) => atoms.iter().map(read).collect(),
            Some(Datum::Map(_)) => None,
        };
        values.ok_or_else(|| self.error(column, expected))
    }

    fn pairs<K: Ord, V>(
        &self,
        column: &'static str,
        expected: &'static str,
        read_key: fn(&Atom) -> Option<K>,
        read_value: fn(&Atom) -> Option<V>,
    ) -> Result<BTreeMap<K, V>, ColumnError> {
        let values = match self.value(column) {
            None => Some(BTreeMap::new()),
            Some(Datum::Map(pairs)) => {
                pairs.iter().map(|(key, value)| Some((read_key(key)?, read_value(value)?))).collect()
            }
            Some(Datum::Set(_)) => None,
        };
        values.ok_or_else(|| self.error(column, expected))
    }

    fn value(&self, column: &'static str) -> Option<&Datum> {
        debug_assert!(self.table.columns().contains(&column), "{column} is read but not subscribed to");
        self.values.get(column)
    }

    fn error(&self, column: &'static str, expected: &'static str) -> ColumnError {
        ColumnError { table: self.table, row: self.row, column, expected }
    }
}

fn string(atom: &Atom) -> Option<String> {
    if let Atom::String(text) = atom { Some(text.clone()) } else { None }
}

fn boolean(atom: &Atom) -> Option<bool> {
    if let Atom::Boolean(boolean) = atom { Some(*boolean) } else { None }
}

fn integer(atom: &Atom) -> Option<i64> {
    if let Atom::Integer(integer) = atom { Some(*integer) } else { None }
}

fn vlan(atom: &Atom) -> Option<u16> {
    integer(atom).and_then(|vid| u16::try_from(vid).ok()).filter(|vid| *vid < 4096)
}

fn uuid(atom: &Atom) -> Option<Uuid> {
    if let Atom::Uuid(uuid) = atom { Some(*uuid) } else { None }
}
