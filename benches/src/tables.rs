//! The maps that the small programs use: devices to send to, the program to go on with, and headers of frames.

use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, DevMap, Map as AnyMap, MapData, ProgramArray};
use aya::programs::Xdp;
use aya_obj::Map;

use crate::frame::{Header, REWRITTEN};

/// A device map.
pub struct Devices {
    _map: DevMap<MapData>,
    pub(crate) fd: RawFd,
}

impl Devices {
    /// Devices of the calling thread's network namespace, in their places.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new(ifindices: &[u32]) -> Result<Self> {
        const BPF_MAP_TYPE_DEVMAP: u32 = 14;
        let params = Map::new_from_params(BPF_MAP_TYPE_DEVMAP, 4, 8, ifindices.len() as u32, 0);
        let data = MapData::create(params, "devices", None)?;
        let fd = data.fd().as_fd().as_raw_fd();
        let mut map = DevMap::try_from(AnyMap::DevMap(data))?;
        for (place, ifindex) in (0..).zip(ifindices) {
            map.set(place, *ifindex, None, 0).context("entering a device to send to")?;
        }
        Ok(Self { _map: map, fd })
    }
}

/// A table with the program that another one continues with. The kernel empties it when this is dropped.
pub struct Next {
    _map: ProgramArray<MapData>,
    pub(crate) fd: RawFd,
}

impl Next {
    /// Continues with `program`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new(program: &Xdp) -> Result<Self> {
        const BPF_MAP_TYPE_PROG_ARRAY: u32 = 3;
        let data = MapData::create(Map::new_from_params(BPF_MAP_TYPE_PROG_ARRAY, 4, 4, 1, 0), "next", None)?;
        let fd = data.fd().as_fd().as_raw_fd();
        let mut map = ProgramArray::try_from(AnyMap::ProgramArray(data))?;
        map.set(0, program.fd()?, 0).context("entering the program to continue with")?;
        Ok(Self { _map: map, fd })
    }
}

/// Starts of frames, written one after the other, over and over: by one program at a time.
pub struct Headers {
    headers: Array<MapData, Header>,
    cursor: Array<MapData, u64>,
    pub(crate) headers_fd: RawFd,
    pub(crate) cursor_fd: RawFd,
    pub(crate) count: i32,
}

impl Headers {
    /// As many as a power of two.
    ///
    /// # Errors
    /// They are another number, or the kernel refuses.
    pub fn new(headers: &[Header]) -> Result<Self> {
        ensure!(headers.len().is_power_of_two(), "{} headers, which is no power of two", headers.len());
        let count = i32::try_from(headers.len())?;
        let (data, headers_fd) = array(REWRITTEN as u32, headers.len() as u32)?;
        let mut map = Array::<_, [u8; REWRITTEN]>::try_from(AnyMap::Array(data))?;
        for (place, header) in (0..).zip(headers) {
            map.set(place, header, 0).context("entering a header")?;
        }
        let (cursor, cursor_fd) = array(8, 1)?;
        let cursor = Array::try_from(AnyMap::Array(cursor))?;
        Ok(Self { headers: map, cursor, headers_fd, cursor_fd, count })
    }

    /// All of them, in their order.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn all(&self) -> Result<Vec<Header>> {
        self.headers.iter().map(|header| header.context("reading the headers")).collect()
    }

    /// Starts again with the first.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn rewind(&mut self) -> Result<()> {
        self.cursor.set(0, 0, 0).context("rewinding the headers")
    }
}

fn array(value: u32, entries: u32) -> Result<(MapData, RawFd)> {
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    let data =
        MapData::create(Map::new_from_params(BPF_MAP_TYPE_ARRAY, 4, value, entries, 0), "table", None)?;
    let fd = data.fd().as_fd().as_raw_fd();
    Ok((data, fd))
}
