//! The leases as the programs read them: map `BRIDGES`, and the variable `GENERATION`.

use aya::Ebpf;
use aya::maps::{Array, MapData};
use aya::programs::{TestRun as _, TestRunOptions, TestRunResult};
use rustix::time::{ClockId, clock_gettime};
use trunkline_core::abi;

use super::error::Cause;
use super::lease::LeaseTable;
use super::pod::Raw;
use super::programs::{RENEW, xdp};
use super::{BridgeNo, DataplaneError};

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

    /// Starts a new generation as the programs do: its number is the time.
    fn invalidate_flows(&mut self) -> Result<(), DataplaneError> {
        let now = clock_gettime(ClockId::Monotonic);
        let ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        self.generation
            .set(0, ns, 0)
            .map_err(|e| DataplaneError::new("invalidate", "the flow cache of the programs", e))
    }
}

/// Extends the leases that have not run out to `until_s`, and ends those that have. A program does this, so
/// that the test and the write are one step.
///
/// # Errors
/// The program could not be run; no lease is extended.
pub(super) fn extend(ebpf: &mut Ebpf, until_s: u32) -> Result<(), DataplaneError> {
    let fail = |cause: Cause| DataplaneError::new("renew", "leases", cause);
    let question = abi::Renewal { until_s, reserved: [0; 3] };
    let options = TestRunOptions { data_in: Some(bytemuck::bytes_of(&question)), ..TestRunOptions::new() };
    let program = xdp(ebpf, RENEW).map_err(|e| fail(e.into()))?;
    let run: Result<TestRunResult, _> = program.test_run(options);
    run.map(drop).map_err(|e| fail(e.into()))
}
