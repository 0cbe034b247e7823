//! Networks, as `10.0.0.0/8`, `2001:db8::/32` or one address.

use std::{fmt, net::IpAddr, str::FromStr};

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// An IPv4 address written as such, the host's bits cleared.
    network: IpAddr,
    prefix: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an address or a network such as 10.0.0.0/8 or 2001:db8::/32")]
pub struct CidrError;

impl Cidr {
    fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        (prefix <= bits(address)).then(|| Self { network: masked(address, prefix), prefix })
    }

    /// Addresses of IPv4 that IPv6 maps are IPv4's.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.network.is_ipv4() && masked(address, self.prefix) == self.network
    }
}

const fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Its first `prefix` bits.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| CidrError)?;
        let prefix = match prefix {
            None => bits(address),
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().map_err(|_| CidrError)?,
            Some(_) => return Err(CidrError),
        };
        // ::ffff:10.0.0.0/104 is 10.0.0.0/8.
        let canonical = address.to_canonical();
        let mapped = if canonical == address { Some(prefix) } else { prefix.checked_sub(96) };
        mapped.and_then(|prefix| Self::new(canonical, prefix)).ok_or(CidrError)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn networks_hold_their_addresses() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("192.168.0.0/16", "::ffff:192.168.3.4", "::ffff:192.169.0.1"),
            ("::ffff:10.0.0.0/104", "10.1.1.1", "11.1.1.1"),
        ] {
            let network: Cidr = network.parse().unwrap();
            assert!(network.contains(inside.parse().unwrap()) && !network.contains(outside.parse().unwrap()), "{network}");
        }
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "host", "10.0.0.0/8/8", "::ffff:1.2.3.4/95", "1.2.3.4/256"] {
            assert_eq!(bad.parse::<Cidr>(), Err(CidrError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_network_holds_what_it_was_made_of_and_reads_as_written(address in any::<IpAddr>(), prefix in 0..=128u8) {
            let address = address.to_canonical();
            let network = Cidr::new(address, prefix.min(bits(address))).unwrap();
            prop_assert!(network.contains(address));
            prop_assert_eq!(network.to_string().parse::<Cidr>(), Ok(network));
        }

        #[test]
        fn any_text_is_a_network_or_refused(text in ".{0,40}") {
            let _ = text.parse::<Cidr>();
        }
    }
}
