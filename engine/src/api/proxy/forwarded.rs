//! `Forwarded` (RFC 7239) and `X-Forwarded-For`: the hops that proxies wrote, oldest first.

use std::net::{IpAddr, Ipv6Addr};

/// One hop, with its port where that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// An IPv4 address as such, also where IPv6 maps it.
    pub(super) address: IpAddr,
    pub(super) port: Option<u16>,
}

/// The `for` of each element of a `Forwarded` value; within, `None` for one that has none or hides it. `None` where the value is malformed:
/// then nothing in it can be told apart.
pub(super) fn hops(value: &str) -> Option<Vec<Option<Node>>> {
    let mut hops = Vec::new();
    for element in split(value, b',')? {
        if element.trim().is_empty() {
            continue;
        }
        let mut node = None;
        for pair in split(element, b';')? {
            if pair.trim().is_empty() {
                continue;
            }
            let (name, value) = pair.split_once('=')?;
            if name.trim().eq_ignore_ascii_case("for") {
                node = self::node(&unquoted(value.trim())?);
            }
        }
        hops.push(node);
    }
    Some(hops)
}

/// The entries of an `X-Forwarded-For` value.
pub(super) fn addresses(value: &str) -> impl Iterator<Item = Option<Node>> {
    value.split(',').map(|entry| node(entry.trim()))
}

/// At `separator`s that stand outside of quotes; `None` where a quote is not closed.
fn split(text: &str, separator: u8) -> Option<Vec<&str>> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            byte if byte == separator && !quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    (!quoted).then_some(parts)
}

/// A token as it is, a quoted string without its quotes and escapes; `None` for a mixture.
fn unquoted(value: &str) -> Option<String> {
    let Some(rest) = value.strip_prefix('"') else { return (!value.contains('"')).then(|| value.to_owned()) };
    let inner = rest.strip_suffix('"')?;
    let mut text = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.push(characters.next()?),
            '"' => return None,
            other => text.push(other),
        }
    }
    Some(text)
}

/// `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]`, `[2001:db8::1]:80`, and `2001:db8::1` as `X-Forwarded-For` has it; `None` for anything else,
/// `unknown` and obfuscated names among them.
fn node(text: &str) -> Option<Node> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(Node { address: address.to_canonical(), port: None });
    }
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inside, rest) = rest.split_once(']')?;
            let port = if rest.is_empty() { None } else { Some(port(rest.strip_prefix(':')?)?) };
            (IpAddr::V6(inside.parse::<Ipv6Addr>().ok()?), port)
        }
        None => {
            let (address, digits) = text.split_once(':')?;
            (IpAddr::V4(address.parse().ok()?), Some(port(digits)?))
        }
    };
    Some(Node { address: address.to_canonical(), port })
}

fn port(digits: &str) -> Option<u16> {
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}
