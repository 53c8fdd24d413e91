//! Making a failing case small: whatever can go without the failure going, goes.
//!
//! Proptest shrinks what it drew; steps that nothing else depends on are taken out here, which it is slow at.

use super::{Case, PortSettings};

impl Case {
    /// The smallest case found that still `fails`.
    #[must_use]
    pub fn shrink(mut self, mut fails: impl FnMut(&Self) -> bool) -> Self {
        self.drop_steps(&mut fails);
        self.drop_ports(&mut fails);
        self.reset_settings(&mut fails);
        self.drop_steps(&mut fails);
        self
    }

    fn try_instead(&mut self, smaller: Self, fails: &mut impl FnMut(&Self) -> bool) -> bool {
        let still = smaller != *self && fails(&smaller);
        if still {
            *self = smaller;
        }
        still
    }

    /// Halves first, single steps last.
    fn drop_steps(&mut self, fails: &mut impl FnMut(&Self) -> bool) {
        let mut length = self.steps.len().div_ceil(2);
        while length > 0 {
            let mut end = self.steps.len();
            while end > 0 {
                let start = end.saturating_sub(length);
                let mut smaller = self.clone();
                smaller.steps.drain(start..end);
                self.try_instead(smaller, fails);
                end = start;
            }
            length /= 2;
        }
    }

    /// Ports at the end that no step names.
    fn drop_ports(&mut self, fails: &mut impl FnMut(&Self) -> bool) {
        let used = self.steps.iter().map(|step| step.port()).max().unwrap_or(1);
        let mut smaller = self.clone();
        smaller.ports.truncate(used);
        self.try_instead(smaller, fails);
    }

    fn reset_settings(&mut self, fails: &mut impl FnMut(&Self) -> bool) {
        let mut smaller = self.clone();
        smaller.flood_vlans.clear();
        self.try_instead(smaller, fails);
        const RESETS: [fn(&mut PortSettings); 6] = [
            |port| port.priority_tags = None,
            |port| port.protected = false,
            |port| port.tap = false,
            |port| port.trunks.clear(),
            |port| port.tag = None,
            |port| port.vlan_mode = None,
        ];
        for place in 0..self.ports.len() {
            for reset in RESETS {
                let mut smaller = self.clone();
                reset(&mut smaller.ports[place]);
                self.try_instead(smaller, fails);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::Step;

    #[test]
    fn only_what_the_failure_needs_is_left() {
        let frame = |n: u8| Step::frame(usize::from(n % 3) + 1, &[n; 14]);
        let port = PortSettings { protected: true, tag: Some(7), ..PortSettings::default() };
        let case = Case {
            about: String::new(),
            ports: vec![port; 5],
            flood_vlans: [5].into(),
            steps: (0..30).map(frame).collect(),
        };
        let fails = |case: &Case| {
            let position = |n| case.steps.iter().position(|step| *step == frame(n));
            let ordered = position(4).zip(position(19)).is_some_and(|(first, second)| first < second);
            ordered && case.ports[1].protected
        };
        let small = case.shrink(fails);
        assert_eq!(small.steps, [frame(4), frame(19)]);
        let plain = PortSettings::default();
        assert_eq!(small.ports, [plain.clone(), PortSettings { protected: true, ..plain }]);
        assert!(small.flood_vlans.is_empty());
    }
}
