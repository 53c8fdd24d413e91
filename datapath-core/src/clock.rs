//! The monotonic clock in seconds, from the kernel's count of ticks.
//!
//! A program reads the ticks with one load. A clock in nanoseconds is three calls deep, which is a tenth of
//! the cost of a frame on processors where returns are guarded against speculation.

use bytemuck::{Pod, Zeroable};

/// How ticks (`jiffies`) become seconds. The agent sets it when it loads the programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Ticks {
    /// The count when the monotonic clock was 0.
    first: u64,
    /// Seconds in eight ticks, times 2^35; 0 if the ticks are not to be used.
    eight: u64,
}

impl Ticks {
    /// Ticks that are not used: programs read the clock in nanoseconds instead.
    pub const UNUSED: Self = Self { first: 0, eight: 0 };

    /// Returns the conversion for a kernel with this many ticks a second (`CONFIG_HZ`). The count starts five
    /// minutes before it overflows 32 bits (`INITIAL_JIFFIES`, Linux `include/linux/jiffies.h`).
    pub const fn new(per_second: u32) -> Self {
        if per_second == 0 {
            return Self::UNUSED;
        }
        let per_second = per_second as u64;
        Self { first: (1 << 32) - 300 * per_second, eight: (8 << 35) / per_second }
    }

    /// Returns whether programs use the ticks.
    #[inline(always)]
    pub const fn used(self) -> bool {
        self.eight != 0
    }

    /// Converts a count of ticks into seconds. The result is never ahead of the clock and, for the first nine
    /// years, less than a second behind it, which leases and ages tolerate. A multiplication is cheaper than
    /// a division, and by counting eight ticks at a time the product fits into 64 bits.
    #[inline(always)]
    pub const fn seconds(self, count: u64) -> u32 {
        (((count.wrapping_sub(self.first) >> 3) * self.eight) >> 35) as u32
    }

    /// Returns the first count after this one that may be in another second.
    pub const fn until(self, count: u64) -> u64 {
        let eights = count.wrapping_sub(self.first) >> 3;
        let left = (1 << 35) - (eights * self.eight) % (1 << 35);
        self.first.wrapping_add((eights + left.div_ceil(self.eight)) << 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_never_ahead_of_the_clock_and_hardly_behind() {
        const NINE_YEARS_S: u64 = 9 * 365 * 86_400;
        for per_second in [100, 250, 1000] {
            let ticks = Ticks::new(per_second);
            let hz = u64::from(per_second);
            let first = (1 << 32) - 300 * hz;
            for second in (1..1000).chain((1000..NINE_YEARS_S).step_by(9973)) {
                let count = first + second * hz;
                for (part, expected) in [(0, second - 1..=second), (hz - 1, second - 1..=second)] {
                    let found = u64::from(ticks.seconds(count + part));
                    assert!(
                        expected.contains(&found),
                        "{hz} ticks a second, {second} s and {part} ticks: {found} s"
                    );
                }
                let at_the_end = u64::from(ticks.seconds(count + hz - 1));
                assert!(
                    second > 10_000_000 || at_the_end == second,
                    "{hz} ticks a second, {second} s: {at_the_end} s"
                );
            }
        }
    }

    #[test]
    fn a_second_lasts_until_its_end() {
        for per_second in [100, 250, 1000] {
            let ticks = Ticks::new(per_second);
            let first = (1 << 32) - 300 * u64::from(per_second);
            for count in (first..first + 5000).chain(first + (1 << 33)..first + (1 << 33) + 5000) {
                let until = ticks.until(count);
                assert!(until > count && until <= count + u64::from(per_second) + 8);
                assert_eq!(ticks.seconds(until - 1), ticks.seconds(count));
                assert_eq!(ticks.seconds(until), ticks.seconds(count) + 1);
            }
        }
    }

    #[test]
    fn without_a_rate_they_are_not_used() {
        assert!(!Ticks::new(0).used());
        assert!(Ticks::new(250).used());
    }
}
