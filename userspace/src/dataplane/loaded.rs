//! The result of loading: the programs, with constants that cannot change any more, and their maps.

use aya::maps::{Map, MapData, MapError};
use aya::{Ebpf, EbpfLoader};
use trunkline_core::table::{Shape, Table};
use trunkline_core::{Ticks, abi};

use super::host::{Cpus, has_tcx};
use super::learned::LearnedCounts;
use super::lease_maps::KernelLeases;
use super::mapping::{CounterMemory, StationMemory};
use super::pod::Raw;
use super::ports::PortTables;
use super::programs::{self, LoadError};
use super::stations::Stations;
use super::trace::Tracer;

/// The map of the programs' one variable.
const GENERATION: &str = ".bss";

/// What is fixed when the programs are loaded.
#[derive(Clone, Copy)]
pub(super) struct Constants {
    /// Most stations on all bridges together.
    pub(super) stations: u32,
    /// Whether the programs log rare events.
    pub(super) log: bool,
    /// How many CPUs the maps have room for.
    pub(super) cpus: Cpus,
    /// The clock that the flow cache uses.
    pub(super) ticks: Ticks,
}

/// The loaded programs and their maps. Nothing is attached yet.
pub(super) struct Loaded {
    /// The programs, and the maps that have not been taken.
    pub(super) ebpf: Ebpf,
    /// Whether the tc programs are among those loaded.
    pub(super) has_tc: bool,
    pub(super) ports: PortTables,
    pub(super) learned: LearnedCounts,
    pub(super) leases: KernelLeases,
    pub(super) stations: Stations,
    pub(super) counters: CounterMemory,
    pub(super) tracer: Tracer,
}

impl Loaded {
    /// Loads the programs and takes their maps.
    ///
    /// # Errors
    /// No privileges, a kernel that is too old, or an object of another build.
    pub(super) fn new(constants: Constants) -> Result<Self, LoadError> {
        let Constants { stations, log, cpus, ticks } = constants;
        let shape = Shape::new(stations, secrets()?);
        let flow_sets = cpus.flow_sets();
        let level: u8 = if log { aya_log::Level::Debug as u8 } else { 0 };
        let has_tc = has_tcx();
        let mut ebpf = programs::load(
            EbpfLoader::new()
                .map_max_entries("FDB", shape.buckets())
                .map_max_entries("COUNTERS", cpus.possible)
                .map_max_entries("FLOWS", (cpus.running * flow_sets).max(1))
                .override_global(aya_log::LEVEL, &level, true)
                .override_global(abi::ABI_SYMBOL, &abi::ABI_VERSION, true)
                .override_global("TRUNKLINE_FDB", &Raw(shape), true)
                .override_global("TRUNKLINE_TICKS", &Raw(ticks), true)
                .override_global("TRUNKLINE_FLOWS", &flow_sets, true),
            has_tc,
        )?;
        let (slots, ports, devices) =
            (map(&mut ebpf, "SLOTS")?, map(&mut ebpf, "PORTS")?, map(&mut ebpf, "DEVICES")?);
        Ok(Self {
            ports: PortTables::new(slots, ports, devices),
            learned: LearnedCounts::new(map(&mut ebpf, "LEARNED")?),
            leases: KernelLeases::new(map(&mut ebpf, "BRIDGES")?, map(&mut ebpf, GENERATION)?),
            stations: map_stations(&mut ebpf, shape)?,
            counters: map_counters(&mut ebpf, cpus.possible)?,
            tracer: Tracer::new(map(&mut ebpf, "TRACE")?),
            ebpf,
            has_tc,
        })
    }
}

/// Takes a map, which can be taken once.
pub(super) fn map<M: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, LoadError> {
    let map = ebpf.take_map(name).ok_or(LoadError::Incomplete(name))?;
    M::try_from(map).map_err(|_| LoadError::Incomplete(name))
}

/// Takes the maps `FDB` and `FDB_HEADER` into this process's memory.
fn map_stations(ebpf: &mut Ebpf, shape: Shape) -> Result<Stations, LoadError> {
    let (fdb, header) = (array(ebpf, "FDB")?, array(ebpf, "FDB_HEADER")?);
    let memory = StationMemory::new(fdb, shape.buckets(), header);
    let memory = memory.map_err(|error| LoadError::Need("the table of stations", error.into()))?;
    Ok(Stations::new(Table::new(memory, shape)))
}

/// Takes the map `COUNTERS` into this process's memory.
fn map_counters(ebpf: &mut Ebpf, cpus: u32) -> Result<CounterMemory, LoadError> {
    let memory = CounterMemory::new(array(ebpf, "COUNTERS")?, cpus);
    memory.map_err(|error| LoadError::Need("the counters", error.into()))
}

/// Takes an array map without a type for its values.
fn array(ebpf: &mut Ebpf, name: &'static str) -> Result<MapData, LoadError> {
    match ebpf.take_map(name) {
        Some(Map::Array(data)) => Ok(data),
        _ => Err(LoadError::Incomplete(name)),
    }
}

/// Draws two numbers that nobody can guess.
fn secrets() -> Result<[u64; 2], LoadError> {
    let mut octets = [0; 16];
    let filled = rustix::rand::getrandom(&mut octets, rustix::rand::GetRandomFlags::empty());
    match filled {
        Ok(16) => Ok(bytemuck::cast(octets)),
        Ok(_) => Err(LoadError::Load("too few random octets".into())),
        Err(error) => Err(LoadError::Need("random octets", error.into())),
    }
}
