//! The shape of a table: its size, and the hash that places its stations.

use bytemuck::{Pod, Zeroable};

use crate::abi::BUCKET_PLACES;

/// The size of a table and the hash that places its stations. The agent sets it when it loads the programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Shape {
    /// Secrets of the hash, so that nobody can choose addresses that share a bucket. The second is odd.
    pub(super) secrets: [u64; 2],
    /// Number of buckets less one: a mask of a bucket's number.
    pub(super) mask: u32,
    /// Most stations.
    pub(super) limit: u32,
}

impl Shape {
    /// Places for each station of the limit. With this many, the limit is reached before both buckets of a
    /// station are full.
    const ROOM: u32 = 4;
    /// Buckets of the largest table (1 GiB).
    const MOST: u32 = 1 << 24;
    /// Fewest stations to make room for (64 KiB). In a smaller table, chance may fill both buckets of a
    /// station long before the limit.
    const LEAST: u32 = 1024;

    /// Returns the shape for a number of stations, with two numbers that nobody can guess.
    pub const fn new(limit: u32, secrets: [u64; 2]) -> Self {
        let [a, b] = secrets;
        let most = Self::MOST * BUCKET_PLACES / Self::ROOM;
        let limit = if limit < most { limit } else { most };
        let places = if limit < Self::LEAST { Self::LEAST } else { limit.next_power_of_two() } as u64
            * Self::ROOM as u64;
        Self { secrets: [a, b | 1], mask: (places / BUCKET_PLACES as u64) as u32 - 1, limit }
    }

    /// Returns the number of buckets.
    pub const fn buckets(self) -> u32 {
        self.mask + 1
    }

    /// Returns the two buckets in which a key may be, the preferred one first.
    #[inline(always)]
    pub(super) const fn buckets_of(self, key: u64) -> [u32; 2] {
        // As in MurmurHash3's finalizer, with a secret for one of the factors.
        let mut hash = (key ^ self.secrets[0]).wrapping_mul(self.secrets[1]);
        hash = (hash ^ hash >> 32).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        // Its high bits depend on all bits of the key.
        [(hash >> 40) as u32 & self.mask, (hash >> 16) as u32 & self.mask]
    }
}
