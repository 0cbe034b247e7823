//! The server's congestion control towards a client: an attribute of its route, which accepted sockets take over.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CongestionControl {
    #[default]
    Cubic,
    Bbr,
}

impl CongestionControl {
    pub const ALL: [Self; 2] = [Self::Cubic, Self::Bbr];

    /// As the kernel and `ip route` call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        }
    }
}
