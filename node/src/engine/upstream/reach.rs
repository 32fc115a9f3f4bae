//! Where an upstream may be: on this machine, or where its owner said. What counts is the address that a name
//! resolves to when the connection is made.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Url};
use thiserror::Error;

/// Longest time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Idle connections are kept for less long than the servers at the other end keep them (uvicorn, under vLLM: 5 s), so
/// that no request meets a connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// Hosts that upstreams may be on, beyond loopback.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedHosts {
    names: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
}

/// An upstream that is where none may be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{url} is neither on this machine nor on a host that was allowed; name its host in allowed_upstream_hosts if \
     you mean it"
)]
pub struct UpstreamNotAllowed {
    url: String,
}

impl AllowedHosts {
    /// From what an owner wrote: names and IP addresses.
    #[must_use]
    pub fn new(hosts: &[String]) -> Self {
        let mut allowed = Self::default();
        for host in hosts {
            match host.trim_matches(['[', ']']).parse::<IpAddr>() {
                Ok(address) => allowed.addresses.insert(address.to_canonical()),
                Err(_) => allowed.names.insert(host.to_ascii_lowercase()),
            };
        }
        allowed
    }

    /// Whether a connection to this address may be made for this name.
    fn permit(&self, name: &str, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_loopback()
            || self.addresses.contains(&address)
            || self.names.contains(&name.to_ascii_lowercase())
    }

    /// Checks an address that is written as numbers. Names are checked when they are resolved.
    ///
    /// # Errors
    /// [`UpstreamNotAllowed`] where it is on another machine that was not allowed.
    pub fn check(&self, url: &Url) -> Result<(), UpstreamNotAllowed> {
        let host = url.host_str().unwrap_or_default();
        match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) if !self.permit(host, address) => Err(UpstreamNotAllowed { url: url.to_string() }),
            _ => Ok(()),
        }
    }

    /// An HTTP client that connects to permitted addresses only, follows no redirects and uses no proxy.
    ///
    /// # Errors
    /// What the system says where it can't be set up.
    pub(super) fn client(&self) -> Result<Client, reqwest::Error> {
        Client::builder()
            .dns_resolver(Arc::new(GuardedResolver(self.clone())))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true)
            .user_agent(concat!("gristmill-node/", env!("CARGO_PKG_VERSION")))
            .build()
    }
}

/// Resolves names to permitted addresses only.
#[derive(Debug)]
struct GuardedResolver(AllowedHosts);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = self.0.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let permitted: Vec<SocketAddr> = found
                .filter(|address| allowed.permit(name.as_str(), address.ip()))
                .collect();
            if permitted.is_empty() {
                let reason = format!("{} is neither on this machine nor allowed", name.as_str());
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason).into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(allowed: &[&str], url: &str) -> bool {
        let hosts: Vec<_> = allowed.iter().map(ToString::to_string).collect();
        AllowedHosts::new(&hosts).check(&Url::parse(url).unwrap()).is_ok()
    }

    #[test]
    fn loopback_in_every_spelling_and_nothing_else() {
        for url in [
            "http://127.0.0.1:1",
            "http://127.9.9.9",
            "http://[::1]:1",
            "http://[::ffff:127.0.0.1]",
            "http://2130706433",
            "http://0x7f.1",
            "http://localhost",
        ] {
            assert!(check(&[], url), "{url}");
        }
        for url in [
            "http://169.254.169.254/latest/meta-data",
            "http://[::ffff:169.254.169.254]",
            "http://[fd00:ec2::254]",
            "http://192.168.1.1",
            "http://10.0.0.1",
            "http://0.0.0.0",
            "http://[::]",
            "http://[fe80::1]",
            "http://2852039166",
            "http://8.8.8.8",
        ] {
            assert!(!check(&[], url), "{url}");
        }
    }

    #[test]
    fn hosts_that_were_allowed_are_and_others_still_are_not() {
        assert!(check(&["192.168.1.5", "[fd00::1]"], "http://192.168.1.5:8000"));
        assert!(check(&["fd00::1"], "http://[fd00::1]:8000"));
        assert!(!check(&["192.168.1.5"], "http://192.168.1.6:8000"));
        let allowed = AllowedHosts::new(&["GPU-box.lan".into()]);
        assert!(allowed.permit("gpu-box.LAN", IpAddr::from([192, 168, 1, 5])));
        assert!(!allowed.permit("other.lan", IpAddr::from([192, 168, 1, 5])));
        assert!(allowed.permit("other.lan", IpAddr::from([127, 0, 0, 1])));
    }

    #[tokio::test]
    async fn a_name_is_judged_by_what_it_resolves_to() {
        let resolver = GuardedResolver(AllowedHosts::default());
        let resolve = async |name: &str| resolver.resolve(name.parse().unwrap()).await.map(Iterator::count);
        assert!(resolve("localhost").await.unwrap() > 0);
        // Written as numbers, so that nothing is asked of a name server.
        assert!(resolve("192.0.2.1").await.is_err());
    }
}
