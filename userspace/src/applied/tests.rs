use super::*;
use crate::dataplane::Affected;
use crate::fixture::Database;
use crate::ovsdb::{OvsdbEvent, Uuid};

/// Something happens.
enum Step {
    /// The database changes, and the agent is told.
    Write(fn(&mut Database)),
    /// ovs-vswitchd passes the outstanding barrier.
    Pass,
    Tick,
    Restart,
    /// The database is in reach again, and its state is read.
    Reconnect,
    /// The same, and it has changed.
    ReconnectWith(fn(&mut Database)),
}
use Step::{Pass, Reconnect, ReconnectWith, Restart, Tick, Write};

/// How bridge `br0` is to stand after a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Held {
    No,
    /// Something will come that ends it.
    Applying,
    /// Only another change ends it.
    Waiting,
}
use Held::{Applying, No, Waiting};

struct Story {
    database: Database,
    watch: Watch,
    applied: Applied,
    update: Option<Update>,
    /// Whether the last barrier waits for ovs-vswitchd to connect.
    connecting: bool,
}

impl Story {
    /// With nothing read.
    fn new(database: Database) -> Self {
        let (watch, applied) = (Watch::default(), Applied::default());
        Self { database, watch, applied, update: None, connecting: false }
    }

    /// With `br0` in force.
    fn begin() -> Self {
        let mut story = Self::new(Database::small());
        assert_eq!(story.applied.hold_reason("br0"), Some(Reason::DatabaseUnread));
        story.take(Write(|_| {}));
        assert_eq!(story.held(), Applying, "what came in one message may have changed since");
        story.take(Pass);
        assert_eq!(story.held(), No);
        story
    }

    fn read(&mut self) -> Next {
        let event = self.watch.pass(OvsdbEvent::Changed(self.database.snapshot()));
        let DatabaseEvent::Changed { rows, differences } = event else { panic!("{event:?}") };
        self.applied.update(rows, differences)
    }

    fn take(&mut self, step: Step) {
        let next = match step {
            Write(change) => {
                change(&mut self.database);
                self.read()
            }
            Pass => self.applied.barrier_passed(self.update.take().expect("a barrier")),
            Tick => {
                self.applied.not_restarted();
                Next::Wait
            }
            Restart => {
                self.applied.restarted();
                Next::Wait
            }
            Reconnect => {
                self.applied.reconnected();
                self.read()
            }
            ReconnectWith(change) => {
                change(&mut self.database);
                return self.take(Reconnect);
            }
        };
        if let Next::Barrier { update, connecting } = next {
            assert_eq!(self.update.replace(update), None, "one barrier at a time");
            self.connecting = connecting;
        }
    }

    fn held(&self) -> Held {
        match self.applied.hold_reason("br0") {
            None => No,
            Some(Reason::SilentChange) => Waiting,
            Some(_) => Applying,
        }
    }
}

#[track_caller]
fn tell(steps: impl IntoIterator<Item = (Step, Held)>) -> Story {
    let mut story = Story::begin();
    for (place, (step, held)) in steps.into_iter().enumerate() {
        story.take(step);
        assert_eq!(story.held(), held, "after step {place}");
    }
    story
}

const RETAG: fn(&mut Database) = |database| database.port("p1").tag = Some(20);
const TAG_BACK: fn(&mut Database) = |database| database.port("p1").tag = Some(10);
const TRUNKS: fn(&mut Database) = |database| database.port("p1").trunks.extend([7]);
const TRUNKS_BACK: fn(&mut Database) = |database| database.port("p1").trunks.clear();
const CONFIRM: fn(&mut Database) = Database::confirm;

#[test]
fn an_announced_change_is_in_force_when_it_is_confirmed() {
    let announced = |database: &mut Database| {
        RETAG(database);
        database.announce();
    };
    let story = tell([(Write(announced), Applying), (Write(CONFIRM), No)]);
    assert_eq!(story.update, None, "nobody has to be asked");
}

#[test]
fn an_announced_silent_change_is_in_force_when_it_is_confirmed() {
    let announced = |database: &mut Database| {
        TRUNKS(database);
        database.announce();
    };
    tell([(Write(announced), Applying), (Write(CONFIRM), No)]);
}

#[test]
fn the_last_of_several_announcements_counts() {
    let announced = |database: &mut Database| {
        RETAG(database);
        database.announce();
    };
    let again = |database: &mut Database| {
        TAG_BACK(database);
        database.announce();
    };
    let first = |database: &mut Database| database.host().cur_cfg += 1;
    tell([
        (Write(announced), Applying),
        (Write(again), Applying),
        (Write(first), Applying),
        (Write(CONFIRM), No),
    ]);
}

#[test]
fn an_alerting_change_is_settled_by_asking() {
    tell([(Write(RETAG), Applying), (Pass, No)]);
}

#[test]
fn alerting_changes_during_a_question_are_asked_for_again() {
    let story = tell([(Write(RETAG), Applying), (Write(TAG_BACK), Applying), (Pass, Applying)]);
    assert!(story.update.is_some());
    tell([(Write(RETAG), Applying), (Write(TAG_BACK), Applying), (Pass, Applying), (Pass, No)]);
}

