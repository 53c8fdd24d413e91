//! What to ask the server for, and which of it this server has.
//!
//! Older Open vSwitch lacks some tables and columns; what is missing is not subscribed to and reads as its
//! default. Columns of statistics and status are left out: they change every few seconds and say nothing about
//! forwarding.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The tables that [`Rows`](super::Rows) mirrors.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Table {
    OpenVSwitch,
    Bridge,
    Port,
    Interface,
    Mirror,
    Manager,
    FlowSampleCollectorSet,
}

impl Table {
    pub(super) const ALL: [Self; 7] = [
        Self::OpenVSwitch,
        Self::Bridge,
        Self::Port,
        Self::Interface,
        Self::Mirror,
        Self::Manager,
        Self::FlowSampleCollectorSet,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::OpenVSwitch => "Open_vSwitch",
            Self::Bridge => "Bridge",
            Self::Port => "Port",
            Self::Interface => "Interface",
            Self::Mirror => "Mirror",
            Self::Manager => "Manager",
            Self::FlowSampleCollectorSet => "Flow_Sample_Collector_Set",
        }
    }

    pub(super) fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }

    /// The columns that the typed rows are read from.
    pub(super) const fn columns(self) -> &'static [&'static str] {
        match self {
            Self::OpenVSwitch => {
                &["bridges", "next_cfg", "cur_cfg", "ovs_version", "other_config", "manager_options"]
            }
            Self::Bridge => &[
                "name",
                "ports",
                "datapath_type",
                "flood_vlans",
                "mirrors",
                "controller",
                "fail_mode",
                "flow_tables",
                "stp_enable",
                "rstp_enable",
                "mcast_snooping_enable",
                "netflow",
                "sflow",
                "ipfix",
                "auto_attach",
                "other_config",
            ],
            Self::Port => &[
                "name",
                "interfaces",
                "vlan_mode",
                "tag",
                "trunks",
                "cvlans",
                "protected",
                "bond_mode",
                "bond_fake_iface",
                "fake_bridge",
                "lacp",
                "qos",
                "other_config",
            ],
            Self::Interface => &[
                "name",
                "type",
                "options",
                "ofport",
                "error",
                "ifindex",
                "ingress_policing_rate",
                "ingress_policing_burst",
                "ingress_policing_kpkts_rate",
                "ingress_policing_kpkts_burst",
                "bfd",
                "cfm_mpid",
                "lldp",
                "mtu_request",
                "other_config",
                "external_ids",
            ],
            Self::Mirror => &[
                "name",
                "select_all",
                "select_src_port",
                "select_dst_port",
                "select_vlan",
                "output_port",
                "output_vlan",
            ],
            Self::Manager => &["target", "connection_mode"],
            Self::FlowSampleCollectorSet => &["bridge"],
        }
    }
}

/// The columns to subscribe to, and which of them hold more than one value.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Subscription {
    tables: BTreeMap<Table, BTreeMap<&'static str, bool>>,
}

impl Subscription {
    /// Everything wanted that the server's schema (`get_schema`) has.
    pub(super) fn new(schema: &Value) -> Self {
        let mut tables = BTreeMap::new();
        for table in Table::ALL {
            let columns = &schema["tables"][table.name()]["columns"];
            let existing = table.columns().iter().filter_map(|name| {
                let kind = &columns.get(name)?["type"];
                Some((*name, holds_many(kind)))
            });
            let existing: BTreeMap<&'static str, bool> = existing.collect();
            if !existing.is_empty() {
                tables.insert(table, existing);
            }
        }
        Self { tables }
    }

    /// Whether the schema has nothing that is wanted.
    pub(super) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Whether a column can hold more than one value; `None` if it was not subscribed to.
    pub(super) fn holds_many(&self, table: Table, column: &str) -> Option<(&'static str, bool)> {
        self.tables.get(&table)?.get_key_value(column).map(|(name, many)| (*name, *many))
    }

    /// The `<monitor-requests>` of RFC 7047 section 4.1.5.
    pub(super) fn requests(&self) -> Value {
        let request = |(table, columns): (&Table, &BTreeMap<&'static str, bool>)| {
            let columns: Vec<_> = columns.keys().collect();
            (table.name().to_owned(), json!([{ "columns": columns }]))
        };
        Value::Object(self.tables.iter().map(request).collect())
    }
}

/// RFC 7047 section 3.2: a type is an atomic type's name, or an object whose `max` is a number or `"unlimited"`.
fn holds_many(kind: &Value) -> bool {
    match kind.get("max") {
        Some(Value::Number(max)) => max.as_i64() != Some(1),
        Some(_) => true,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_exists_is_subscribed_to() {
        let schema = json!({"tables": {
            "Port": {"columns": {
                "name": {"type": "string"},
                "tag": {"type": {"key": "integer", "min": 0, "max": 1}},
                "trunks": {"type": {"key": "integer", "min": 0, "max": 4096}},
                "other_config": {"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}},
                "statistics": {"type": {"key": "string", "value": "integer", "min": 0, "max": "unlimited"}},
            }},
            "SSL": {"columns": {"name": {"type": "string"}}},
        }});
        let subscription = Subscription::new(&schema);
        assert_eq!(
            subscription.requests(),
            json!({"Port": [{"columns": ["name", "other_config", "tag", "trunks"]}]})
        );
        assert_eq!(subscription.holds_many(Table::Port, "tag"), Some(("tag", false)));
        assert_eq!(subscription.holds_many(Table::Port, "trunks"), Some(("trunks", true)));
        assert_eq!(subscription.holds_many(Table::Port, "other_config"), Some(("other_config", true)));
        assert_eq!(subscription.holds_many(Table::Port, "statistics"), None);
        assert_eq!(subscription.holds_many(Table::Bridge, "name"), None);
    }

    #[test]
    fn a_schema_of_another_shape_subscribes_to_nothing() {
        for schema in [json!(null), json!({"tables": []}), json!({"tables": {"Port": 5}})] {
            assert_eq!(Subscription::new(&schema), Subscription::default(), "{schema}");
        }
    }
}
