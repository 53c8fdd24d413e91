//! trunkline, the agent and its command line, as a library.

pub mod dataplane;
pub mod links;
