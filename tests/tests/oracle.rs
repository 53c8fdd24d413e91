//! Open vSwitch as the judge: random bridges, FDBs and frames, put to the switching core, to the loaded program (where
//! there are privileges for BPF) and to `ofproto/trace` of several versions.
//!
//! `TRUNKLINE_CASES` is the number of frames for each version, `TRUNKLINE_SEED` repeats a run. A difference is shrunk
//! and written to `tests/cases/`, where every later run finds it; give the file a name and say what it shows.

use std::cell::RefCell;
use std::time::Instant;

use proptest::test_runner::{TestCaseError, TestError};
use trunkline::dataplane::{Kernel, Options};
use trunkline_tests::cases::{Case, DummyOvs, FastPath, OvsBinaries, Tally, any_case, judge, runner};
use trunkline_tests::{number, say, seed};

const DEFAULT_FRAMES: u64 = 5000;
/// Steps of some 50 ms.
const SHRINKING: u32 = 100;

#[test]
fn ovs_3_1_agrees() {
    agrees("ovs_3_1_agrees", "3.1");
}

#[test]
fn ovs_3_5_agrees() {
    agrees("ovs_3_5_agrees", "3.5");
}

#[test]
fn ovs_4_0_agrees() {
    agrees("ovs_4_0_agrees", "4.0");
}

fn agrees(test: &str, version: &str) {
    let binaries = match OvsBinaries::find(version) {
        Ok(binaries) => binaries,
        Err(reason) => return say(&format!("skipped: {test}: {reason}")),
    };
    let kernel = Kernel::load(Options { stations: 1024, log: false });
    let program = if kernel.is_ok() { "core and program" } else { "core" };
    let mut fast_path = FastPath::new(kernel.ok());
    let mut ovs = DummyOvs::start(&binaries);
    for (name, case) in Case::recorded() {
        if let Err(difference) = judge(&case, &mut fast_path, &mut ovs) {
            panic!("recorded case {name}, Open vSwitch {}: {difference}", binaries.version());
        }
    }
    let seed = seed();
    let wanted = number("TRUNKLINE_CASES").unwrap_or(DEFAULT_FRAMES);
    let started = Instant::now();
    let tally = run_random(seed, wanted, &mut fast_path, &mut ovs, &binaries);
    say(&format!(
        "oracle: Open vSwitch {} agrees with {program} on {} frames in {:.1} s (TRUNKLINE_SEED={seed}): {tally}",
        binaries.version(),
        tally.frames(),
        started.elapsed().as_secs_f32(),
    ));
    for label in
        ["keep", "push", "pop", "replace", "vlan_not_admitted", "same_port", "protected", "new_source"]
    {
        assert!(
            tally.of(label) > wanted / 1000,
            "the frames are of all kinds, not {} times {label}",
            tally.of(label)
        );
    }
}

fn run_random(
    seed: u64,
    wanted: u64,
    fast_path: &mut FastPath,
    ovs: &mut DummyOvs,
    binaries: &OvsBinaries,
) -> Tally {
    let judges = RefCell::new((fast_path, ovs));
    let tally = RefCell::new(Tally::default());
    let result = runner(seed, wanted, SHRINKING).run(&any_case(), |case| {
        let (fast_path, ovs) = &mut *judges.borrow_mut();
        tally.borrow_mut().add(&judge(&case, fast_path, ovs).map_err(TestCaseError::fail)?);
        Ok(())
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(_, case)) => {
            let (fast_path, ovs) = &mut *judges.borrow_mut();
            let case = case.shrink(|case| judge(case, fast_path, ovs).is_err());
            let difference = judge(&case, fast_path, ovs).expect_err("it is a failing case");
            let file = case.record(&format!("difference-{seed}")).display().to_string();
            let version = binaries.version();
            panic!("Open vSwitch {version} differs; TRUNKLINE_SEED={seed}, recorded as {file}: {difference}");
        }
        Err(error) => panic!("TRUNKLINE_SEED={seed}: {error}"),
    }
    tally.into_inner()
}
