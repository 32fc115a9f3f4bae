//! Finds out what the doctor judges. Nothing here judges, changes anything, or waits for long.

use std::fs::{File, TryLockError};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant, UNIX_EPOCH};

use futures::future::join_all;
use gristmill_benchmark::inventory::Inventory;
use gristmill_protocol::coordinator_api::NetworkInfo;
use gristmill_protocol::identity::Keypair;
use gristmill_service::clock::{system_clock, unix_ms};
use gristmill_service::installation::{identity_lock_path, identity_path};
use gristmill_transport::{CoordinatorCallError, CoordinatorClient, key_file};
use reqwest::Url;
use reqwest::header::DATE;
use tokio::time::timeout;

use super::facts::{
    Access, ClockDifference, CoordinatorFacts, DataFolder, Facts, Key, Port, PortOutcome, SettingsFacts,
    UpstreamFacts,
};
use crate::daemon::StartError;
use crate::settings::{LOCAL_API_PORT, LocalApi, MeshListen, Settings, SettingsError};
use crate::upstreams::UpstreamWatch;

/// How long drivers may take to answer: NVML and two programs of theirs.
const DEVICES_TIMEOUT: Duration = Duration::from_secs(35);
/// How long the coordinator may take for one answer.
const COORDINATOR_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one upstream may take to tell what it has.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(15);
/// Most bytes of the coordinator's answer.
const ANSWER_MAX_BYTES: usize = 1 << 20;
/// Dates of HTTP are whole seconds, rounded down: on average the true time is half a second later.
const DATE_ROUNDING_MS: u64 = 500;

/// Finds out everything, as a node with these settings and this data folder would meet it.
pub async fn gather(settings: Result<Settings, SettingsError>, data_dir: &Path) -> Facts {
    let settings = async {
        match settings {
            Ok(settings) => settings_facts(&settings, data_dir).await,
            Err(error) => Err(error.to_string()),
        }
    };
    let (settings, inventory) = tokio::join!(settings, inventory());
    Facts {
        settings,
        data_folder: data_folder(data_dir),
        key: key(data_dir),
        inventory,
    }
}

async fn inventory() -> Option<Inventory> {
    let read = tokio::task::spawn_blocking(gristmill_benchmark::probe::inventory);
    timeout(DEVICES_TIMEOUT, read).await.ok()?.ok()
}

fn data_folder(path: &Path) -> DataFolder {
    let lock = identity_lock_path(path);
    // Only looked at: it is not made, and given back at once.
    let in_use =
        File::open(lock).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)));
    DataFolder {
        path: path.to_owned(),
        access: access(path),
        in_use,
        free_bytes: path
            .ancestors()
            .find(|folder| folder.exists())
            .and_then(free_bytes),
    }
}

#[cfg(unix)]
fn access(path: &Path) -> Access {
    use rustix::fs::Access as Wanted;
    let writable = |path: &Path| rustix::fs::access(path, Wanted::WRITE_OK | Wanted::EXEC_OK);
    match path.metadata() {
        Ok(metadata) if !metadata.is_dir() => return Access::No("it is no folder".to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let above = path.ancestors().skip(1).find(|folder| folder.exists());
            return match above.map(writable) {
                Some(Ok(())) => Access::CanBeMade,
                Some(Err(error)) => Access::No(error.to_string()),
                None => Access::Unknown,
            };
        }
        Err(error) => return Access::No(error.to_string()),
    }
    match writable(path) {
        Ok(()) => Access::Writable,
        Err(error) => Access::No(error.to_string()),
    }
}

#[cfg(not(unix))]
fn access(path: &Path) -> Access {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() && !metadata.permissions().readonly() => Access::Writable,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Access::CanBeMade,
        _ => Access::Unknown,
    }
}

