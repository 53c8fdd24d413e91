//! Map `LEARNED`: the programs' counts of the stations that each port has.

use aya::maps::{Array, MapData};
use trunkline_core::abi;

use super::{DataplaneError, PortNo};

/// The map, and what was last written to it. Each write is a system call, and mostly nothing has changed.
pub(super) struct LearnedCounts {
    map: Array<MapData, u32>,
    written: Vec<Written>,
}

/// The number of stations that was last written for a port.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Written {
    stations: u32,
    /// How many stations had ever been entered in the table by then.
    inserted: u64,
    /// How often this was written. A program that was counting a station at the time may have overwritten it
    /// once.
    times: u8,
}

impl LearnedCounts {
    pub(super) fn new(map: Array<MapData, u32>) -> Self {
        Self { map, written: vec![Written::default(); abi::MAX_PORTS as usize] }
    }

    /// Corrects the number of a port's stations. `inserted` is how many have ever been entered in the table.
    ///
    /// # Errors
    /// The number could not be written.
    pub(super) fn correct(
        &mut self,
        port: PortNo,
        stations: u32,
        inserted: u64,
    ) -> Result<(), DataplaneError> {
        let last = self.written.get(usize::from(port.0)).copied().unwrap_or_default();
        let same = (last.stations, last.inserted) == (stations, inserted);
        // The programs change the count only when they enter a station.
        if same && last.times >= 2 {
            return Ok(());
        }
        self.map
            .set(u32::from(port.0), stations, 0)
            .map_err(|e| DataplaneError::new("count the stations of", format!("port {}", port.0), e))?;
        if let Some(written) = self.written.get_mut(usize::from(port.0)) {
            *written = Written { stations, inserted, times: if same { last.times + 1 } else { 1 } };
        }
        Ok(())
    }
}
