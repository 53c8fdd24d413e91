//! The configuration as typed rows: the columns that decide about forwarding, and no others.
//!
//! Names and meanings are those of ovs-vswitchd.conf.db(5). Absent optional columns, and columns an older server does not have, are `None`,
//! empty, zero or false.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::columns::{ColumnError, Columns};
use super::schema::Table;
use super::value::Uuid;

/// The database at one moment, between two transactions. Cheap to clone: rows are shared.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Rows {
    /// The one row of `Open_vSwitch`, once `ovs-vsctl init` has run.
    pub open_vswitch: Option<OpenVSwitchRow>,
    /// `Bridge`
    pub bridges: BTreeMap<Uuid, Arc<BridgeRow>>,
    /// `Port`
    pub ports: BTreeMap<Uuid, Arc<PortRow>>,
    /// `Interface`
    pub interfaces: BTreeMap<Uuid, Arc<InterfaceRow>>,
    /// `Mirror`
    pub mirrors: BTreeMap<Uuid, Arc<MirrorRow>>,
    /// `Manager`
    pub managers: BTreeMap<Uuid, Arc<ManagerRow>>,
    /// `Flow_Sample_Collector_Set`
    pub flow_sample_collector_sets: BTreeMap<Uuid, Arc<FlowSampleCollectorSetRow>>,
}

/// A row of `Open_vSwitch`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct OpenVSwitchRow {
    pub bridges: BTreeSet<Uuid>,
    pub next_cfg: i64,
    pub cur_cfg: i64,
    pub ovs_version: Option<String>,
    pub other_config: BTreeMap<String, String>,
    pub manager_options: BTreeSet<Uuid>,
}

/// A row of `Bridge`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct BridgeRow {
    pub name: String,
    pub ports: BTreeSet<Uuid>,
    pub datapath_type: String,
    pub flood_vlans: BTreeSet<u16>,
    pub mirrors: BTreeSet<Uuid>,
    pub controller: BTreeSet<Uuid>,
    pub fail_mode: Option<String>,
    pub flow_tables: BTreeMap<i64, Uuid>,
    pub stp_enable: bool,
    pub rstp_enable: bool,
    pub mcast_snooping_enable: bool,
    pub netflow: Option<Uuid>,
    pub sflow: Option<Uuid>,
    pub ipfix: Option<Uuid>,
    pub auto_attach: Option<Uuid>,
    pub other_config: BTreeMap<String, String>,
}

/// A row of `Port`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PortRow {
    pub name: String,
    pub interfaces: BTreeSet<Uuid>,
    pub vlan_mode: Option<String>,
    pub tag: Option<u16>,
    pub trunks: BTreeSet<u16>,
    pub cvlans: BTreeSet<u16>,
    pub protected: bool,
    pub bond_mode: Option<String>,
    pub bond_fake_iface: bool,
    pub fake_bridge: bool,
    pub lacp: Option<String>,
    pub qos: Option<Uuid>,
    pub other_config: BTreeMap<String, String>,
}

/// A row of `Interface`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct InterfaceRow {
    pub name: String,
    pub r#type: String,
    pub options: BTreeMap<String, String>,
    pub ofport: Option<i64>,
    pub error: Option<String>,
    pub ifindex: Option<i64>,
    pub ingress_policing_rate: i64,
    pub ingress_policing_burst: i64,
    pub ingress_policing_kpkts_rate: i64,
    pub ingress_policing_kpkts_burst: i64,
    pub bfd: BTreeMap<String, String>,
    pub cfm_mpid: Option<i64>,
    pub lldp: BTreeMap<String, String>,
    pub mtu_request: Option<i64>,
    pub other_config: BTreeMap<String, String>,
    pub external_ids: BTreeMap<String, String>,
}

/// A row of `Mirror`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct MirrorRow {
    pub name: String,
    pub select_all: bool,
    pub select_src_port: BTreeSet<Uuid>,
    pub select_dst_port: BTreeSet<Uuid>,
    pub select_vlan: BTreeSet<u16>,
    pub output_port: Option<Uuid>,
    pub output_vlan: Option<u16>,
}

/// A row of `Manager`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ManagerRow {
    pub target: String,
    pub connection_mode: Option<String>,
}

/// A row of `Flow_Sample_Collector_Set`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct FlowSampleCollectorSetRow {
    pub bridge: Option<Uuid>,
}

impl Rows {
    /// Takes over a row that was inserted or modified.
    pub(super) fn put(&mut self, columns: &Columns<'_>) -> Result<(), ColumnError> {
        let row = columns.row;
        match columns.table {
            Table::OpenVSwitch => self.open_vswitch = Some(OpenVSwitchRow::read(columns)?),
            Table::Bridge => drop(self.bridges.insert(row, Arc::new(BridgeRow::read(columns)?))),
            Table::Port => drop(self.ports.insert(row, Arc::new(PortRow::read(columns)?))),
            Table::Interface => drop(self.interfaces.insert(row, Arc::new(InterfaceRow::read(columns)?))),
            Table::Mirror => drop(self.mirrors.insert(row, Arc::new(MirrorRow::read(columns)?))),
            Table::Manager => drop(self.managers.insert(row, Arc::new(ManagerRow::read(columns)?))),
            Table::FlowSampleCollectorSet => {
                let read = FlowSampleCollectorSetRow::read(columns)?;
                self.flow_sample_collector_sets.insert(row, Arc::new(read));
            }
        }
        Ok(())
    }

