//! What proxies say of a request's client: `Forwarded`, `X-Forwarded-For`, `X-TokenFlow-Connection`; and networks of the command line.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use axum::http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use tokenflow_engine::api::{Cidr, ProxyHeader, TrustedProxies};

fuzz_target!(|bytes: &[u8]| {
    tokenflow_fuzz::limit_memory();
    let gateway: IpAddr = Ipv4Addr::new(10, 0, 0, 1).into();
    for (name, header) in [
        ("forwarded", ProxyHeader::Forwarded),
        ("x-forwarded-for", ProxyHeader::XForwardedFor),
        ("x-tokenflow-connection", ProxyHeader::XTokenFlowConnection),
    ] {
        let trusted = TrustedProxies::new("10.0.0.0/8".parse::<Cidr>().into_iter().collect(), header);
        let mut headers = HeaderMap::new();
        // A request may bring a header more than once.
        for line in bytes.split(|&byte| byte == b'\n') {
            if let Ok(value) = HeaderValue::from_bytes(line) {
                headers.append(name, value);
            }
        }
        trusted.origin(gateway, &headers);
        assert_eq!(TrustedProxies::default().origin(gateway, &headers), None);
    }
    if let Ok(network) = String::from_utf8_lossy(bytes).parse::<Cidr>() {
        assert_eq!(network.to_string().parse::<Cidr>(), Ok(network));
    }
});
