//! How long this machine may take.

use std::sync::OnceLock;
use std::time::Duration;

const VARIABLE: &str = "TRUNKLINE_PATIENCE";

/// A wait of `usual` on a machine of today; longer by the factor in `TRUNKLINE_PATIENCE` (1 to 100) on slower ones, such
/// as an emulated one. For waits that end as soon as what is waited for is there, and for silences from which a test
/// concludes that nothing more will come; never for how long something is *allowed* to take.
///
/// # Panics
/// When the variable is no such number.
pub fn patience(usual: Duration) -> Duration {
    usual * factor()
}

/// Whether this machine has been called a slow one. There, Open vSwitch may learn a station so late after its frame that
/// the agent, which compares the tables every second, takes it out of the fast path's once.
///
/// # Panics
/// As [`patience`].
pub fn is_slow() -> bool {
    factor() > 1
}

fn factor() -> u32 {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    *FACTOR.get_or_init(|| {
        let factor = std::env::var(VARIABLE).unwrap_or_else(|_| "1".to_owned());
        match factor.parse() {
            Ok(factor @ 1..=100) => factor,
            _ => panic!("{VARIABLE} is a number from 1 to 100, not {factor:?}"),
        }
    })
}
