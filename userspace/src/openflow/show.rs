//! Having a bridge handle frames as if they had come in by its ports.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::wire::{self, Incoming};
use super::{OpenFlowError, Switch};

/// Hands frames to bridges, over a connection to each that lasts. Clones share the connections.
#[derive(Clone)]
pub struct Shower {
    rundir: PathBuf,
    open: Arc<Mutex<BTreeMap<String, Switch>>>,
}

impl Shower {
    /// For the bridges whose sockets are in `rundir`. Does not connect yet.
    pub fn new(rundir: PathBuf) -> Self {
        Self { rundir, open: Arc::default() }
    }

    /// Has NORMAL handle the frames, each with the OpenFlow number of the port that it is to have come in by. Returns when that
    /// has been done.
    ///
    /// # Errors
    /// It is not known whether that has been done: a sentence for the operator.
    pub async fn show(&self, bridge: &str, frames: &[(u16, Vec<u8>)]) -> Result<(), String> {
        let mut frames: Vec<u8> =
            frames.iter().flat_map(|(in_port, frame)| wire::packet_out(*in_port, frame)).collect();
        frames.extend(wire::barrier());
        // Taken out, and put back after an answer: a connection of before a restart is of no use any more.
        let known = self.open.lock().await.remove(bridge);
        let answered = match known {
            Some(mut switch) => switch.handle(&frames).await.map(|()| switch),
            None => Err(OpenFlowError::Closed),
        };
        let answered = match answered {
            Ok(switch) => Ok(switch),
            Err(OpenFlowError::Closed | OpenFlowError::Io(_)) => self.begin(bridge, &frames).await,
            Err(error) => Err(error),
        };
        let switch = answered.map_err(|error| format!("bridge {bridge} was shown no frames: {error}"))?;
        self.open.lock().await.insert(bridge.to_owned(), switch);
        Ok(())
    }

    /// Closes the connections to other bridges than these.
    pub async fn keep(&self, bridges: &[String]) {
        self.open.lock().await.retain(|bridge, _| bridges.contains(bridge));
    }

    async fn begin(&self, bridge: &str, frames: &[u8]) -> Result<Switch, OpenFlowError> {
        let mut switch = Switch::connect(&self.rundir.join(format!("{bridge}.mgmt"))).await?;
        // It is told nothing of its own accord, and does not make the bridge send frames to controllers.
        let harmless = [wire::set_controller_id(), wire::mute()].concat();
        switch.handle(&[&wire::hello()[..], &harmless, frames].concat()).await?;
        Ok(switch)
    }
}

impl Switch {
    /// Sends messages that end with a barrier, and returns when that is answered.
    async fn handle(&mut self, messages: &[u8]) -> Result<(), OpenFlowError> {
        self.ask(wire::BARRIER_XID, &[messages]).await?;
        loop {
            let mut done = false;
            for message in self.receive().await? {
                match message {
                    Incoming::Barrier { xid } => {
                        self.answered(xid)?;
                        done = true;
                    }
                    Incoming::Hello { offers_us: false } => return Err(OpenFlowError::VersionRefused),
                    Incoming::EchoRequest(reply) => self.send(&reply).await?,
                    Incoming::Error { kind, code } => return Err(OpenFlowError::Refused { kind, code }),
                    _ => {}
                }
            }
            if done {
                return Ok(());
            }
        }
    }
}
