//! Supervision: whatever dies or ends of the agent's process ends all of it, and Open vSwitch has every frame.
//!
//! A panic in any thread or task aborts the process: the kernel then takes the programs off the ports. A part that returns
//! although it never should is reported to the main loop, which gives the ports back in good order.

use std::future::Future;
use std::process::abort;

use anyhow::{Error, anyhow};
use tokio::task::{AbortHandle, JoinSet};
use tracing::error;

use crate::fault;

/// Has the process end with the first panic, in whatever thread, after the usual message.
pub(super) fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        error!("a part of the agent has failed: the process ends, and Open vSwitch has all frames");
        abort();
    }));
}

/// The tasks of the main thread that last as long as the agent, unless they are aborted.
#[derive(Default)]
pub(super) struct Tasks(JoinSet<&'static str>);

impl Tasks {
    /// Starts a task. `name` says in the error which one ended.
    pub(super) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        self.0.spawn(async move {
            supervised(name, task).await;
            name
        })
    }

    /// Returns when one has ended by itself.
    pub(super) async fn ended(&mut self) -> Error {
        loop {
            match self.0.join_next().await {
                Some(Ok(name)) => return ended(name),
                // Aborted: it is not needed any more.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

/// Why the agent ends when a part of it has.
pub(super) fn ended(name: &str) -> Error {
    anyhow!(
        "the part of the agent that is to {name} has ended, which it should never: restart it, and report this"
    )
}

/// Runs a part of the agent, until it ends or a test has it fail.
pub(super) async fn supervised(name: &'static str, part: impl Future<Output = ()>) {
    tokio::select! {
        () = part => {}
        () = fault::strike(name) => {}
    }
}
