//! Benchmarks of trunkline: what the loaded programs cost, and how many frames they forward against others.
//!
//! The binary `trunkline-bench` runs the suites; criterion's benches of the core are in `benches/`. Everything that is
//! compared is measured in one run, in rounds whose order rotates, and reported as medians, because machines change
//! speed while they are being measured.

pub mod baseline;
pub mod contestant;
pub mod control;
pub mod flows;
pub mod frame;
mod instruction;
pub mod latency;
pub mod load;
pub mod path;
pub mod plot;
pub mod program;
pub mod report;
pub mod rounds;
pub mod save;
pub mod scale;
pub mod tables;
pub mod tcp;
pub mod throughput;
