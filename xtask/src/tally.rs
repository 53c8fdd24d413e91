//! Counts test results from what the runners print.

use std::fmt;
use std::iter::Sum;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |sum, Self { passed, failed, skipped }| Self {
            passed: sum.passed + passed,
            failed: sum.failed + failed,
            skipped: sum.skipped + skipped,
        })
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// Reads the output of `cargo test`, which may run several test binaries, line by line.
///
/// libtest's closing lines count; its "ignored" are skips. A test that finds at run time that it cannot run here
/// writes the line `skipped: NAME: REASON` to `std::io::stdout()`, which libtest does not capture, and returns;
/// libtest counts it as passed, and that is taken back here.
#[derive(Default)]
pub(crate) struct Reader {
    tally: Tally,
    /// Skips of the test binary that has not closed yet.
    open_skips: u32,
}

impl Reader {
    pub(crate) fn line(&mut self, line: &str) {
        if line.starts_with("skipped: ") || line.contains(" ... skipped: ") {
            self.open_skips += 1;
        } else if line.starts_with("test result: ") {
            let passed = count(line, "passed");
            let skipped = self.open_skips.min(passed);
            self.tally.passed += passed - skipped;
            self.tally.failed += count(line, "failed");
            self.tally.skipped += count(line, "ignored") + skipped;
            self.open_skips = 0;
        }
    }

    /// The result. A runner that failed without a failed test (it did not build, or crashed) counts as one.
    pub(crate) fn finish(mut self, success: bool) -> Tally {
        if !success && self.tally.failed == 0 {
            self.tally.failed = 1;
        }
        self.tally
    }
}

/// The number before a word such as `passed;`.
fn count(line: &str, what: &str) -> u32 {
    let words: Vec<_> = line.split_whitespace().collect();
    let pair = words.windows(2).find(|pair| pair[1].trim_end_matches(';') == what);
    pair.and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str], success: bool) -> Tally {
        let mut reader = Reader::default();
        lines.iter().for_each(|line| reader.line(line));
        reader.finish(success)
    }

    #[test]
    fn adds_up_closing_lines() {
        let lines = [
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s",
        ];
        assert_eq!(read(&lines, false), Tally { passed: 7, failed: 2, skipped: 1 });
    }

    #[test]
    fn skips_at_run_time_are_not_passes() {
        let lines = [
            "skipped: tcx_attaches: the kernel has no tcx",
            "test other ... skipped: other: the kernel has no openvswitch module",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ];
        assert_eq!(read(&lines, true), Tally { passed: 1, failed: 0, skipped: 2 });
    }

    #[test]
    fn a_runner_that_did_not_build_is_a_failure() {
        assert_eq!(read(&[], false), Tally { passed: 0, failed: 1, skipped: 0 });
    }
}
