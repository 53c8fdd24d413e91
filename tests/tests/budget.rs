//! The programs' cost where no machine's mood shows: instructions and memory, against `tests/budget.json`.
//!
//! What a program weighs depends on the kernel as well: the verifier's paths were pruned more or less eagerly from
//! version to version, and it replaces calls by more or fewer instructions. So the budget names the kernel it was measured
//! with; that one must keep to it, another one may exceed it by [`ELSEWHERE`]. The memory of maps is worked out from their
//! sizes, and is the same everywhere.
//!
//! To raise the budget on purpose: `TRUNKLINE_RAISE_BUDGET=1 cargo xtask test program -- budget`, and commit the file
//! together with what costs that much. Needs CAP_BPF and CAP_NET_ADMIN.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::{env, fs};

use aya::maps::{MapInfo, MapType};
use aya::programs::loaded_programs;
use serde::{Deserialize, Serialize};
use trunkline::dataplane::{Kernel, Options};

const RAISE: &str = "TRUNKLINE_RAISE_BUDGET";
/// What kernels other than the budget's may need, as a multiple of it.
const ELSEWHERE: f64 = 4.0;
/// What a raised budget leaves room for, as a multiple of what was measured.
const ROOM: f64 = 1.05;
/// The agent's table of stations unless the operator chooses another.
const STATIONS: u32 = 65_536;

/// Maps that have something for each CPU, and are not of the kernel's kinds for that.
const BY_CPU: [&str; 2] = ["COUNTERS", "FLOWS"];

#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
struct Budget {
    /// The kernel that it was measured with, as major and minor version.
    kernel: String,
    programs: BTreeMap<String, Program>,
    /// Octets of all maps together, but for each CPU's.
    map_octets: u64,
    /// The same of each CPU.
    map_octets_per_cpu: u64,
}

#[derive(Clone, Copy, Serialize, Deserialize, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
struct Program {
    /// Instructions that the verifier followed, on all paths.
    verified: u64,
    /// Instructions of the program as it runs, before they are made the machine's.
    instructions: u64,
}

