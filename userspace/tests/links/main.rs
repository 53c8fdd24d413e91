//! The link watcher against real devices, each test in network namespaces of its own. Needs root.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::programs::{Xdp, XdpMode as AttachMode};
use support::{Inside, Namespace, ip, run, xdp_object};
use tokio::sync::mpsc;
use trunkline::config::RunDir;
use trunkline::links::{self, Link, LinkEvent, LinkKind, Links, Peer, XdpMode};
use trunkline::offloads::Offloads;

/// Far below [`links::RESYNC`], so that what arrives was announced.
const PROMPT: Duration = Duration::from_secs(3);

struct Watcher {
    events: mpsc::Receiver<LinkEvent>,
    last: Arc<Links>,
    patience: Duration,
}

impl Watcher {
    async fn start() -> Self {
        let (sender, events) = mpsc::channel(1);
        tokio::spawn(links::watch(sender, |event| event));
        let mut watcher = Self { events, last: Arc::default(), patience: PROMPT };
        watcher.until("a first snapshot", |links| !links.is_empty()).await;
        watcher
    }

    /// Waits for a snapshot of which `holds` is true.
    async fn until(&mut self, what: &str, holds: impl Fn(&Links) -> bool) -> Arc<Links> {
        let deadline = Instant::now() + self.patience;
        while !holds(&self.last) {
            let left = deadline.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, self.events.recv()).await {
                Ok(Some(LinkEvent::Snapshot(links))) => self.last = links,
                Ok(other) => panic!("{what}: {other:?}"),
                Err(_) => panic!("{what}: not announced; last was {:#?}", self.last),
            }
        }
        Arc::clone(&self.last)
    }

    /// Waits until `holds` is true of the link with this name.
    async fn until_link(&mut self, name: &str, what: &str, holds: impl Fn(&Link) -> bool) -> Arc<Link> {
        let links = self.until(what, |links| find(links, name).is_some_and(|link| holds(link))).await;
        Arc::clone(find(&links, name).unwrap())
    }
}

fn find<'a>(links: &'a Links, name: &str) -> Option<&'a Arc<Link>> {
    links.values().find(|link| link.name == name)
}

#[test]
fn veth_facts_follow_the_peer_into_another_namespace() {
    let (here, elsewhere) = (Namespace::new("here"), Namespace::new("else"));
    here.run(async {
        ip("link add v0 address 02:00:00:00:00:01 type veth peer name v1");
        let mut watcher = Watcher::start().await;
        let other = watcher.until_link("v1", "the peer", |_| true).await;
        let link = watcher
            .until_link("v0", "the veth", |link| link.xdp_features.is_some_and(|all| all.0 != 0))
            .await;
        assert_eq!(link.kind, LinkKind::Veth { peer: Peer::Here(other.ifindex) });
        assert_eq!(link.mac, Some([2, 0, 0, 0, 0, 1]));
        assert_eq!((link.mtu, link.up, link.master, link.xdp), (1500, false, None, None));
        assert_eq!(link.rx_vlan_offload, Some(true));
        assert_eq!(link.peer.unwrap().polls, Some(false));
        assert_eq!(link.native_xdp(), Ok(()));
        assert!(link.can_be_redirected_to().unwrap_err().to_string().contains("GRO"));

        ip(&format!("link set v1 netns {}", elsewhere.name()));
        let is_away =
            |link: &Link| link.kind == LinkKind::Veth { peer: Peer::Elsewhere } && link.peer.is_none();
        watcher.until_link("v0", "the peer elsewhere", is_away).await;
    });
}

#[test]
fn gro_on_the_peer_makes_a_veth_a_target_here_and_elsewhere() {
    let (here, elsewhere) = (Namespace::new("gro"), Namespace::new("gro-else"));
    here.run(async {
        ip("link add v0 type veth peer name v1");
        ip("link set v0 up");
        ip("link set v1 up");
        let mut watcher = Watcher::start().await;
        let target = |link: &Link| link.can_be_redirected_to().is_ok();
        run("ethtool -K v1 gro on");
        watcher.until_link("v0", "GRO on", target).await;
        run("ethtool -K v1 gro off");
        watcher.until_link("v0", "GRO off", |link| !target(link)).await;

        ip(&format!("link set v1 netns {}", elsewhere.name()));
        let inside = format!("ip netns exec {}", elsewhere.name());
        run(&format!("{inside} ip link set v1 up"));
        run(&format!("{inside} ethtool -K v1 gro on"));
        watcher.until_link("v0", "GRO on elsewhere", target).await;
        run(&format!("{inside} ethtool -K v1 gro off"));
        watcher.until_link("v0", "GRO off elsewhere", |link| !target(link)).await;
    });
}

