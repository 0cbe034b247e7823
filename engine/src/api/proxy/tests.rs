use std::net::{Ipv4Addr, SocketAddr};

use axum::http::HeaderValue;
use proptest::{collection::vec, prelude::*};

use super::*;

const GATEWAY: &str = "10.0.0.1";

fn trusted() -> TrustedProxies {
    TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()])
}

/// What the gateway's headers name.
fn origin(headers: &[(&'static str, &str)]) -> Option<Origin> {
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).unwrap();
    let mut map = HeaderMap::new();
    headers.iter().for_each(|(name, text)| {
        map.append(*name, value(text));
    });
    trusted().origin(GATEWAY.parse().unwrap(), &map)
}

fn peer(address: &str) -> Option<Origin> {
    Some(Origin::Peer(address.parse().unwrap()))
}

#[test]
fn nobody_is_believed_by_default_nor_from_elsewhere() {
    let headers = HeaderMap::from_iter([(CONNECTION, HeaderValue::from_static("192.0.2.1:80"))]);
    assert_eq!(TrustedProxies::default().origin("127.0.0.1".parse().unwrap(), &headers), None);
    assert_eq!(trusted().origin("11.0.0.1".parse().unwrap(), &headers), None);
    assert_eq!(trusted().origin("::ffff:10.0.0.1".parse().unwrap(), &headers), peer("192.0.2.1:80"));
}

#[test]
fn the_connection_itself_goes_before_what_others_say() {
    let forwarded = ("forwarded", "for=\"192.0.2.9:9\"");
    assert_eq!(origin(&[("x-tokenflow-connection", "4711"), forwarded]), Some(Origin::Cookie(4711)));
    assert_eq!(origin(&[("x-tokenflow-connection", "[::ffff:192.0.2.1]:80"), forwarded]), peer("192.0.2.1:80"));
    assert_eq!(origin(&[("x-tokenflow-connection", "[2001:db8::1]:80")]), peer("[2001:db8::1]:80"));
    for nonsense in ["", "0", "99999999999999999999", "192.0.2.1", "x"] {
        assert_eq!(origin(&[("x-tokenflow-connection", nonsense), forwarded]), None, "{nonsense}");
    }
    assert_eq!(origin(&[forwarded, ("x-forwarded-for", "192.0.2.1:80")]), peer("192.0.2.9:9"));
    assert_eq!(origin(&[]), None);
}

#[test]
fn forwarded_is_read_as_the_rfc_writes_it() {
    for (value, named) in [
        ("for=\"192.0.2.43:47011\"", peer("192.0.2.43:47011")),
        ("For=\"[2001:db8:cafe::17]:4711\"", peer("[2001:db8:cafe::17]:4711")),
        ("proto=https;by=203.0.113.43;for=\"192.0.2.60:1\" ; host=x", peer("192.0.2.60:1")),
        ("for=192.0.2.43", None),
        ("for=\"_gazonk:80\"", None),
        ("for=unknown", None),
        ("for=\"192.0.2.1:80", None),
        ("for=\"192.0.2.1:80\"x", None),
        ("by=\"a,b;for=c\";for=\"192.0.2.1:80\"", peer("192.0.2.1:80")),
        ("for=\"192.0.2.\\1:80\"", peer("192.0.2.1:80")),
    ] {
        assert_eq!(origin(&[("forwarded", value)]), named, "{value}");
    }
}

#[test]
fn the_client_is_the_rightmost_hop_that_is_no_proxy_of_ours() {
    let spoofed = "for=\"198.51.100.9:1\", for=\"192.0.2.1:80\", for=\"10.0.0.7:99\"";
    assert_eq!(origin(&[("forwarded", spoofed)]), peer("192.0.2.1:80"));
    assert_eq!(origin(&[("x-forwarded-for", "198.51.100.9:1, 192.0.2.1:80,10.0.0.7")]), peer("192.0.2.1:80"));
    assert_eq!(origin(&[("x-forwarded-for", "198.51.100.9:1"), ("x-forwarded-for", "192.0.2.1:80")]), peer("192.0.2.1:80"));
    assert_eq!(origin(&[("x-forwarded-for", "198.51.100.9:1, unknown")]), None, "who hides is not passed over");
    assert_eq!(origin(&[("x-forwarded-for", "198.51.100.9:1, 192.0.2.1")]), None, "an address without a port names no connection");
    assert_eq!(origin(&[("x-forwarded-for", "10.0.0.9:5, 10.0.0.8:6")]), peer("10.0.0.9:5"));
    assert_eq!(origin(&[("x-forwarded-for", "2001:db8::1, [2001:db8::2]:7")]), peer("[2001:db8::2]:7"));
}

proptest! {
    #[test]
    fn any_bytes_name_a_connection_or_none(name in 0..3usize, bytes in vec(any::<u8>(), 0..60), text in "[for=\";,:.\\[\\]0-9 \\\\]{0,60}") {
        let name = [CONNECTION, header::FORWARDED, X_FORWARDED_FOR][name].clone();
        for bytes in [bytes.as_slice(), text.as_bytes()] {
            let Ok(value) = HeaderValue::from_bytes(bytes) else { continue };
            trusted().origin(GATEWAY.parse().unwrap(), &HeaderMap::from_iter([(name.clone(), value)]));
        }
    }

    #[test]
    fn what_a_client_writes_itself_names_nobody_else(written in "[ -~]{0,60}", client in any::<u32>(), port in any::<u16>()) {
        let client = SocketAddr::from((Ipv4Addr::from(client), port));
        prop_assume!(!trusted().contains(client.ip()));
        // The proxy appends the address that the client connected from.
        let named = origin(&[("x-forwarded-for", &format!("{written}, {client}"))]);
        prop_assert_eq!(named, Some(Origin::Peer(client)));
        let named = origin(&[("forwarded", &written), ("forwarded", &format!("for=\"{client}\""))]);
        prop_assert!(named.is_none() || named == Some(Origin::Peer(client)));
    }

    #[test]
    fn every_address_is_read_back(address in any::<SocketAddr>(), quoted in any::<bool>()) {
        let canonical = SocketAddr::new(address.ip().to_canonical(), address.port());
        prop_assume!(!trusted().contains(canonical.ip()));
        let text = match address { SocketAddr::V6(v6) => format!("[{}]:{}", v6.ip(), v6.port()), v4 => v4.to_string() };
        let element = if quoted { format!("for=\"{text}\"") } else { format!("for={text}") };
        prop_assert_eq!(origin(&[("forwarded", &element)]), Some(Origin::Peer(canonical)));
        prop_assert_eq!(origin(&[("x-forwarded-for", &text)]), Some(Origin::Peer(canonical)));
    }
}
