//! Ports that nobody else is given between two processes.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// An address with a free port, which stays free until a process takes it and between two that do: the system gives the
/// ports below its ephemeral ones (from 32,768 on Linux) to nobody by itself.
pub(crate) fn steady_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 2_000).unwrap_or(0) * 10;
    let address = || {
        let port = 10_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 22_000;
        SocketAddr::from(([127, 0, 0, 1], port))
    };
    std::iter::repeat_with(address)
        .take(22_000)
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("one of so many ports is free")
}