#[cfg(unix)]
fn free_bytes(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

#[cfg(not(unix))]
fn free_bytes(_: &Path) -> Option<u64> {
    None
}

fn key(data_dir: &Path) -> Key {
    match key_file::load(&identity_path(data_dir)) {
        Ok(None) => Key::None,
        Ok(Some(keypair)) => Key::Account(keypair.account().to_string()),
        Err(error) => Key::Wrong(error.to_string()),
    }
}

async fn settings_facts(settings: &Settings, data_dir: &Path) -> Result<SettingsFacts, String> {
    let watch =
        UpstreamWatch::new(&settings.upstreams).map_err(|error| StartError::from(error).to_string())?;
    let (coordinator, upstreams) = tokio::join!(coordinator(settings, data_dir), upstreams(settings, &watch));
    let mesh_ports: Vec<_> = settings
        .mesh_listen
        .preferred()
        .iter()
        .map(|address| mesh_port(&address.to_string()))
        .collect();
    let local_api = match settings.local_api {
        LocalApi::Off => None,
        LocalApi::At(address) => Some((local_port(address), true)),
        LocalApi::Default => Some((
            local_port(SocketAddr::from(([127, 0, 0, 1], LOCAL_API_PORT))),
            false,
        )),
    };
    Ok(SettingsFacts {
        coordinator_url: settings.coordinator.clone(),
        coordinator,
        upstreams,
        has_built_in_models: settings.models.as_ref().is_some_and(|models| !models.is_empty()),
        mesh_ports,
        mesh_ports_chosen: matches!(settings.mesh_listen, MeshListen::At(_)),
        has_public_address: !settings.public_addresses.is_empty(),
        local_api,
        computes_on_cuda: gristmill_benchmark::probe::support().cuda,
        hardware: settings.hardware,
    })
}

/// The servers that the owner named, and those at the usual places that answer.
async fn upstreams(settings: &Settings, watch: &UpstreamWatch) -> Vec<UpstreamFacts> {
    let asked = watch.candidates().iter().map(async |engine| {
        let too_slow = || Err(format!("{} does not answer in time", engine.base()));
        let models = timeout(UPSTREAM_TIMEOUT, engine.count_models()).await;
        UpstreamFacts {
            url: engine.base().to_string(),
            named: settings.upstreams.urls.contains(engine.base()),
            models: models.unwrap_or_else(|_| too_slow()),
        }
    });
    let mut found = join_all(asked).await;
    found.retain(|upstream| upstream.named || upstream.models.is_ok());
    found
}

async fn coordinator(settings: &Settings, data_dir: &Path) -> Result<CoordinatorFacts, String> {
    let url = Url::parse(&settings.coordinator).map_err(|error| error.to_string())?;
    // The same account as the node's where it has one; nothing that is asked here is signed.
    let keypair = key_file::load(&identity_path(data_dir)).ok().flatten();
    let keypair = || keypair.clone().unwrap_or_else(|| Keypair::from_secret(&[0; 32]));
    let client = || {
        CoordinatorClient::new(
            &settings.coordinator,
            settings.coordinator_account,
            keypair(),
            system_clock(),
        )
        .map_err(|error| error.to_string())
    };
    // Says what is wrong with the address.
    let fresh = client()?;
    let (network, clock) = ask_network(&url).await?;
    let mistrust = match client()?.with_known_keys_in(data_dir) {
        Err(error) => Some(error.to_string()),
        // One that was never met is not made known here: that is for the node to do.
        Ok(known) => {
            let met = known.known_keys().borrow().is_some();
            let trusted = if met { known } else { fresh };
            mistrust(&trusted).await
        }
    };
    Ok(CoordinatorFacts {
        network: network.name,
        version: network.version,
        clock,
        mistrust,
    })
}

async fn mistrust(client: &CoordinatorClient) -> Option<String> {
    match timeout(COORDINATOR_TIMEOUT, client.network()).await {
        Ok(Err(
            error @ (CoordinatorCallError::WrongCoordinator { .. }
            | CoordinatorCallError::KeyChanged { .. }
            | CoordinatorCallError::InvalidAnswer { .. }),
        )) => Some(error.to_string()),
        // It answered a moment ago; that it does not now is no reason to mistrust it.
        _ => None,
    }
}

/// What the coordinator says about the network, and its date against this machine's clock.
async fn ask_network(url: &Url) -> Result<(NetworkInfo, Option<ClockDifference>), String> {
    let is_here = url.host_str().is_some_and(|host| {
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    });
    let http = reqwest::Client::builder()
        .timeout(COORDINATOR_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("gristmill-node/", env!("CARGO_PKG_VERSION")));
    let http = if is_here { http.no_proxy() } else { http };
    let failed = |error: reqwest::Error| innermost(&error);
    let http = http.build().map_err(failed)?;
    let endpoint = url.join("/v1/network").map_err(|error| error.to_string())?;
    let (asked, asked_ms) = (Instant::now(), unix_ms());
    let mut answer = http.get(endpoint).send().await.map_err(failed)?;
    let round_trip = asked.elapsed();
    if !answer.status().is_success() {
        return Err(format!(
            "it answers with status {}, so it is no coordinator",
            answer.status().as_u16()
        ));
    }
    let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
    let clock = date.and_then(|date| clock_difference(date, asked_ms, round_trip));
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > ANSWER_MAX_BYTES {
            return Err(format!(
                "its answer has more than {ANSWER_MAX_BYTES} bytes, so it is no coordinator"
            ));
        }
        body.extend_from_slice(&chunk);
    }
    let network = serde_json::from_slice(&body)
        .map_err(|error| format!("its answer is not a coordinator's: {error}"))?;
    Ok((network, clock))
}