#[test]
fn a_peer_that_lost_gro_while_down_is_no_target_whatever_the_kernel_says() {
    Namespace::new("stale").run(async {
        ip("link add v0 type veth peer name v1");
        ip("link set v0 up");
        ip("link set v1 up");
        run("ethtool -K v1 gro on");
        let mut watcher = Watcher::start().await;
        watcher.until_link("v0", "GRO on", |link| link.can_be_redirected_to().is_ok()).await;
        ip("link set v1 down");
        run("ethtool -K v1 gro off");
        ip("link set v1 up");
        let link = watcher
            .until_link("v0", "GRO off", |link| link.carrier && link.peer.unwrap().polls == Some(false));
        assert!(link.await.can_be_redirected_to().is_err());
    });
}

#[test]
fn a_peer_with_more_queues_rules_native_xdp_out() {
    Namespace::new("queues").run(async {
        ip("link add v0 numrxqueues 2 numtxqueues 2 type veth peer name v1 numrxqueues 2 numtxqueues 4");
        let mut watcher = Watcher::start().await;
        let link = watcher.until_link("v0", "the veth", |_| true).await;
        assert!(link.native_xdp().unwrap_err().to_string().contains("queues"));
        assert!(link.can_be_redirected_to().is_err());
        run("ethtool -L v1 tx 2");
        watcher.until_link("v0", "fewer queues", |link| link.native_xdp().is_ok()).await;
    });
}

#[test]
fn a_tap_tells_its_virtio_header_and_queues() {
    Namespace::new("tap").run(async {
        ip("tuntap add t0 mode tap");
        ip("tuntap add t1 mode tap vnet_hdr multi_queue");
        ip("tuntap add t2 mode tun");
        let mut watcher = Watcher::start().await;
        let links = watcher.until("the taps", |links| find(links, "t2").is_some()).await;
        let kind = |name| find(&links, name).unwrap().kind.clone();
        assert_eq!(kind("t0"), LinkKind::Tap { vnet_hdr: false, multi_queue: false });
        assert_eq!(kind("t1"), LinkKind::Tap { vnet_hdr: true, multi_queue: true });
        assert_eq!(kind("t2"), LinkKind::Other("tun".to_owned()));
        let tap = find(&links, "t0").unwrap();
        assert_eq!((tap.native_xdp(), tap.can_be_redirected_to()), (Ok(()), Ok(())));
        assert_eq!(tap.rx_vlan_offload, Some(false));
    });
}

#[test]
fn an_attached_program_is_seen_and_makes_the_peer_a_target() {
    Namespace::new("xdp").run(async {
        ip("link add v0 type veth peer name v1");
        ip("link set v0 up");
        ip("link set v1 up");
        let mut watcher = Watcher::start().await;
        let mut object = aya::Ebpf::load(&xdp_object()).unwrap();
        let program: &mut Xdp = object.program_mut("pass").unwrap().try_into().unwrap();
        program.load().unwrap();
        let link = program.attach("v1", AttachMode::Driver).unwrap();
        // The peer is announced, and with it the program is read.
        watcher.until_link("v0", "a program on the peer", |link| link.can_be_redirected_to().is_ok()).await;
        let attached = watcher.until_link("v1", "the program", |link| link.xdp.is_some()).await.xdp.unwrap();
        assert_eq!(attached.mode, XdpMode::Native);
        assert_eq!(attached.prog_id, program.info().unwrap().id());

        program.detach(link).unwrap();
        watcher.until_link("v0", "no program on the peer", |link| link.can_be_redirected_to().is_err()).await;
        watcher.until_link("v1", "no program", |link| link.xdp.is_none()).await;
    });
}

#[test]
fn a_program_that_nobody_announces_is_found_by_looking() {
    Namespace::new("looking").run(async {
        ip("tuntap add t0 mode tap");
        let mut watcher = Watcher::start().await;
        let mut object = aya::Ebpf::load(&xdp_object()).unwrap();
        let program: &mut Xdp = object.program_mut("pass").unwrap().try_into().unwrap();
        program.load().unwrap();
        let ifindex = watcher.until_link("t0", "the tap", |_| true).await.ifindex;
        // What is announced of the tap itself has been by then.
        tokio::time::sleep(PROMPT).await;
        program.attach_to_if_index(ifindex, AttachMode::Driver).unwrap();
        watcher.patience = links::RESYNC + PROMPT;
        watcher.until_link("t0", "the program", |link| link.xdp.is_some()).await;
    });
}

