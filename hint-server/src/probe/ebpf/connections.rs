//! The map of connections, read in batches: one system call for hundreds of entries instead of two for each.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use aya::maps::{HashMap, Map, MapError};
use tokenflow_ebpf_common::ConnectionStats;

use super::{AttachError, ReadError};

/// Entries per system call. The kernel copies whole buckets, of which none is near this long.
const BATCH: usize = 512;

/// `BPF_MAP_LOOKUP_BATCH` of `enum bpf_cmd`; since Linux 5.6.
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

pub(super) struct Connections {
    map: Map,
    keys: Vec<u64>,
    values: Vec<ConnectionStats>,
}

impl Connections {
    pub(super) fn new(map: Map) -> Result<Self, AttachError> {
        // Checks the map's type and the sizes of its keys and values, on which `lookup_batch` relies.
        HashMap::<_, u64, ConnectionStats>::try_from(&map)?;
        Ok(Self { map, keys: vec![0; BATCH], values: vec![ConnectionStats::default(); BATCH] })
    }

    pub(super) fn get(&self, cookie: u64) -> Result<Option<ConnectionStats>, ReadError> {
        match HashMap::<_, u64, ConnectionStats>::try_from(&self.map)?.get(&cookie, 0) {
            Ok(stats) => Ok(Some(stats)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn for_each(&mut self, mut visit: impl FnMut(&ConnectionStats)) -> Result<(), ReadError> {
        let (Map::HashMap(data) | Map::LruHashMap(data)) = &self.map else { unreachable!("checked when made") };
        let mut cursor = None;
        loop {
            let batch = lookup_batch(data.fd().as_fd(), cursor, &mut self.keys, &mut self.values).map_err(ReadError::Batch)?;
            self.values[..batch.count].iter().for_each(&mut visit);
            match batch.next {
                Some(next) => cursor = Some(next),
                None => return Ok(()),
            }
        }
    }
}

struct Batch {
    count: usize,
    /// Where to go on; `None` at the end.
    next: Option<u32>,
}

/// The part of `union bpf_attr` that batch commands use.
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

fn lookup_batch(map: BorrowedFd<'_>, cursor: Option<u32>, keys: &mut [u64], values: &mut [ConnectionStats]) -> io::Result<Batch> {
    let mut next = 0_u32;
    let mut attr = BatchAttr {
        in_batch: cursor.as_ref().map_or(0, |cursor| &raw const *cursor as u64),
        out_batch: &raw mut next as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: keys.len().min(values.len()) as u32,
        map_fd: map.as_raw_fd() as u32,
        ..BatchAttr::default()
    };
    // SAFETY: the kernel reads `attr` and the cursor that it points to, and writes at most `count` keys and values of the sizes that
    // `Connections::new` checked, the next cursor (a u32 for hash maps), and the new count; all of it outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut attr, size_of::<BatchAttr>()) };
    let at_end = match result {
        0 => false,
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOENT) => true,
            error => return Err(error),
        },
    };
    Ok(Batch { count: attr.count as usize, next: (!at_end).then_some(next) })
}
