//! The copy of the database that update messages are applied to.
//!
//! A [`Replica`] starts from the reply to a monitor request and then takes one update message, which is one
//! transaction, at a time. Only rows that a message names are typed again. After an error the replica is in an
//! unknown state: drop it and start from a new dump.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};
use thiserror::Error;

use super::columns::{ColumnError, Columns};
use super::rows::Rows;
use super::schema::{Subscription, Table};
use super::value::{Datum, Uuid, ValueError};

/// How a server writes updates down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum UpdateFormat {
    /// RFC 7047's `<table-updates>`: whole rows, old and new.
    Rows,
    /// ovsdb-server(7)'s `<table-updates2>`: differences.
    Differences,
}

/// An update message that cannot be applied.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub(super) enum ReplicaError {
    #[error("an update is not of the form {{table: {{uuid: change}}}}")]
    Shapeless,
    #[error("an update names table {0:?}, which was not asked for")]
    UnknownTable(String),
    #[error("an update names column {column:?} of table {}, which was not asked for", table.name())]
    UnknownColumn { table: Table, column: String },
    #[error("an update modifies {} row {row}, which does not exist", table.name())]
    UnknownRow { table: Table, row: Uuid },
    #[error("an update names row {text:?}: {cause}")]
    BadUuid { text: String, cause: ValueError },
    #[error("column {column} of {} row {row}: {cause}", table.name())]
    BadValue { table: Table, row: Uuid, column: &'static str, cause: ValueError },
    #[error("{0}")]
    Column(#[from] ColumnError),
}

type RawRow = BTreeMap<&'static str, Datum>;

/// The database as this side knows it: as received, and typed.
#[derive(Debug)]
pub(super) struct Replica {
    subscription: Subscription,
    raw: BTreeMap<(Table, Uuid), RawRow>,
    rows: Arc<Rows>,
}

/// What an update does to one row.
enum Change<'a> {
    /// The row is new, or is given completely.
    Whole(&'a Map<String, Value>),
    Modify(&'a Map<String, Value>),
    Delete,
}

impl Replica {
    pub(super) fn new(subscription: Subscription) -> Self {
        Self { subscription, raw: BTreeMap::new(), rows: Arc::default() }
    }

    /// The state after the last message.
    pub(super) fn rows(&self) -> Arc<Rows> {
        Arc::clone(&self.rows)
    }

    /// Applies one message's updates.
    pub(super) fn apply(&mut self, format: UpdateFormat, updates: &Value) -> Result<(), ReplicaError> {
        for (table, changes) in updates.as_object().ok_or(ReplicaError::Shapeless)? {
            let table = Table::by_name(table).ok_or_else(|| ReplicaError::UnknownTable(table.clone()))?;
            for (row, change) in changes.as_object().ok_or(ReplicaError::Shapeless)? {
                let row = row.parse().map_err(|cause| ReplicaError::BadUuid { text: row.clone(), cause })?;
                self.apply_to_row(table, row, &Change::parse(format, change)?)?;
            }
        }
        Ok(())
    }

    fn apply_to_row(&mut self, table: Table, row: Uuid, change: &Change<'_>) -> Result<(), ReplicaError> {
        let Self { subscription, raw, rows } = self;
        let rows = Arc::make_mut(rows);
        let values = match change {
            Change::Delete => {
                raw.remove(&(table, row));
                rows.remove(table, row);
                return Ok(());
            }
            Change::Whole(columns) => {
                let mut values = RawRow::new();
                for (column, json) in *columns {
                    let (column, _, datum) = read(subscription, table, row, column, json)?;
                    values.insert(column, datum);
                }
                raw.entry((table, row)).insert_entry(values).into_mut()
            }
            Change::Modify(columns) => {
                let values = raw.get_mut(&(table, row)).ok_or(ReplicaError::UnknownRow { table, row })?;
                for (column, json) in *columns {
                    let (column, holds_many, difference) = read(subscription, table, row, column, json)?;
                    let value = values.entry(column).or_insert_with(|| difference.empty());
                    let bad = |cause| ReplicaError::BadValue { table, row, column, cause };
                    value.apply(difference, holds_many).map_err(bad)?;
                }
                values
            }
        };
        Ok(rows.put(&Columns { table, row, values })?)
    }
}

fn read(
    subscription: &Subscription,
    table: Table,
    row: Uuid,
    column: &str,
    json: &Value,
) -> Result<(&'static str, bool, Datum), ReplicaError> {
    let Some((column, holds_many)) = subscription.holds_many(table, column) else {
        return Err(ReplicaError::UnknownColumn { table, column: column.to_owned() });
    };
    let bad = |cause| ReplicaError::BadValue { table, row, column, cause };
    Ok((column, holds_many, Datum::parse(json).map_err(bad)?))
}

impl<'a> Change<'a> {
    fn parse(format: UpdateFormat, json: &'a Value) -> Result<Self, ReplicaError> {
        let change = json.as_object().ok_or(ReplicaError::Shapeless)?;
        let columns = |name: &str| change.get(name).and_then(Value::as_object);
        match format {
            UpdateFormat::Rows => match columns("new") {
                Some(new) => Ok(Self::Whole(new)),
                None if change.contains_key("old") => Ok(Self::Delete),
                None => Err(ReplicaError::Shapeless),
            },
            UpdateFormat::Differences => {
                if change.contains_key("delete") {
                    return Ok(Self::Delete);
                }
                match (columns("initial").or_else(|| columns("insert")), columns("modify")) {
                    (Some(whole), None) => Ok(Self::Whole(whole)),
                    (None, Some(difference)) => Ok(Self::Modify(difference)),
                    _ => Err(ReplicaError::Shapeless),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use UpdateFormat::{Differences, Rows as WholeRows};

    const PORT: &str = "00000000-0000-0000-0000-000000000001";

    fn replica() -> Replica {
        let optional = |key: &str| json!({"type": {"key": key, "min": 0, "max": 1}});
        let many = |key: &str| json!({"type": {"key": key, "min": 0, "max": "unlimited"}});
        let map = json!({"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}});
        Replica::new(Subscription::new(&json!({"tables": {
            "Open_vSwitch": {"columns": {"next_cfg": {"type": "integer"}, "cur_cfg": {"type": "integer"}}},
            "Port": {"columns": {
                "name": {"type": "string"}, "interfaces": many("uuid"), "tag": optional("integer"),
                "trunks": many("integer"), "other_config": map,
            }},
        }})))
    }

    fn port(replica: &Replica) -> super::super::PortRow {
        (**replica.rows.ports.values().next().unwrap()).clone()
    }

    fn with_port(columns: Value) -> Replica {
        let mut replica = replica();
        replica.apply(Differences, &json!({"Port": {PORT: {"initial": columns}}})).unwrap();
        replica
    }

    fn modify(replica: &mut Replica, columns: Value) {
        replica.apply(Differences, &json!({"Port": {PORT: {"modify": columns}}})).unwrap();
    }

    #[test]
    fn an_initial_row_has_defaults_for_what_it_omits() {
        let replica = with_port(json!({"name": "p1", "interfaces": ["uuid", PORT], "tag": 10}));
        let row = port(&replica);
        assert_eq!((row.name.as_str(), row.tag, row.trunks.len()), ("p1", Some(10), 0));
        assert_eq!(row.interfaces, [PORT.parse().unwrap()].into());
    }

    #[test]
    fn an_optional_column_is_set_and_cleared() {
        let mut replica = with_port(json!({"name": "p1"}));
        modify(&mut replica, json!({"tag": 10}));
        assert_eq!(port(&replica).tag, Some(10));
        modify(&mut replica, json!({"tag": 11}));
        assert_eq!(port(&replica).tag, Some(11));
        modify(&mut replica, json!({"tag": ["set", []]}));
        assert_eq!(port(&replica).tag, None);
    }

    #[test]
    fn a_set_is_toggled_even_when_the_row_omitted_it() {
        let mut replica = with_port(json!({"name": "p1"}));
        modify(&mut replica, json!({"trunks": ["set", [1, 2]]}));
        assert_eq!(port(&replica).trunks, [1, 2].into());
        modify(&mut replica, json!({"trunks": 2}));
        assert_eq!(port(&replica).trunks, [1].into());
    }

    #[test]
    fn a_map_entry_sent_again_is_deleted() {
        let mut replica = with_port(json!({"name": "p1"}));
        modify(&mut replica, json!({"other_config": ["map", [["a", "b"]]]}));
        assert_eq!(port(&replica).other_config.len(), 1);
        modify(&mut replica, json!({"other_config": ["map", [["a", "b"]]]}));
        assert_eq!(port(&replica).other_config.len(), 0);
    }

    #[test]
    fn a_deleted_row_is_gone() {
        let mut replica = with_port(json!({"name": "p1"}));
        replica.apply(Differences, &json!({"Port": {PORT: {"delete": null}}})).unwrap();
        assert_eq!(*replica.rows(), Rows::default());
    }

    #[test]
    fn whole_rows_replace_each_other() {
        let mut replica = replica();
        let new = json!({"name": "p1", "tag": ["set", []], "trunks": ["set", [1, 2]]});
        replica.apply(WholeRows, &json!({"Port": {PORT: {"new": new}}})).unwrap();
        assert_eq!(port(&replica).trunks, [1, 2].into());
        let (old, new) = (json!({"trunks": ["set", [1, 2]]}), json!({"name": "p1", "tag": 5, "trunks": 2}));
        replica.apply(WholeRows, &json!({"Port": {PORT: {"old": old, "new": new}}})).unwrap();
        assert_eq!((port(&replica).trunks, port(&replica).tag), ([2].into(), Some(5)));
        replica.apply(WholeRows, &json!({"Port": {PORT: {"old": {"name": "p1"}}}})).unwrap();
        assert_eq!(*replica.rows(), Rows::default());
    }

    #[test]
    fn rows_given_away_do_not_change() {
        let mut replica = with_port(json!({"name": "p1", "tag": 1}));
        let before = replica.rows();
        modify(&mut replica, json!({"tag": 2}));
        assert_eq!(before.ports.values().next().unwrap().tag, Some(1));
        assert_eq!(port(&replica).tag, Some(2));
    }

    #[test]
    fn malformed_updates_are_errors() {
        for updates in [
            json!([]),
            json!({"Port": 5}),
            json!({"Nonsense": {}}),
            json!({"Port": {"x": {"insert": {}}}}),
            json!({"Port": {PORT: null}}),
            json!({"Port": {PORT: {}}}),
            json!({"Port": {PORT: {"insert": {"nonsense": 1}}}}),
            json!({"Port": {PORT: {"insert": {"name": {}}}}}),
            json!({"Port": {PORT: {"insert": {"name": 5}}}}),
            json!({"Port": {PORT: {"insert": {"tag": 4096}}}}),
            json!({"Port": {PORT: {"insert": {"tag": ["set", [1, 2]]}}}}),
            json!({"Port": {PORT: {"insert": {"trunks": ["set", [-1]]}}}}),
            json!({"Port": {PORT: {"insert": {"trunks": ["map", []]}}}}),
            json!({"Port": {PORT: {"insert": {"other_config": "x"}}}}),
            json!({"Port": {PORT: {"insert": {"other_config": ["map", [["a", 1]]]}}}}),
            json!({"Port": {"00000000-0000-0000-0000-000000000002": {"modify": {"tag": 1}}}}),
        ] {
            let mut replica = with_port(json!({"name": "p1"}));
            assert!(replica.apply(Differences, &updates).is_err(), "{updates}");
        }
    }

    #[test]
    fn an_update_among_a_thousand_ports_is_cheap() {
        let mut replica = replica();
        let uuid = |n: u32| format!("00000000-0000-0000-0000-{n:012x}");
        let ports = (0..1000).map(|n| (uuid(n), json!({"initial": {"name": format!("p{n}")}})));
        let ports: Map<String, Value> = ports.collect();
        replica.apply(Differences, &json!({ "Port": ports })).unwrap();
        let started = std::time::Instant::now();
        for tag in 0..100 {
            let held = replica.rows();
            replica.apply(Differences, &json!({"Port": {uuid(7): {"modify": {"tag": tag}}}})).unwrap();
            drop(held);
        }
        let each = started.elapsed() / 100;
        eprintln!("{each:?} for one update, unoptimised");
        assert!(each.as_millis() < 5, "{each:?} for one update");
    }
}