#[test]
fn a_program_on_an_oversized_peer_is_refused_as_foretold() {
    Namespace::new("mtu").run(async {
        ip("link add v0 type veth peer name v1");
        let mut watcher = Watcher::start().await;
        let mut object = aya::Ebpf::load(&xdp_object()).unwrap();
        let program: &mut Xdp = object.program_mut("pass").unwrap().try_into().unwrap();
        program.load().unwrap();
        for mtu in 3500..3512 {
            ip(&format!("link set v1 mtu {mtu}"));
            let foretold = |link: &Link| link.peer.is_some_and(|peer| peer.mtu == mtu);
            let foretold = watcher.until_link("v0", "the MTU", foretold).await.native_xdp();
            let attached = program.attach("v0", AttachMode::Driver);
            assert_eq!(attached.is_ok(), foretold.is_ok(), "MTU {mtu}: {foretold:?}");
            if let Ok(link) = attached {
                program.detach(link).unwrap();
            }
        }
    });
}

#[test]
fn a_device_made_again_under_its_name_is_the_new_one() {
    Namespace::new("again").run(async {
        let mut watcher = Watcher::start().await;
        for _ in 0..5 {
            ip("link add v0 type veth peer name v1");
            let old = watcher.until_link("v0", "the first", |_| true).await.ifindex;
            ip("link del v0");
            ip("tuntap add v0 mode tap");
            let link = watcher.until_link("v0", "the second", |link| link.ifindex != old).await;
            assert!(matches!(link.kind, LinkKind::Tap { .. }));
            assert!(find(&watcher.last, "v1").is_none() && !watcher.last.contains_key(&old));
            ip("link del v0");
            watcher.until("none left", |links| find(links, "v0").is_none()).await;
        }
    });
}

#[test]
fn a_device_that_comes_back_with_its_index_is_another_incarnation() {
    let (here, away) = (Namespace::new("back"), Namespace::new("away"));
    here.run(async {
        ip("link add v0 index 77 type veth peer name v1 index 78");
        let mut watcher = Watcher::start().await;
        let first = watcher.until_link("v0", "the first", |_| true).await;
        ip(&format!("link set v0 netns {}", away.name()));
        ip(&format!("-n {} link set v0 netns {}", away.name(), here.name()));
        let other = |link: &Link| link.incarnation != first.incarnation;
        assert_eq!(watcher.until_link("v0", "back again", other).await.ifindex, 77);
    });
}

#[test]
fn renaming_resizing_and_enslaving_are_seen() {
    Namespace::new("change").run(async {
        ip("link add v0 type veth peer name v1");
        let mut watcher = Watcher::start().await;
        let ifindex = watcher.until_link("v0", "the veth", |_| true).await.ifindex;
        ip("link set v0 name w0");
        let link = watcher.until_link("w0", "the new name", |_| true).await;
        assert_eq!(link.ifindex, ifindex);
        assert!(find(&watcher.last, "v0").is_none());
        ip("link set w0 mtu 1400");
        watcher.until_link("w0", "the MTU", |link| link.mtu == 1400).await;
        ip("link set w0 up");
        watcher.until_link("w0", "up", |link| link.up && !link.carrier).await;
        ip("link set v1 up");
        watcher.until_link("w0", "carrier", |link| link.carrier).await;
        ip("link add br0 type bridge");
        let bridge =
            watcher.until_link("br0", "the bridge", |link| link.kind == LinkKind::Bridge).await.ifindex;
        ip("link set w0 master br0");
        watcher.until_link("w0", "enslaved", |link| link.master == Some(bridge)).await;
        ip("link set w0 nomaster");
        let freed = watcher.until_link("w0", "freed", |link| link.master.is_none()).await;
        assert_eq!(freed.incarnation, link.incarnation, "leaving a bridge is no deletion");
    });
}

