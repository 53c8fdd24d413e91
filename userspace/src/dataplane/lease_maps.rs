//! The leases as the programs read them: map `BRIDGES`, and the variable `GENERATION`.

use aya::maps::{Array, MapData};
use rustix::time::{ClockId, clock_gettime};
use trunkline_core::abi;

use super::{BridgeNo, DataplaneError, lease::LeaseTable, pod::Raw};

/// Both maps.
pub struct KernelLeases {
    bridges: Array<MapData, Raw<abi::Bridge>>,
    generation: Array<MapData, u64>,
}

impl KernelLeases {
    pub(super) fn new(bridges: Array<MapData, Raw<abi::Bridge>>, generation: Array<MapData, u64>) -> Self {
        Self { bridges, generation }
    }
}

impl LeaseTable for KernelLeases {
    fn write(&mut self, bridge: BridgeNo, value: abi::Bridge) -> Result<(), DataplaneError> {
        self.bridges
            .set(u32::from(bridge.0), Raw(value), 0)
            .map_err(|e| DataplaneError::new("write the lease of", format!("bridge {}", bridge.0), e))
    }

    fn lease_s(&self, bridge: BridgeNo) -> Result<u32, DataplaneError> {
        let value = self.bridges.get(&u32::from(bridge.0), 0);
        let value =
            value.map_err(|e| DataplaneError::new("read the lease of", format!("bridge {}", bridge.0), e))?;
        Ok(value.0.lease_s)
    }

    /// As the programs do it: the time is the generation.
    fn invalidate_flows(&mut self) -> Result<(), DataplaneError> {
        let now = clock_gettime(ClockId::Monotonic);
        let ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        self.generation
            .set(0, ns, 0)
            .map_err(|e| DataplaneError::new("invalidate", "the flow cache of the programs", e))
    }
}
