//! ovs-vswitchd's command socket, asked as `ovs-appctl` does.

use std::fs;
use std::io::{BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Deserializer, StreamDeserializer, Value, de::IoRead};

/// A connection to the daemon whose pid file is in a run directory.
pub(super) struct Daemon {
    stream: UnixStream,
    answers: StreamDeserializer<'static, IoRead<BufReader<UnixStream>>, Value>,
}

const TIME_OUT: Duration = Duration::from_secs(30);

impl Daemon {
    pub(super) fn connect(rundir: &Path) -> Result<Self> {
        let pid = fs::read_to_string(rundir.join("ovs-vswitchd.pid")).context("no ovs-vswitchd")?;
        let socket = rundir.join(format!("ovs-vswitchd.{}.ctl", pid.trim()));
        let stream =
            UnixStream::connect(&socket).with_context(|| format!("connecting to {}", socket.display()))?;
        stream.set_read_timeout(Some(TIME_OUT))?;
        let answers = Deserializer::from_reader(BufReader::new(stream.try_clone()?)).into_iter();
        Ok(Self { stream, answers })
    }

    /// Asks what costs nothing to answer, and returns when the answer came: the end of a turn of the main loop.
    pub(super) fn wait_answering(&mut self) -> Result<Instant> {
        self.stream
            .write_all(br#"{"id":0,"method":"version","params":[]}"#)
            .context("asking ovs-vswitchd")?;
        let answer = self.answers.next().context("ovs-vswitchd closed the connection")??;
        ensure!(answer["error"].is_null(), "version: {}", answer["error"]);
        Ok(Instant::now())
    }
}
