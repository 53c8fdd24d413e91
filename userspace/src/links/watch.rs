//! Notices that links changed, and reads them again.
//!
//! The multicast sockets only say *that* something changed: a notice is not decoded, but for a deletion, and
//! an overrun is a notice like any other. So nothing has to be merged, and a lost notice costs nothing.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use rtnetlink::sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE};
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::ethtool::{self, Ethtool};
use super::snapshot::Source;
use super::xdp_features::{self, Netdev};
use super::{LinkError, LinkEvent, Links, genl};

/// After this time without a notice the links are looked at for what the kernel does not announce.
pub const RESYNC: Duration = Duration::from_secs(30);
/// Everything is read again with every so manieth look: features too, whose changes are all announced.
const FULL: u32 = 10;
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);
/// Between two readings lies as much time as the last one took, up to this: a burst of changes, or another
/// network's traffic of containers, then takes at most half a core.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);
/// Asked for; the kernel gives what `net.core.rmem_max` allows.
const RECEIVE_BUFFER: i32 = 4 << 20;

const GROUP_LINK: u32 = 1;
const RTM_DELLINK: u16 = 17;

/// Sends a snapshot of all links now and after every change of one, until the receiver has gone.
///
/// Changes that come close together share a snapshot, and one that changed nothing of a [`Link`](super::Link)
/// sends none. What is watched is the network namespace of the thread that first polls this; it must be polled
/// within a tokio runtime with I/O and time.
pub async fn watch<E>(events: mpsc::Sender<E>, wrap: impl Fn(LinkEvent) -> E) {
    let mut last = None;
    while let Err(error) = watch_until_failure(&events, &wrap, &mut last).await {
        if events.send(wrap(LinkEvent::Failed { cause: error.to_string() })).await.is_err() {
            return;
        }
        // The state may have changed unseen, so the next snapshot is sent whatever it says.
        last = None;
        sleep(RETRY).await;
    }
}

/// `Ok` when the receiver has gone.
async fn watch_until_failure<E>(
    events: &mpsc::Sender<E>,
    wrap: &impl Fn(LinkEvent) -> E,
    last: &mut Option<Arc<Links>>,
) -> Result<(), LinkError> {
    let mut source = Source::open().await?;
    let mut notices = Notices::subscribe(&source).await?;
    loop {
        notices.take_all()?;
        let begun = Instant::now();
        let links = source.links(&notices.incarnations).await?;
        let took = begun.elapsed();
        notices.incarnations.retain(|ifindex, _| links.contains_key(ifindex));
        if last.as_deref() != Some(&links) {
            let links = Arc::new(links);
            *last = Some(Arc::clone(&links));
            if events.send(wrap(LinkEvent::Snapshot(links))).await.is_err() {
                return Ok(());
            }
        }
        sleep(took.min(LONGEST_PAUSE)).await;
        for _ in 0..FULL {
            let noticed = tokio::select! {
                () = events.closed() => return Ok(()),
                noticed = timeout(RESYNC, notices.next()) => noticed,
            };
            match noticed {
                Ok(notice) => {
                    notice?;
                    break;
                }
                Err(_) if source.is_unchanged().await? => {}
                Err(_) => break,
            }
        }
    }
}

/// The multicast sockets. Subscribed before the first dump, so that no change falls between.
struct Notices {
    route: TokioSocket,
    ethtool: Option<TokioSocket>,
    netdev: Option<TokioSocket>,
    /// How often the device with this index has gone.
    incarnations: HashMap<u32, u32>,
}

impl Notices {
    async fn subscribe(source: &Source) -> Result<Self, LinkError> {
        let ethtool = genl::group::<Ethtool>(source.genl(), ethtool::GROUP, "ethtool notifications").await?;
        let netdev =
            genl::group::<Netdev>(source.genl(), xdp_features::GROUP, "netdev notifications").await?;
        Ok(Self {
            route: join(NETLINK_ROUTE, GROUP_LINK)?,
            ethtool: ethtool.map(|group| join(NETLINK_GENERIC, group)).transpose()?,
            netdev: netdev.map(|group| join(NETLINK_GENERIC, group)).transpose()?,
            incarnations: HashMap::new(),
        })
    }

    /// Waits for one notice.
    async fn next(&mut self) -> Result<(), LinkError> {
        let Self { route, ethtool, netdev, incarnations } = self;
        tokio::select! {
            notice = receive(route) => note_deletion(&notice?, incarnations),
            notice = receive_if(ethtool.as_ref()) => drop(notice?),
            notice = receive_if(netdev.as_ref()) => drop(notice?),
        }
        Ok(())
    }

    /// Takes what is queued. At most as many as a full queue holds, so that a flood cannot keep it here.
    fn take_all(&mut self) -> Result<(), LinkError> {
        for _ in 0..10_000 {
            match self.next().now_or_never() {
                Some(taken) => taken?,
                None => break,
            }
        }
        Ok(())
    }
}

fn join(protocol: isize, group: u32) -> Result<TokioSocket, LinkError> {
    let failed = |source| LinkError::Socket { what: "netlink notifications", source };
    let mut socket = TokioSocket::new(protocol).map_err(failed)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0)).map_err(failed)?;
    socket.socket_ref().add_membership(group).map_err(failed)?;
    socket.socket_ref().set_rx_buf_sz(RECEIVE_BUFFER).map_err(failed)?;
    Ok(socket)
}

/// The beginning of one notice; empty if some were lost (`ENOBUFS`).
async fn receive(socket: &TokioSocket) -> Result<Vec<u8>, LinkError> {
    let mut notice = Vec::with_capacity(64);
    match socket.recv(&mut notice).await {
        Ok(()) => Ok(notice),
        Err(lost) if is_overrun(&lost) => Ok(Vec::new()),
        Err(source) => Err(LinkError::Socket { what: "netlink notifications", source }),
    }
}

fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error())
}

async fn receive_if(socket: Option<&TokioSocket>) -> Result<Vec<u8>, LinkError> {
    match socket {
        Some(socket) => receive(socket).await,
        None => std::future::pending().await,
    }
}

/// Counts a device's `RTM_DELLINK`. One of the family `AF_BRIDGE` only says that it left a bridge.
fn note_deletion(notice: &[u8], incarnations: &mut HashMap<u32, u32>) {
    // struct nlmsghdr (16 bytes), then struct ifinfomsg: family, padding, type, index.
    let field = |at: usize| notice.get(at..at + 4).and_then(genl::number);
    let kind = notice.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
    if let (Some(RTM_DELLINK), Some(0), Some(ifindex)) = (kind, notice.get(16), field(20)) {
        let gone = incarnations.entry(ifindex).or_default();
        *gone = gone.wrapping_add(1);
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[rustfmt::skip]
    const DELLINK: [u8; 32] = [
        32, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];

    #[test]
    fn only_a_deletion_ends_an_incarnation() {
        let mut incarnations = HashMap::new();
        note_deletion(&DELLINK, &mut incarnations);
        note_deletion(&DELLINK, &mut incarnations);
        let mut change = DELLINK;
        change[4] = 16;
        note_deletion(&change, &mut incarnations);
        let mut left_bridge = DELLINK;
        left_bridge[16] = 7;
        note_deletion(&left_bridge, &mut incarnations);
        note_deletion(&DELLINK[..20], &mut incarnations);
        note_deletion(&[], &mut incarnations);
        assert_eq!(incarnations, HashMap::from([(7, 2)]));
    }
}
