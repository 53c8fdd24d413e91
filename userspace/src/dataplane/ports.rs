//! The tables that make a device a port: `SLOTS`, `PORTS` and `DEVICES`.

use aya::maps::{Array, DevMap, MapData};
use trunkline_core::abi;

use super::error::Cause;
use super::pod::Raw;
use super::{DataplaneError, InstalledPort, PortNo};

/// The three tables.
pub(super) struct PortTables {
    slots: Array<MapData, Raw<abi::Slot>>,
    ports: Array<MapData, Raw<abi::Port>>,
    devices: DevMap<MapData>,
}

impl PortTables {
    pub(super) fn new(
        slots: Array<MapData, Raw<abi::Slot>>,
        ports: Array<MapData, Raw<abi::Port>>,
        devices: DevMap<MapData>,
    ) -> Self {
        Self { slots, ports, devices }
    }

    /// Enters a port, or overwrites it.
    ///
    /// # Errors
    /// A table could not be written, or the device is gone.
    pub(super) fn enter(&mut self, port: PortNo, new: &InstalledPort) -> Result<(), DataplaneError> {
        let place = u32::from(port.0);
        let fail = |operation, cause: Cause| DataplaneError::new(operation, &new.device, cause);
        // Without PORT_TARGET no program reads the port's place in DEVICES, and what is there may stay.
        if new.rules.has(abi::PORT_TARGET) {
            self.devices.set(place, new.ifindex, None, 0).map_err(|e| fail("send to", e.into()))?;
        }
        self.ports.set(place, Raw(new.rules), 0).map_err(|e| fail("write the rules of", e.into()))?;
        let slot = abi::Slot { ifindex: new.ifindex, port_no: place };
        self.slots
            .set(new.ifindex % abi::IFINDEX_SLOTS, Raw(slot), 0)
            .map_err(|e| fail("enter the interface index of", e.into()))
    }

    /// Changes the rules of a port and nothing else.
    ///
    /// # Errors
    /// The table could not be written.
    pub(super) fn overwrite_rules(&mut self, port: PortNo, rules: &abi::Port) -> Result<(), DataplaneError> {
        self.ports
            .set(u32::from(port.0), Raw(*rules), 0)
            .map_err(|e| DataplaneError::new("write the rules of", format!("port {}", port.0), e))
    }

    /// Takes a port out, trying both tables by which a program would find it.
    ///
    /// # Errors
    /// The first table that could not be written.
    pub(super) fn clear(&mut self, port: PortNo, old: &InstalledPort) -> Result<(), DataplaneError> {
        let fail = |operation, cause: Cause| DataplaneError::new(operation, &old.device, cause);
        let slot = old.ifindex % abi::IFINDEX_SLOTS;
        let rules = self.ports.set(u32::from(port.0), Raw(abi::Port::UNUSED), 0);
        let slot = self.slots.set(slot, Raw(abi::Slot::default()), 0);
        rules.map_err(|e| fail("clear the rules of", e.into()))?;
        slot.map_err(|e| fail("clear the interface index of", e.into()))
    }
}
