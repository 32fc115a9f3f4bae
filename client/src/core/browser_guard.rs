//! Keeps web pages out. A page that a developer looks at can make the browser call localhost, and with a name that
//! it rebinds to 127.0.0.1 even read the answer (CVE-2024-28224). So only known `Host` names are served, and from
//! browsers only listed origins and the endpoint's own page.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::core::failure::ApiFailure;

/// Names by which loopback is called.
const LOOPBACK_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// What a request says about where it comes from. Headers that stand several times are all of them.
#[derive(Clone, Debug, Default)]
pub struct Origins<'a> {
    /// `Host`.
    pub hosts: Vec<&'a [u8]>,
    /// The authority of the request's target, where it has one (RFC 9112 section 3.2.2).
    pub authority: Option<&'a str>,
    /// `Origin`.
    pub origins: Vec<&'a [u8]>,
    /// `Sec-Fetch-Site`, which browsers set and pages can't.
    pub fetch_sites: Vec<&'a [u8]>,
}

/// The lists of what is served.
#[derive(Clone, Debug)]
pub struct BrowserGuard {
    hosts: BTreeSet<String>,
    origins: BTreeSet<String>,
    serves_every_address: bool,
}

impl BrowserGuard {
    /// Serves loopback's names, the address that is listened on, and those listed.
    #[must_use]
    pub fn new(listen: SocketAddr, allowed_hosts: &[String], allowed_origins: &[String]) -> Self {
        let ip = listen.ip();
        let own = match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let listed = allowed_hosts.iter().map(|host| host.to_ascii_lowercase());
        Self {
            hosts: LOOPBACK_NAMES
                .map(str::to_owned)
                .into_iter()
                .chain([own])
                .chain(listed)
                .collect(),
            origins: allowed_origins
                .iter()
                .map(|origin| origin.to_ascii_lowercase())
                .collect(),
            serves_every_address: ip.is_unspecified(),
        }
    }

    /// The origin that may read the answer, where the request comes from one.
    ///
    /// # Errors
    /// [`ApiFailure`] with status 403 where the request comes from, or under a name of, somebody unknown.
    pub fn check<'a>(&self, request: &Origins<'a>) -> Result<Option<&'a str>, ApiFailure> {
        let unknown_host = || {
            ApiFailure::forbidden(
                "this Host name is not served; call 127.0.0.1 or localhost, or add the name to allowed_hosts",
            )
        };
        let [host] = request.hosts[..] else {
            return Err(unknown_host());
        };
        let host = std::str::from_utf8(host).map_err(|_| unknown_host())?;
        if ![Some(host), request.authority]
            .into_iter()
            .flatten()
            .all(|name| self.serves(name))
        {
            return Err(unknown_host());
        }
        let unknown_origin =
            || ApiFailure::forbidden("pages of this origin may not call; add the origin to allowed_origins");
        match request.origins[..] {
            [] => {
                let own = |site: &&[u8]| matches!(*site, b"none" | b"same-origin");
                if request.fetch_sites.iter().all(own) {
                    Ok(None)
                } else {
                    Err(unknown_origin())
                }
            }
            [origin] => {
                let origin = std::str::from_utf8(origin).map_err(|_| unknown_origin())?;
                if is_own_page(origin, host, &request.fetch_sites) {
                    return Ok(None);
                }
                let listed = self.origins.contains(&origin.to_ascii_lowercase());
                if listed {
                    Ok(Some(origin))
                } else {
                    Err(unknown_origin())
                }
            }
            _ => Err(unknown_origin()),
        }
    }

    /// Whether the name before the port is served.
    fn serves(&self, authority: &str) -> bool {
        let name = match authority.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => {
                if !port.bytes().all(|byte| byte.is_ascii_digit()) {
                    return false;
                }
                name
            }
            _ => authority,
        };
        let name = name.to_ascii_lowercase();
        if self.hosts.contains(&name) {
            return true;
        }
        // A number can't be rebound.
        let bare = name
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(&name);
        self.serves_every_address && bare.parse::<IpAddr>().is_ok()
    }
}