    /// Forgets a row. Forgetting what is absent is fine.
    pub(super) fn remove(&mut self, table: Table, row: Uuid) {
        match table {
            Table::OpenVSwitch => self.open_vswitch = None,
            Table::Bridge => drop(self.bridges.remove(&row)),
            Table::Port => drop(self.ports.remove(&row)),
            Table::Interface => drop(self.interfaces.remove(&row)),
            Table::Mirror => drop(self.mirrors.remove(&row)),
            Table::Manager => drop(self.managers.remove(&row)),
            Table::FlowSampleCollectorSet => drop(self.flow_sample_collector_sets.remove(&row)),
        }
    }
}

impl OpenVSwitchRow {
    fn read(columns: &Columns<'_>) -> Result<Self, ColumnError> {
        Ok(Self {
            bridges: columns.uuids("bridges")?,
            next_cfg: columns.integer("next_cfg")?.unwrap_or(0),
            cur_cfg: columns.integer("cur_cfg")?.unwrap_or(0),
            ovs_version: columns.string("ovs_version")?,
            other_config: columns.map("other_config")?,
            manager_options: columns.uuids("manager_options")?,
        })
    }
}

impl BridgeRow {
    fn read(columns: &Columns<'_>) -> Result<Self, ColumnError> {
        Ok(Self {
            name: columns.string("name")?.unwrap_or_default(),
            ports: columns.uuids("ports")?,
            datapath_type: columns.string("datapath_type")?.unwrap_or_default(),
            flood_vlans: columns.vlans("flood_vlans")?,
            mirrors: columns.uuids("mirrors")?,
            controller: columns.uuids("controller")?,
            fail_mode: columns.string("fail_mode")?,
            flow_tables: columns.numbered_uuids("flow_tables")?,
            stp_enable: columns.boolean("stp_enable")?,
            rstp_enable: columns.boolean("rstp_enable")?,
            mcast_snooping_enable: columns.boolean("mcast_snooping_enable")?,
            netflow: columns.uuid("netflow")?,
            sflow: columns.uuid("sflow")?,
            ipfix: columns.uuid("ipfix")?,
            auto_attach: columns.uuid("auto_attach")?,
            other_config: columns.map("other_config")?,
        })
    }
}

impl PortRow {
    fn read(columns: &Columns<'_>) -> Result<Self, ColumnError> {
        Ok(Self {
            name: columns.string("name")?.unwrap_or_default(),
            interfaces: columns.uuids("interfaces")?,
            vlan_mode: columns.string("vlan_mode")?,
            tag: columns.vlan("tag")?,
            trunks: columns.vlans("trunks")?,
            cvlans: columns.vlans("cvlans")?,
            protected: columns.boolean("protected")?,
            bond_mode: columns.string("bond_mode")?,
            bond_fake_iface: columns.boolean("bond_fake_iface")?,
            fake_bridge: columns.boolean("fake_bridge")?,
            lacp: columns.string("lacp")?,
            qos: columns.uuid("qos")?,
            other_config: columns.map("other_config")?,
        })
    }
}

impl InterfaceRow {
    fn read(columns: &Columns<'_>) -> Result<Self, ColumnError> {
        Ok(Self {
            name: columns.string("name")?.unwrap_or_default(),
            r#type: columns.string("type")?.unwrap_or_default(),
            options: columns.map("options")?,
            ofport: columns.integer("ofport")?,
            error: columns.string("error")?,
            ifindex: columns.integer("ifindex")?,
            ingress_policing_rate: columns.integer("ingress_policing_rate")?.unwrap_or(0),
            ingress_policing_burst: columns.integer("ingress_policing_burst")?.unwrap_or(0),
            ingress_policing_kpkts_rate: columns.integer("ingress_policing_kpkts_rate")?.unwrap_or(0),
            ingress_policing_kpkts_burst: columns.integer("ingress_policing_kpkts_burst")?.unwrap_or(0),
            bfd: columns.map("bfd")?,
            cfm_mpid: columns.integer("cfm_mpid")?,
            lldp: columns.map("lldp")?,
            mtu_request: columns.integer("mtu_request")?,
            other_config: columns.map("other_config")?,
            external_ids: columns.map("external_ids")?,
        })
    }
}

impl MirrorRow {
    fn read(columns: &Columns<'_>) -> Result<Self, ColumnError> {
        Ok(Self {
            name: columns.string("name")?.unwrap_or_default(),
            select_all: columns.boolean("select_all")?,
            select_src_port: columns.uuids("select_src_port")?,
            select_dst_port: columns.uuids("select_dst_port")?,
            select_vlan: columns.vlans("select_vlan")?,
            output_port: columns.uuid("output_port")?,
            output_vlan: columns.vlan("output_vlan")?,
        })
    }
}

impl ManagerRow {
    fn read(columns: &Columns<'_>) -> Result<Self, ColumnError> {
        Ok(Self {
            target: columns.string("target")?.unwrap_or_default(),
            connection_mode: columns.string("connection_mode")?,
        })
    }
}

impl FlowSampleCollectorSetRow {
    fn read(columns: &Columns<'_>) -> Result<Self, ColumnError> {
        Ok(Self { bridge: columns.uuid("bridge")? })
    }
}