#[test]
fn an_alerting_change_after_an_announcement_is_asked_for() {
    let announced = |database: &mut Database| database.announce();
    tell([(Write(announced), No), (Write(RETAG), Applying), (Write(CONFIRM), Applying), (Pass, No)]);
}

#[test]
fn a_silent_change_waits_for_any_other() {
    tell([(Write(TRUNKS), Waiting), (Tick, Waiting), (Write(RETAG), Applying), (Pass, No)]);
    let announced = |database: &mut Database| database.announce();
    tell([(Write(TRUNKS), Waiting), (Write(announced), Applying), (Write(CONFIRM), No)]);
}

#[test]
fn a_silent_change_that_is_taken_back_may_be_in_force() {
    tell([(Write(TRUNKS), Waiting), (Write(TRUNKS_BACK), Waiting)]);
}

#[test]
fn a_silent_change_after_an_alerting_one_is_not_settled_with_it() {
    tell([(Write(RETAG), Applying), (Write(TRUNKS), Applying), (Pass, Waiting)]);
}

#[test]
fn a_silent_change_after_an_announcement_is_not_confirmed_with_it() {
    let announced = |database: &mut Database| {
        RETAG(database);
        database.announce();
    };
    tell([(Write(announced), Applying), (Write(TRUNKS), Applying), (Write(CONFIRM), Waiting)]);
}

#[test]
fn an_announcement_that_comes_with_its_confirmation_is_asked_for() {
    let both = |database: &mut Database| {
        TRUNKS(database);
        database.announce();
        database.confirm();
    };
    tell([(Write(both), Applying), (Pass, No)]);
}

#[test]
fn a_restart_applies_what_was_there_before_it() {
    tell([(Write(TRUNKS), Waiting), (Tick, Waiting), (Restart, No)]);
    tell([(Tick, No), (Write(TRUNKS), Waiting), (Restart, Waiting)]);
}

#[test]
fn what_was_changed_and_changed_back_out_of_sight_is_asked_for() {
    tell([(Reconnect, Applying), (Pass, No)]);
    tell([(Write(RETAG), Applying), (Reconnect, Applying), (Pass, Applying), (Pass, No)]);
}

#[test]
fn what_has_changed_waits_for_ovs_vswitchd_to_connect_again() {
    // Nothing has.
    assert!(!tell([(Reconnect, Applying)]).connecting);
    // While it was out of reach, or soon after.
    let retagged = || ReconnectWith(RETAG);
    assert!(tell([(retagged(), Applying)]).connecting);
    let mut story = tell([(Reconnect, Applying), (Pass, No), (Write(RETAG), Applying)]);
    assert!(story.connecting);
    story.take(Pass);
    story.take(Write(TAG_BACK));
    assert!(!story.connecting, "it has had its time");
    // During a barrier that did not wait.
    let story = tell([(Reconnect, Applying), (Write(RETAG), Applying), (Pass, Applying)]);
    assert!(story.connecting);
    // Its confirmation of anything says that it is connected.
    let announced = |database: &mut Database| {
        RETAG(database);
        database.announce();
    };
    let story = tell([
        (Reconnect, Applying),
        (Pass, No),
        (Write(announced), Applying),
        (Write(CONFIRM), No),
        (Write(TAG_BACK), Applying),
    ]);
    assert!(!story.connecting);
}

#[test]
fn a_silent_change_waits_over_a_reconnection() {
    tell([(Write(TRUNKS), Waiting), (Reconnect, Applying), (Pass, Waiting)]);
}

#[test]
fn configuration_that_lags_at_the_start_is_waited_for() {
    let mut story = Story::new(Database::small());
    story.database.announce();
    assert_eq!(story.read(), Next::Wait);
    assert!(story.applied.hold_reason("br0").is_some());
    story.database.confirm();
    assert_eq!(story.read(), Next::Wait);
    assert_eq!(story.applied.hold_reason("br0"), None);
}

#[test]
fn a_database_that_was_restored_is_not_ahead() {
    let lower = |database: &mut Database| {
        RETAG(database);
        database.host().next_cfg = 0;
    };
    tell([(Write(lower), Applying), (Write(CONFIRM), No)]);
}

#[test]
fn what_does_not_decide_about_forwarding_holds_nothing() {
    let status: [fn(&mut Database); 4] = [
        |database| database.interface("p1").ofport = Some(9),
        |database| database.interface("p1").error = Some("gone".to_owned()),
        |database| database.interface("p1").ifindex = None,
        |database| drop(database.interface("p1").external_ids.insert("a".into(), "b".into())),
    ];
    tell(status.map(|change| (Write(change), No)));
}

