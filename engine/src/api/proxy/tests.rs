use std::net::{Ipv4Addr, SocketAddr};

use axum::http::HeaderValue;
use proptest::{collection::vec, prelude::*};

use super::*;

const GATEWAY: &str = "10.0.0.1";

fn trusted(header: ProxyHeader) -> TrustedProxies {
    TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()], header)
}

/// What the headers name where the gateway writes the first of them.
fn origin(headers: &[(&'static str, &str)]) -> Option<Origin> {
    let written = headers.first().map_or("x-forwarded-for", |(name, _)| name);
    named_by(ProxyHeader::from_str(written, false).unwrap(), headers)
}

fn named_by(header: ProxyHeader, headers: &[(&'static str, &str)]) -> Option<Origin> {
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).unwrap();
    let mut map = HeaderMap::new();
    headers.iter().for_each(|(name, text)| {
        map.append(*name, value(text));
    });
    trusted(header).origin(GATEWAY.parse().unwrap(), &map)
}

fn peer(address: &str) -> Option<Origin> {
    Some(Origin::Peer(address.parse().unwrap()))
}

#[test]
fn nobody_is_believed_by_default_nor_from_elsewhere() {
    let headers = HeaderMap::from_iter([(CONNECTION, HeaderValue::from_static("192.0.2.1:80"))]);
    assert_eq!(TrustedProxies::default().origin("127.0.0.1".parse().unwrap(), &headers), None);
    let trusted = trusted(ProxyHeader::XTokenFlowConnection);
    assert_eq!(trusted.origin("11.0.0.1".parse().unwrap(), &headers), None);
    assert_eq!(trusted.origin("::ffff:10.0.0.1".parse().unwrap(), &headers), peer("192.0.2.1:80"));
}

#[test]
fn only_the_header_that_the_proxies_write_is_read() {
    let forwarded = ("forwarded", "for=\"192.0.2.9:9\"");
    assert_eq!(origin(&[("x-tokenflow-connection", "4711"), forwarded]), Some(Origin::Cookie(4711)));
    assert_eq!(origin(&[("x-tokenflow-connection", "[::ffff:192.0.2.1]:80"), forwarded]), peer("192.0.2.1:80"));
    assert_eq!(origin(&[("x-tokenflow-connection", "[2001:db8::1]:80")]), peer("[2001:db8::1]:80"));
    for nonsense in ["", "0", "99999999999999999999", "192.0.2.1", "x"] {
        assert_eq!(origin(&[("x-tokenflow-connection", nonsense), forwarded]), None, "{nonsense}");
    }
    assert_eq!(origin(&[forwarded, ("x-forwarded-for", "192.0.2.1:80")]), peer("192.0.2.9:9"));
    assert_eq!(origin(&[("x-forwarded-for", "192.0.2.1:80"), forwarded, ("x-tokenflow-connection", "4711")]), peer("192.0.2.1:80"));
    for header in ProxyHeader::value_variants() {
        assert_eq!(named_by(*header, &[]), None);
    }
    assert_eq!(named_by(ProxyHeader::XTokenFlowConnection, &[forwarded]), None);
    assert_eq!(named_by(ProxyHeader::default(), &[forwarded]), None);
    let (one, other) = (("x-tokenflow-connection", "192.0.2.1:80"), ("x-tokenflow-connection", "192.0.2.2:80"));
    assert_eq!(origin(&[one, other]), None, "of two, one is the client's");
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
        let by = ProxyHeader::value_variants()[name];
        let name = [header::FORWARDED, X_FORWARDED_FOR, CONNECTION][name].clone();
        for bytes in [bytes.as_slice(), text.as_bytes()] {
            let Ok(value) = HeaderValue::from_bytes(bytes) else { continue };
            trusted(by).origin(GATEWAY.parse().unwrap(), &HeaderMap::from_iter([(name.clone(), value)]));
        }
    }

    #[test]
    fn what_a_client_writes_itself_names_nobody_else(
        written in prop_oneof!["[ -~]{0,60}", Just("for=\"192.0.2.1:80\"".to_owned()), Just("192.0.2.1:80".to_owned())],
        others in vec(0..3usize, 0..4), client in any::<u32>(), port in any::<u16>(),
    ) {
        let client = SocketAddr::from((Ipv4Addr::from(client), port));
        prop_assume!(!trusted(ProxyHeader::default()).contains(client.ip()));
        // The proxy appends the address that the client connected from.
        let (client_text, element) = (client.to_string(), format!("for=\"{client}\""));
        for (by, line) in [
            (ProxyHeader::Forwarded, ("forwarded", element.as_str())),
            (ProxyHeader::XForwardedFor, ("x-forwarded-for", &client_text)),
            (ProxyHeader::XTokenFlowConnection, ("x-tokenflow-connection", &client_text)),
        ] {
            let names = ["forwarded", "x-forwarded-for", "x-tokenflow-connection"];
            let mut lines: Vec<_> = others.iter().map(|&other| (names[other], written.as_str())).collect();
            lines.push(line);
            let named = named_by(by, &lines);
            prop_assert!(named.is_none() || named == Some(Origin::Peer(client)), "{:?} {:?}: {:?}", by, lines, named);
        }
        let named = origin(&[("x-forwarded-for", &format!("{written}, {client}"))]);
        prop_assert_eq!(named, Some(Origin::Peer(client)));
        let named = origin(&[("forwarded", &written), ("forwarded", &format!("for=\"{client}\""))]);
        prop_assert!(named.is_none() || named == Some(Origin::Peer(client)));
    }

    #[test]
    fn every_address_is_read_back(address in any::<SocketAddr>(), quoted in any::<bool>()) {
        let canonical = SocketAddr::new(address.ip().to_canonical(), address.port());
        prop_assume!(!trusted(ProxyHeader::default()).contains(canonical.ip()));
        let text = match address { SocketAddr::V6(v6) => format!("[{}]:{}", v6.ip(), v6.port()), v4 => v4.to_string() };
        let element = if quoted { format!("for=\"{text}\"") } else { format!("for={text}") };
        prop_assert_eq!(origin(&[("forwarded", &element)]), Some(Origin::Peer(canonical)));
        prop_assert_eq!(origin(&[("x-forwarded-for", &text)]), Some(Origin::Peer(canonical)));
    }
}
