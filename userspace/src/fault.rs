//! Faults on purpose, for the tests of supervision; a release build has none.

/// In debug builds, panics when `TRUNKLINE_FAULT` is `panic:NAME:FILE` with this name, and the file exists.
pub(crate) fn check(name: &str) {
    #[cfg(debug_assertions)]
    if armed(name) == Some(Fault::Panic) {
        panic!("{name}: a fault on purpose");
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}

/// Does the same from time to time, and returns when it is `end:NAME:FILE` instead.
pub(crate) async fn strike(name: &str) {
    #[cfg(debug_assertions)]
    if std::env::var_os(VARIABLE).is_some() {
        while armed(name) != Some(Fault::End) {
            check(name);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        return;
    }
    let _ = name;
    std::future::pending().await
}

#[cfg(debug_assertions)]
const VARIABLE: &str = "TRUNKLINE_FAULT";

#[cfg(debug_assertions)]
#[derive(PartialEq, Eq)]
enum Fault {
    Panic,
    End,
}

#[cfg(debug_assertions)]
fn armed(name: &str) -> Option<Fault> {
    let fault = std::env::var(VARIABLE).ok()?;
    let mut words = fault.splitn(3, ':');
    let (kind, named, file) = (words.next()?, words.next()?, words.next()?);
    let kind = if kind == "end" { Fault::End } else { Fault::Panic };
    (named == name && std::path::Path::new(file).exists()).then_some(kind)
}