#[test]
fn every_other_column_is_alerting() {
    let changes: [fn(&mut Database); 9] = [
        |database| database.port("p1").protected = true,
        |database| drop(database.interface("p1").other_config.insert("a".into(), "b".into())),
        |database| database.interface("p1").ingress_policing_rate = 1,
        |database| database.bridge("br0").flood_vlans.extend([3]),
        |database| database.add_mirror("br0", "m0"),
        |database| database.move_port("p2", None),
        |database| database.add_port("br0", "p3", 3).tag = Some(10),
        |database| drop(database.host().other_config.insert("hw-offload".into(), "true".into())),
        |database| {
            let manager = Uuid(1 << 64);
            database.rows.managers.insert(manager, Arc::default());
        },
    ];
    for change in changes {
        tell([(Write(change), Applying), (Pass, No)]);
    }
    for silent in [TRUNKS, |database: &mut Database| database.port("p1").vlan_mode = Some("access".into())] {
        tell([(Write(silent), Waiting)]);
    }
    let bridges: [fn(&mut Database); 2] = [
        |database| database.bridge("br0").stp_enable = true,
        |database| database.bridge("br0").rstp_enable = true,
    ];
    for silent in bridges {
        tell([(Write(silent), Waiting)]);
    }
}

#[test]
fn another_bridges_changes_hold_only_that() {
    let other = |database: &mut Database| {
        database.add_bridge("br1");
        database.add_port("br1", "q1", 9).tag = Some(10);
    };
    let story = tell([(Write(other), No)]);
    assert!(story.applied.hold_reason("br1").is_some());
    let story = tell([(Write(other), No), (Pass, No)]);
    assert_eq!(story.applied.hold_reason("br1"), None);
    tell([(Write(|database| database.delete_bridge("br0")), Applying), (Pass, No)]);
}

#[test]
fn an_event_tells_which_bridges_it_is_about() {
    let bridges = |names: &[&str]| Affected::Bridges(names.iter().map(|name| (*name).to_owned()).collect());
    let (mut watch, mut database) = (Watch::default(), Database::small());
    database.add_bridge("br1");
    let mut pass = |event| watch.pass(event).affected();
    assert_eq!(pass(OvsdbEvent::Connected), bridges(&[]));
    assert_eq!(pass(OvsdbEvent::Changed(database.snapshot())), bridges(&["br0", "br1"]));
    database.interface("p1").ofport = Some(9);
    assert_eq!(pass(OvsdbEvent::Changed(database.snapshot())), bridges(&[]));
    assert_eq!(pass(OvsdbEvent::Disconnected { cause: "gone".to_owned() }), Affected::All);
    RETAG(&mut database);
    assert_eq!(pass(OvsdbEvent::Connected), bridges(&[]));
    assert_eq!(
        pass(OvsdbEvent::Changed(database.snapshot())),
        bridges(&["br0"]),
        "compared with the last known"
    );
}

#[test]
fn a_mirrors_row_is_its_bridges() {
    let mirrored = |database: &mut Database| database.add_mirror("br0", "m0");
    let row = |database: &mut Database| {
        let mirror = database.rows.mirrors.values_mut().next().unwrap();
        Arc::make_mut(mirror).select_all = false;
    };
    tell([(Write(mirrored), Applying), (Pass, No), (Write(row), Applying), (Pass, No)]);
}

#[test]
fn a_bridge_is_held_for_vlans_as_long_as_nothing_else_changes() {
    type Change = fn(&mut Database);
    let vlans: [Change; 3] = [RETAG, TRUNKS, |database| {
        database.port("p1").vlan_mode = Some("native-tagged".to_owned());
    }];
    for change in vlans {
        let mut story = Story::begin();
        assert!(!story.applied.holds_for_vlans("br0"), "it is not held");
        story.take(Write(change));
        assert!(story.applied.holds_for_vlans("br0"));
        story.take(Write(|database| {
            CONFIRM(database);
            database.announce();
        }));
        assert!(story.applied.holds_for_vlans("br0"));
        story.take(Write(CONFIRM));
        assert!(!story.applied.holds_for_vlans("br0"));
    }
    let others: [Change; 9] = [
        |database| database.port("p1").protected = true,
        |database| database.port("p1").cvlans.extend([5]),
        |database| {
            database.port("p1").other_config.insert("priority-tags".to_owned(), "always".to_owned());
        },
        |database| database.bridge("br0").stp_enable = true,
        |database| database.bridge("br0").flood_vlans.extend([9]),
        |database| database.move_port("p2", None),
        |database| database.add_mirror("br0", "m0"),
        |database| database.interface("p2").mtu_request = Some(9000),
        |database| drop(database.host().other_config.insert("vlan-limit".to_owned(), "2".to_owned())),
    ];
    for other in others {
        for vlans_first in [true, false] {
            let mut story = Story::begin();
            let (first, second) = if vlans_first { (RETAG, other) } else { (other, RETAG) };
            story.take(Write(first));
            story.take(Write(second));
            assert!(!story.applied.holds_for_vlans("br0") && story.held() == Applying);
        }
    }
    let mut story = Story::begin();
    story.take(Write(RETAG));
    story.take(Reconnect);
    assert!(!story.applied.holds_for_vlans("br0"), "there may have been more meanwhile");
}