/// How far the clock that said `asked_ms` is behind a server that dated its answer after at most `round_trip`.
fn clock_difference(date: &str, asked_ms: u64, round_trip: Duration) -> Option<ClockDifference> {
    let date = httpdate::parse_http_date(date)
        .ok()?
        .duration_since(UNIX_EPOCH)
        .ok()?;
    let half_way = u64::try_from(round_trip.as_millis()).ok()? / 2;
    let theirs = i64::try_from(date.as_millis())
        .ok()?
        .checked_add_unsigned(DATE_ROUNDING_MS)?;
    let ours = i64::try_from(asked_ms).ok()?.checked_add_unsigned(half_way)?;
    Some(ClockDifference {
        behind_ms: theirs.checked_sub(ours)?,
        uncertain_ms: half_way.saturating_add(DATE_ROUNDING_MS),
    })
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// The two kinds of socket that a multiaddress can mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Udp,
    Tcp,
}

/// The socket of a multiaddress that begins with an IP address and a port.
fn socket_of(multiaddress: &str) -> Option<(Kind, SocketAddr)> {
    let mut parts = multiaddress.strip_prefix('/')?.split('/');
    let ip = match (parts.next()?, parts.next()?) {
        ("ip4" | "ip6", ip) => ip.parse().ok()?,
        _ => return None,
    };
    let kind = match parts.next()? {
        "udp" => Kind::Udp,
        "tcp" => Kind::Tcp,
        _ => return None,
    };
    Some((kind, SocketAddr::new(ip, parts.next()?.parse().ok()?)))
}

fn mesh_port(address: &str) -> Port {
    let socket = socket_of(address);
    Port {
        address: address.to_owned(),
        socket: socket.map(|(_, socket)| socket),
        outcome: match socket {
            Some((Kind::Udp, socket)) => outcome(UdpSocket::bind(socket)),
            Some((Kind::Tcp, socket)) => outcome(TcpListener::bind(socket)),
            None => PortOutcome::NotTried,
        },
    }
}

fn local_port(address: SocketAddr) -> Port {
    Port {
        address: address.to_string(),
        socket: Some(address),
        outcome: outcome(TcpListener::bind(address)),
    }
}

/// What trying came to. The socket is closed again.
fn outcome<T>(bound: io::Result<T>) -> PortOutcome {
    match bound {
        Ok(_) => PortOutcome::Free,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => PortOutcome::InUse,
        Err(error) => PortOutcome::Refused(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_compared_to_within_its_rounding_and_the_round_trip() {
        // 1994-11-06T08:49:37Z.
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let ms = 784_111_777_000;
        let compare = |asked_ms, round_trip| {
            clock_difference(date, asked_ms, Duration::from_millis(round_trip)).unwrap()
        };
        let expected = |behind_ms, uncertain_ms| ClockDifference {
            behind_ms,
            uncertain_ms,
        };
        assert_eq!(compare(ms, 0), expected(500, 500));
        assert_eq!(compare(ms + 500, 0), expected(0, 500));
        assert_eq!(compare(ms - 60_000, 400), expected(60_300, 700));
        assert_eq!(compare(ms + 60_500, 0), expected(-60_000, 500));
        assert_eq!(clock_difference("yesterday", ms, Duration::ZERO), None);
        assert_eq!(clock_difference(date, u64::MAX, Duration::ZERO), None);
    }

    #[test]
    fn sockets_are_found_in_multiaddresses() {
        let socket = |text| socket_of(text).map(|(kind, socket)| (kind, socket.to_string()));
        assert_eq!(
            socket("/ip4/127.0.0.1/udp/7410/quic-v1"),
            Some((Kind::Udp, "127.0.0.1:7410".into()))
        );
        assert_eq!(socket("/ip6/::1/tcp/1"), Some((Kind::Tcp, "[::1]:1".into())));
        for text in [
            "",
            "/",
            "/dns4/example.org/tcp/1",
            "/ip4/127.0.0.1",
            "/ip4/127.0.0.1/tcp/99999",
            "/ip4/1/udp/1",
        ] {
            assert_eq!(socket(text), None, "{text}");
        }
    }

    #[test]
    fn ports_are_tried_and_given_back() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(local_port(address).outcome, PortOutcome::InUse);
        drop(taken);
        assert_eq!(local_port(address).outcome, PortOutcome::Free);
        assert_eq!(local_port(address).outcome, PortOutcome::Free);
        // A documentation address (RFC 5737) is no machine's own.
        let refused = mesh_port("/ip4/192.0.2.1/udp/0/quic-v1").outcome;
        assert!(matches!(refused, PortOutcome::Refused(_)), "{refused:?}");
        assert_eq!(
            mesh_port("/dns4/example.org/tcp/1").outcome,
            PortOutcome::NotTried
        );
    }

    #[test]
    #[cfg(unix)]
    fn a_folder_is_looked_at_and_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("a/b");
        let found = data_folder(&new);
        assert_eq!((found.access, found.in_use), (Access::CanBeMade, false));
        assert!(found.free_bytes.unwrap() > 0 && !folder.path().join("a").exists());
        assert_eq!(data_folder(folder.path()).access, Access::Writable);
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(data_folder(&file).access, Access::No("it is no folder".into()));
    }
}
