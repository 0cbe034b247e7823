//! The file: JSON lines. The first is the header, each other one round of looks.
//!
//! Fields that are zero, unknown or as everywhere in the trace are left out. Unknown fields are passed over, so that a newer recorder may add
//! some; what changes the meaning of the old ones gets a new version.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokenflow_hint_api::Source;
use tokenflow_score::Measurement;

use crate::probe::{Identity, Look};

/// The version that is written and read.
pub const VERSION: u32 = 1;
pub(super) const FORMAT: &str = "tokenflow-trace";

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// `tokenflow-trace`.
    pub format: String,
    pub version: u32,
    /// What people should know of the recording.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Header {
    pub fn new(note: Option<String>) -> Self {
        Self { format: FORMAT.to_owned(), version: VERSION, note }
    }
}

/// One round of looks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// Microseconds since the recording began.
    pub at_us: u64,
    pub source: Source,
    /// The probe failed: what it saw is not complete and left out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub failed: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub looks: Vec<TraceLook>,
}

/// One look at one connection, as [`Measurement`] has it; its time is the round's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceLook {
    pub cookie: u64,
    /// Only in the connection's first look, and only where addresses were to be recorded.
    #[serde(default, skip_serializing_if = "is_default")]
    pub local: Option<SocketAddr>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub peer: Option<SocketAddr>,
    /// Where it is not the round's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub source: Option<Source>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub srtt_us: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub min_rtt_us: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub data_segs_out: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub retransmits: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub rtos: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub bytes_acked: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub undelivered_bytes: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub delivery_rate_bytes_per_s: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub app_limited: Option<bool>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl TraceLook {
    /// Without addresses.
    pub(super) fn new(look: &Look, round: Source) -> Self {
        let m = &look.measurement;
        Self {
            cookie: look.identity.cookie,
            local: None,
            peer: None,
            source: (look.source != round).then_some(look.source),
            srtt_us: m.srtt_us,
            min_rtt_us: m.min_rtt_us,
            data_segs_out: m.data_segs_out,
            retransmits: m.retransmits,
            rtos: m.rtos,
            bytes_acked: m.bytes_acked,
            undelivered_bytes: m.undelivered_bytes,
            delivery_rate_bytes_per_s: m.delivery_rate_bytes_per_s,
            app_limited: m.app_limited,
        }
    }

    pub(super) fn look(&self, at: Duration, round: Source) -> Look {
        let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Look {
            identity: Identity { cookie: self.cookie, local: self.local.unwrap_or(unknown), peer: self.peer.unwrap_or(unknown) },
            measurement: Measurement {
                at,
                srtt_us: self.srtt_us,
                min_rtt_us: self.min_rtt_us,
                data_segs_out: self.data_segs_out,
                retransmits: self.retransmits,
                rtos: self.rtos,
                bytes_acked: self.bytes_acked,
                undelivered_bytes: self.undelivered_bytes,
                delivery_rate_bytes_per_s: self.delivery_rate_bytes_per_s,
                app_limited: self.app_limited,
            },
            source: self.source.unwrap_or(round),
        }
    }
}
