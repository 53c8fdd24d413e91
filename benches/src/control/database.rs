//! A client of the database that writes as `ovs-vsctl` does, and waits as it does.

use std::io::{BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Deserializer, StreamDeserializer, Value, de::IoRead, json};

/// A connection (RFC 7047) that is told of every configuration that Open vSwitch has applied.
pub(super) struct Database {
    stream: UnixStream,
    messages: StreamDeserializer<'static, IoRead<BufReader<UnixStream>>, Value>,
    applied: i64,
}

const TIME_OUT: Duration = Duration::from_secs(30);

impl Database {
    pub(super) fn connect(socket: &Path) -> Result<Self> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("connecting to {}", socket.display()))?;
        stream.set_read_timeout(Some(TIME_OUT))?;
        let messages = Deserializer::from_reader(BufReader::new(stream.try_clone()?)).into_iter();
        let mut database = Self { stream, messages, applied: 0 };
        let monitored = json!({ "Open_vSwitch": { "columns": ["cur_cfg"] } });
        let rows = database.call("monitor", &json!(["Open_vSwitch", null, monitored]))?;
        database.notice(&rows);
        Ok(database)
    }

    /// Changes a port's tag, and returns the number of the configuration that has it.
    pub(super) fn set_tag(&mut self, port: &str, tag: u16) -> Result<i64> {
        let operations = json!([
            "Open_vSwitch",
            { "op": "update", "table": "Port", "where": [["name", "==", port]], "row": { "tag": tag } },
            { "op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]] },
            { "op": "select", "table": "Open_vSwitch", "where": [], "columns": ["next_cfg"] },
        ]);
        let results = self.call("transact", &operations)?;
        results[2]["rows"][0]["next_cfg"].as_i64().with_context(|| format!("no next_cfg in {results}"))
    }

    /// Waits until Open vSwitch has applied this configuration, and returns when it said so.
    pub(super) fn wait_applied(&mut self, generation: i64) -> Result<Instant> {
        while self.applied < generation {
            let message = self.next()?;
            self.take(&message)?;
        }
        Ok(Instant::now())
    }

    fn call(&mut self, method: &str, params: &Value) -> Result<Value> {
        let request = json!({ "id": method, "method": method, "params": params });
        self.stream.write_all(request.to_string().as_bytes()).context("writing to the database")?;
        loop {
            let message = self.next()?;
            if message["id"] == method && message.get("method").is_none() {
                if !message["error"].is_null() {
                    bail!("{method}: {}", message["error"]);
                }
                return Ok(message["result"].clone());
            }
            self.take(&message)?;
        }
    }

    fn next(&mut self) -> Result<Value> {
        self.messages
            .next()
            .context("the database closed the connection")?
            .context("reading from the database")
    }

    fn take(&mut self, message: &Value) -> Result<()> {
        match message["method"].as_str() {
            Some("update") => self.notice(&message["params"][1]),
            Some("echo") => {
                let reply = json!({ "id": message["id"], "result": message["params"], "error": null });
                self.stream.write_all(reply.to_string().as_bytes()).context("answering the database")?;
            }
            _ => {}
        }
        Ok(())
    }

    fn notice(&mut self, tables: &Value) {
        let rows = tables["Open_vSwitch"].as_object().into_iter().flat_map(|rows| rows.values());
        for generation in rows.filter_map(|row| row["new"]["cur_cfg"].as_i64()) {
            self.applied = generation;
        }
    }
}
