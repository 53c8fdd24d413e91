//! What a run can be told by environment variables.

use std::time::{SystemTime, UNIX_EPOCH};

/// A number from the environment, if it is there.
///
/// # Panics
/// When it is no number.
pub fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

/// Where a random run begins: `TRUNKLINE_SEED`, or another place each time.
///
/// # Panics
/// When the variable is no number.
pub fn seed() -> u64 {
    number("TRUNKLINE_SEED").unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
    })
}