#[test]
fn the_programs_and_maps_keep_to_their_budget() {
    let _kernel = Kernel::load(Options { stations: STATIONS, log: false })
        .expect("the programs load and pass the verifier");
    let now = measured();
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("budget.json");
    if env::var_os(RAISE).is_some() {
        let text = serde_json::to_string_pretty(&with_room(now)).expect("a budget is JSON") + "\n";
        fs::write(&file, text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        return;
    }
    let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let budget = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let exceeded = exceeded(&budget, &now);
    assert!(
        exceeded.is_empty(),
        "{}\nIf it is worth that, raise the budget on purpose: `{RAISE}=1 cargo xtask test program -- budget`, and commit \
         tests/budget.json with the reason.",
        exceeded.join("\n")
    );
}

/// What this process has loaded.
fn measured() -> Budget {
    let programs = opened("prog_id:");
    let loaded = loaded_programs().filter_map(Result::ok).filter(|program| programs.contains(&program.id()));
    let programs = loaded.filter_map(|program| {
        // Kernels before 5.16 do not tell; then nothing is exceeded.
        let verified = program.verified_instruction_count().unwrap_or(0).into();
        let instructions = u64::from(program.size_translated()?) / 8;
        Some((program.name_as_str()?.to_owned(), Program { verified, instructions }))
    });
    let mut budget = Budget {
        kernel: kernel_version(),
        programs: programs.collect(),
        map_octets: 0,
        map_octets_per_cpu: 0,
    };
    let cpus = aya::util::nr_cpus().expect("a number of CPUs") as u64;
    for id in opened("map_id:") {
        let info = MapInfo::from_id(id).expect("a map that is open exists");
        let value = u64::from(info.value_size()).next_multiple_of(8);
        let entries = u64::from(info.max_entries());
        match info.map_type().expect("a type") {
            MapType::PerCpuArray => budget.map_octets_per_cpu += value * entries,
            // As many entries as there are CPUs, or a multiple.
            MapType::Array if info.name_as_str().is_some_and(|name| BY_CPU.contains(&name)) => {
                budget.map_octets_per_cpu += value * entries / cpus;
            }
            // `struct htab_elem`, and a bucket for each (Linux kernel/bpf/hashtab.c).
            MapType::Hash => {
                let element = 48 + u64::from(info.key_size()).next_multiple_of(8) + value;
                budget.map_octets += element * entries + 16 * entries.next_power_of_two();
            }
            // A pointer to a device and what belongs to it, all in one place (kernel/bpf/devmap.c).
            MapType::DevMap => budget.map_octets += 8 * entries,
            MapType::RingBuf => budget.map_octets += entries,
            _ => budget.map_octets += value * entries,
        }
    }
    budget
}

/// The numbers of the programs or maps that this process has open.
fn opened(label: &str) -> BTreeSet<u32> {
    let files = fs::read_dir("/proc/self/fdinfo").expect("/proc").flatten();
    let infos = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    let number = |info: String| info.lines().find_map(|line| line.strip_prefix(label)?.trim().parse().ok());
    infos.filter_map(number).collect()
}

fn kernel_version() -> String {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    release.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// A sentence for everything that costs more than it may.
fn exceeded(budget: &Budget, now: &Budget) -> Vec<String> {
    let factor = if budget.kernel == now.kernel { 1.0 } else { ELSEWHERE };
    let mut sentences = vec![];
    let mut compare = |what: String, is: u64, may: u64, factor: f64| {
        let may = (may as f64 * factor) as u64;
        if is > may {
            sentences.push(format!("{what}: {is}, and the budget is {may} with Linux {}", now.kernel));
        }
    };
    for (name, program) in &now.programs {
        let Program { verified, instructions } =
            budget.programs.get(name).copied().unwrap_or(Program { verified: 0, instructions: 0 });
        compare(format!("{name}: verified instructions"), program.verified, verified, factor);
        compare(format!("{name}: instructions"), program.instructions, instructions, factor);
    }
    compare("octets of maps".to_owned(), now.map_octets, budget.map_octets, 1.0);
    compare("octets of maps for each CPU".to_owned(), now.map_octets_per_cpu, budget.map_octets_per_cpu, 1.0);
    let gone = budget.programs.keys().filter(|name| !now.programs.contains_key(*name));
    sentences.extend(gone.map(|name| format!("{name} has a budget, but is no program (any more)")));
    sentences
}

fn with_room(now: Budget) -> Budget {
    let room = |number: u64| (number as f64 * ROOM).ceil() as u64;
    let programs = now.programs.into_iter().map(|(name, Program { verified, instructions })| {
        (name, Program { verified: room(verified), instructions: room(instructions) })
    });
    Budget { programs: programs.collect(), ..now }
}

#[test]
fn the_budget_tells_what_exceeds_it() {
    let program = |verified, instructions| [("p".to_owned(), Program { verified, instructions })].into();
    let budget = |kernel: &str, programs| Budget {
        kernel: kernel.to_owned(),
        programs,
        map_octets: 100,
        map_octets_per_cpu: 10,
    };
    let committed = budget("6.18", program(1000, 100));
    assert_eq!(exceeded(&committed, &budget("6.18", program(1000, 100))), <[String; 0]>::default());
    assert_eq!(exceeded(&committed, &budget("6.18", program(1001, 101))).len(), 2);
    // Another kernel has four times as much, but not for maps.
    assert_eq!(exceeded(&committed, &budget("5.15", program(4000, 400))), <[String; 0]>::default());
    assert_eq!(exceeded(&committed, &budget("5.15", program(4001, 100))).len(), 1);
    let larger = Budget { map_octets: 101, ..budget("5.15", program(1, 1)) };
    assert_eq!(exceeded(&committed, &larger).len(), 1);
    // A program without a budget, and a budget without a program.
    assert_eq!(exceeded(&committed, &budget("6.18", [].into())).len(), 1);
    let unknown = budget("6.18", [("q".to_owned(), Program { verified: 1, instructions: 1 })].into());
    assert_eq!(exceeded(&committed, &unknown).len(), 3);
}
