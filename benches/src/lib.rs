//! Benchmarks of trunkline: what the loaded programs cost, and how many frames they forward against others.
//!
//! The binary `trunkline-bench` runs the suites; criterion's benches of the core are in `benches/`. Everything that is
//! compared is measured in one run, in rounds whose order rotates, and reported as medians, because machines change
//! speed while they are being measured.

pub mod baseline;
pub mod contestant;
pub mod frame;
pub mod path;
pub mod program;
pub mod rounds;
pub mod save;
pub mod throughput;
