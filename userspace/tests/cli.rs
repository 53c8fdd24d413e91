//! The command line as a shell runs it, with an agent that only plays one.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{io, thread};

use serde_json::{Value, json};
use trunkline::control::{Reply, Request};

const FRAME: &str = "0200000000020200000000010800";

/// Answers every request in a run directory as an agent with nothing to tell would.
fn play_agent(run_dir: &Path) {
    let listener = UnixListener::bind(run_dir.join("control.sock")).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            // `detach` first tries whether somebody listens.
            let Ok(request) = serde_json::from_str(&line) else { continue };
            let reply = serde_json::to_string(&Reply::Ok(document(&request))).unwrap();
            stream.write_all(format!("{reply}\n").as_bytes()).unwrap();
        }
    });
}

fn document(request: &Request) -> Value {
    match request {
        Request::Status => {
            let ovs =
                json!({"connected": true, "reason": null, "version": "3.1.0", "cur_cfg": 1, "next_cfg": 1});
            json!({"version": "0.1.0", "ready": true, "ovs": ovs, "bridges": []})
        }
        Request::FdbShow => json!([]),
        Request::FdbFlush { .. } => json!(3),
        Request::Stats => json!({"ports": []}),
        Request::Trace { port, frame, .. } => json!({
            "bridge": "br0", "port": port, "frame": frame, "verdict": "drop", "reason": "same_port", "vlan": 10,
            "out_port": null, "out_frame": null, "steps": [], "ofport": 1, "ovs": null
        }),
        Request::Detach => json!({"failures": []}),
    }
}

/// The command of this line, without standard input.
fn trunkline(line: &str, run_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline"));
    command.args(line.split_whitespace()).arg("--run-dir").arg(run_dir).stdin(Stdio::null());
    command
}

/// A pipe that nobody reads any more.
fn left_pipe() -> Stdio {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// Every command that prints.
fn printing() -> Vec<String> {
    let trace = format!("trace --port p1 --frame {FRAME}");
    let lines =
        ["status", "status --json", "stats", "stats --json", "fdb show", "fdb show --json", "fdb flush"];
    let mut lines: Vec<String> = lines.map(str::to_owned).into();
    lines.extend([trace.clone(), format!("{trace} --json"), "detach".to_owned()]);
    lines
}

#[test]
fn a_reader_that_leaves_ends_any_command_quietly() {
    let agent = tempfile::tempdir().unwrap();
    play_agent(agent.path());
    let absent = tempfile::tempdir().unwrap();
    let commands = printing().into_iter().map(|line| (line, agent.path()));
    for (line, run_dir) in commands.chain([("detach".to_owned(), absent.path())]) {
        let read = trunkline(&line, run_dir).output().unwrap();
        assert!(read.status.success() && !read.stdout.is_empty(), "{line}: {read:?}");
        let left = trunkline(&line, run_dir).stdout(left_pipe()).output().unwrap();
        // As a shell says of what SIGPIPE has ended.
        assert_eq!(left.status.code(), Some(141), "{line}: {left:?}");
        assert!(left.stderr.is_empty(), "{line}: {left:?}");
    }
}

#[test]
fn only_the_first_line_may_be_wanted() {
    let agent = tempfile::tempdir().unwrap();
    play_agent(agent.path());
    let mut status = trunkline("status --json", agent.path());
    let mut child = status.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((&first, output.stderr.is_empty()), (b"{", true), "{output:?}");
}

#[test]
fn an_output_that_fails_otherwise_is_an_error() {
    let agent = tempfile::tempdir().unwrap();
    play_agent(agent.path());
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = trunkline("status", agent.path()).stdout(full).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("cannot write to the standard output: No space left"), "{error}");
}

#[test]
fn an_error_that_nobody_reads_is_no_panic() {
    let absent = tempfile::tempdir().unwrap();
    let status =
        trunkline("status", absent.path()).stdout(Stdio::null()).stderr(left_pipe()).status().unwrap();
    assert_eq!(status.code(), Some(1));
    // `detach` warns of it and goes on.
    std::fs::write(absent.path().join("rx-vlan-offload-off"), "damaged").unwrap();
    let detach = trunkline("detach", absent.path()).stderr(left_pipe()).output().unwrap();
    assert!(detach.status.success(), "{detach:?}");
    let detach = trunkline("detach", absent.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&detach.stderr).contains("of no use"), "{detach:?}");
}