/// Whether the request comes from a page that was served under the very name and port that it calls, which is this
/// endpoint's own: RFC 6454, section 5. The name was checked before, so nobody has rebound it.
fn is_own_page(origin: &str, host: &str, fetch_sites: &[&[u8]]) -> bool {
    let is_same = origin
        .split_once("://")
        .is_some_and(|(scheme, authority)| scheme == "http" && authority.eq_ignore_ascii_case(host));
    is_same && fetch_sites.iter().all(|site| *site == b"same-origin")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(listen: &str) -> BrowserGuard {
        BrowserGuard::new(
            listen.parse().unwrap(),
            &["Mill.local".to_owned()],
            &["http://localhost:5173".to_owned(), "https://mill".to_owned()],
        )
    }

    fn host(listen: &str, host: &[u8]) -> bool {
        guard(listen)
            .check(&Origins {
                hosts: vec![host],
                ..Origins::default()
            })
            .is_ok()
    }

    const SERVED: [&str; 11] = [
        "localhost",
        "LOCALHOST:7420",
        "localhost:1",
        "localhost:",
        "127.0.0.1",
        "127.0.0.1:7420",
        "[::1]",
        "[::1]:7420",
        "mill.local",
        "MILL.LOCAL:80",
        "Mill.Local",
    ];

    const FOREIGN: [&str; 33] = [
        "",
        " ",
        "evil.example",
        "evil.example:7420",
        "localhost.evil.example",
        "evil.example.localhost",
        "localhost.",
        "localhost.:7420",
        "localhost@evil.example",
        "evil.example@localhost",
        "localhost:7420@evil.example",
        "localhost:evil",
        "localhost:80:80",
        "local host",
        " localhost",
        "localhost ",
        "localhost,evil.example",
        "localhost/",
        "http://localhost",
        "127.0.0.1.nip.io",
        "127.0.0.1.evil.example",
        "127.0.0.2",
        "127.1",
        "0x7f000001",
        "2130706433",
        "0.0.0.0",
        "[::]",
        "[::1",
        "::1",
        "[::ffff:127.0.0.1]",
        "[0:0:0:0:0:0:0:1]",
        "xn--lcalhost-0za",
        "metadata.google.internal",
    ];

    #[test]
    fn only_known_host_names_are_served() {
        for name in SERVED {
            assert!(host("127.0.0.1:7420", name.as_bytes()), "{name}");
        }
        for name in FOREIGN {
            assert!(!host("127.0.0.1:7420", name.as_bytes()), "{name}");
        }
        assert!(!host("127.0.0.1:7420", b"localhost\xff"));
        assert!(host("192.0.2.1:7420", b"192.0.2.1:7420"));
        assert!(host("0.0.0.0:7420", b"192.0.2.1:7420") && host("0.0.0.0:7420", b"[2001:db8::1]"));
        assert!(!host("0.0.0.0:7420", b"evil.example"));
        let guard = guard("127.0.0.1:7420");
        let none = Origins::default();
        let two = Origins {
            hosts: vec![b"localhost", b"localhost"],
            ..Origins::default()
        };
        assert!(guard.check(&none).is_err() && guard.check(&two).is_err());
        let rebound = Origins {
            hosts: vec![b"localhost"],
            authority: Some("evil.example"),
            ..Origins::default()
        };
        assert!(guard.check(&rebound).is_err());
    }

    #[test]
    fn browsers_are_served_from_listed_origins_only() {
        let guard = guard("127.0.0.1:7420");
        let check = |origins: &[&'static [u8]], sites: &[&'static [u8]]| {
            guard
                .check(&Origins {
                    hosts: vec![b"localhost"],
                    authority: None,
                    origins: origins.to_vec(),
                    fetch_sites: sites.to_vec(),
                })
                .map_err(|failure| failure.status)
        };
        assert_eq!(check(&[], &[]), Ok(None));
        assert_eq!(
            check(&[b"http://localhost:5173"], &[b"cross-site"]),
            Ok(Some("http://localhost:5173"))
        );
        assert_eq!(check(&[b"https://MILL"], &[]), Ok(Some("https://MILL")));
        for site in [b"none".as_slice(), b"same-origin"] {
            assert_eq!(check(&[], &[site]), Ok(None));
        }
        for site in [b"cross-site".as_slice(), b"same-site", b"", b"None"] {
            assert_eq!(check(&[], &[site]), Err(403));
        }
        for origin in [
            b"null".as_slice(),
            b"",
            b"http://evil.example",
            b"http://localhost:80",
            b"http://localhost:7420",
            b"http://127.0.0.1",
            b"http://127.0.0.1:7420",
            b"http://",
            b"https://localhost",
            b"https://localhost:5173",
            b"http://localhost:5173/",
            b"http://localhost:5173.evil.example",
            b"http://localhost:5173 http://evil.example",
            b"http://evil.example#http://localhost:5173",
            b"file://",
            b"chrome-extension://abc",
            b"\xff",
        ] {
            assert_eq!(
                check(&[origin], &[]),
                Err(403),
                "{}",
                String::from_utf8_lossy(origin)
            );
        }
        assert_eq!(check(&[b"https://mill", b"https://mill"], &[]), Err(403));
    }

    #[test]
    fn the_own_page_may_call_under_the_name_and_port_that_it_was_served_from() {
        let guard = guard("127.0.0.1:7420");
        let check = |host: &'static str, origin: &'static str, sites: &[&'static [u8]]| {
            guard
                .check(&Origins {
                    hosts: vec![host.as_bytes()],
                    authority: None,
                    origins: vec![origin.as_bytes()],
                    fetch_sites: sites.to_vec(),
                })
                .map_err(|failure| failure.status)
        };
        let same: &[&[u8]] = &[b"same-origin"];
        for host in ["localhost:7420", "127.0.0.1:7420", "[::1]:7420", "mill.local:80"] {
            let origin: &'static str = format!("http://{host}").leak();
            assert_eq!(check(host, origin, same), Ok(None), "{host}");
            assert_eq!(check(host, origin, &[]), Ok(None), "{host}");
            for site in [b"cross-site".as_slice(), b"same-site", b"none", b""] {
                assert_eq!(check(host, origin, &[site]), Err(403), "{host}");
                assert_eq!(check(host, origin, &[b"same-origin", site]), Err(403), "{host}");
            }
        }
        for (host, origin) in [
            ("localhost:7420", "http://127.0.0.1:7420"),
            ("localhost:7420", "http://localhost:7421"),
            ("localhost:7420", "http://localhost"),
            ("localhost:7420", "https://localhost:7420"),
            ("localhost:7420", "http://localhost:7420/"),
            ("localhost:7420", "http://localhost:7420 http://evil.example"),
            ("localhost:7420", "http://evil.example#localhost:7420"),
            ("localhost:7420", "localhost:7420"),
            // Rebound: the page is its own origin, but nobody serves this name.
            ("evil.example:7420", "http://evil.example:7420"),
        ] {
            assert_eq!(check(host, origin, same), Err(403), "{host} {origin}");
        }
    }
}