#[test]
fn rx_vlan_offload_is_switched_announced_and_restored() {
    Namespace::new("rxvlan").run(async {
        ip("link add v0 type veth peer name v1");
        ip("tuntap add t0 mode tap");
        let mut watcher = Watcher::start().await;
        let ifindex = watcher.until_link("v0", "the veth", |_| true).await.ifindex;
        let was = links::set_rx_vlan_offload(ifindex, false).await.unwrap();
        assert!(was);
        watcher.until_link("v0", "off", |link| link.rx_vlan_offload == Some(false)).await;
        assert!(!links::set_rx_vlan_offload(ifindex, was).await.unwrap());
        watcher.until_link("v0", "on", |link| link.rx_vlan_offload == Some(true)).await;
        run("ethtool -K v0 rxvlan off");
        watcher.until_link("v0", "off by hand", |link| link.rx_vlan_offload == Some(false)).await;

        let tap = watcher.until_link("t0", "the tap", |_| true).await.ifindex;
        assert!(!links::set_rx_vlan_offload(tap, false).await.unwrap(), "off already");
        let fixed = links::set_rx_vlan_offload(tap, true).await.unwrap_err();
        assert!(fixed.to_string().contains("does not let"), "{fixed}");
        let gone = links::set_rx_vlan_offload(99_999, false).await.unwrap_err();
        assert!(gone.is_absent(), "{gone}");
    });
}

#[test]
fn offloads_on_record_are_restored_by_device_and_not_by_name() {
    let (here, elsewhere) = (Namespace::new("record"), Namespace::new("record-else"));
    let inside = Inside::new(&here);
    let directory = tempfile::tempdir().unwrap();
    let agent = || Offloads::with_sysfs(&RunDir(directory.path().to_owned()), inside.class_net());
    let elsewhere = elsewhere.name().to_owned();
    let here_name = here.name().to_owned();
    here.run(async {
        ip("link add a0 type veth peer name a1");
        ip("link add b0 type veth peer name b1");
        ip("link add c0 type veth peer name c1");
        let mut watcher = Watcher::start().await;
        for device in ["a0", "b0", "c0"] {
            let ifindex = watcher.until_link(device, "made", |_| true).await.ifindex;
            assert_eq!(agent().switch(ifindex, device, false).await, None);
            watcher.until_link(device, "off", |link| link.rx_vlan_offload == Some(false)).await;
        }
        // That agent is no more.
        ip("link set a0 name far");
        let index = watcher.until_link("b0", "its index", |_| true).await.ifindex;
        ip("link del b0");
        ip("link add a0 type veth peer name d1");
        ip(&format!("link add b0 index {index} type veth peer name b1"));
        ip(&format!("link set c0 netns {elsewhere}"));
        ip(&format!("-netns {elsewhere} link set c0 name back netns {here_name}"));
        for device in ["a0", "b0"] {
            run(&format!("ethtool -K {device} rxvlan off"));
        }
        agent().restore().await;
        watcher.until_link("far", "renamed, on", |link| link.rx_vlan_offload == Some(true)).await;
        watcher
            .until_link("back", "back from elsewhere, on", |link| link.rx_vlan_offload == Some(true))
            .await;
        for device in ["a0", "b0"] {
            let ifindex = watcher.until_link(device, "another one", |_| true).await.ifindex;
            assert!(!links::set_rx_vlan_offload(ifindex, false).await.unwrap(), "{device} was switched on");
            assert_eq!(ifindex == index, device == "b0", "b0 has the index of the one before");
        }

        let far = watcher.until_link("far", "it stays", |_| true).await.ifindex;
        links::set_rx_vlan_offload(far, false).await.unwrap();
        agent().restore().await;
        assert!(
            !links::set_rx_vlan_offload(far, false).await.unwrap(),
            "it was off by hand, and not on record"
        );
    });
}

#[test]
fn a_flood_of_changes_ends_in_the_right_snapshot() {
    Namespace::new("flood").run(async {
        let mut watcher = Watcher::start().await;
        let batch = |line: &dyn Fn(u32) -> String| (0..200).map(line).collect::<Vec<_>>().join("\n");
        // Nothing is received meanwhile: the runtime has one thread and this blocks it.
        support::ip_batch(&batch(&|n| format!("tuntap add f{n} mode tap")));
        support::ip_batch(&batch(&|n| format!("link set f{n} mtu 1280 up")));
        support::ip_batch(&batch(&|n| {
            if n % 2 == 0 { format!("link del f{n}") } else { format!("link set f{n} down") }
        }));
        let count = |links: &Links| links.values().filter(|link| link.name.starts_with('f')).count();
        watcher.until("half of them", |links| count(links) == 100).await;
        let settled = |link: &Link| !link.name.starts_with('f') || (link.mtu == 1280 && !link.up);
        assert!(watcher.last.values().all(|link| settled(link)));
    });
}
