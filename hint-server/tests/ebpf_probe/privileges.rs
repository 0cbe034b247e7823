use std::{net::TcpListener, thread};

use caps::{CapSet, Capability, CapsHashSet};
use tokenflow_hint_server::{
    privileges,
    probe::ebpf::{AttachError, EbpfProbe},
};

use super::{Ground, eventually, loopback::connect, unlimited};

/// Capabilities are a thread's own: runs in one that has none.
fn without_capabilities<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let unprivileged = scope.spawn(|| {
            privileges::drop_all().unwrap();
            act()
        });
        unprivileged.join().unwrap()
    })
}

#[test]
fn attaching_without_privilege_says_which_are_needed() {
    let Some(ground) = Ground::try_new() else { return };
    let refused = without_capabilities(|| EbpfProbe::attach(ground.cgroup.path(), &unlimited(&[])).err());
    let error = refused.expect("attached without a capability");
    assert!(matches!(error, AttachError::NotPermitted { .. }), "{error}");
    assert!(error.to_string().contains("CAP_BPF"), "{error}");
}

/// Runs in a thread that has these and no others.
fn with_capabilities<T: Send>(capabilities: &[Capability], act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let limited = scope.spawn(|| {
            caps::set(None, CapSet::Effective, &capabilities.iter().copied().collect::<CapsHashSet>()).unwrap();
            act()
        });
        limited.join().unwrap()
    })
}

#[test]
fn the_three_capabilities_that_the_documents_name_are_enough_and_none_is_too_many() {
    let Some(ground) = Ground::try_new() else { return };
    if ground.attach(unlimited(&[])).is_none() {
        return;
    }
    let needed = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];
    with_capabilities(&needed, || EbpfProbe::attach(ground.cgroup.path(), &unlimited(&[])).map(drop)).unwrap();
    for lacking in needed {
        let others: Vec<_> = needed.into_iter().filter(|capability| *capability != lacking).collect();
        let refused = with_capabilities(&others, || EbpfProbe::attach(ground.cgroup.path(), &unlimited(&[])).err());
        let error = refused.unwrap_or_else(|| panic!("attached without {lacking}"));
        assert!(matches!(error, AttachError::NotPermitted { .. }), "{lacking}: {error}");
    }
}

#[test]
fn an_attached_probe_is_read_without_privilege() {
    let Some(ground) = Ground::try_new() else { return };
    let Some(mut probe) = ground.attach(unlimited(&[])) else { return };
    without_capabilities(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _open = connect(&listener, "127.0.0.1");
        let mut events = probe.take_events().unwrap();
        eventually("two events", || (events.drain(|_| {}) == 2).then_some(()));
        let mut seen = 0;
        probe.for_each(|_| seen += 1).unwrap();
        assert_eq!(seen, 2);
        assert_eq!(probe.counters().unwrap(), Default::default());
    });
}
