use super::*;

#[test]
fn coordinator_and_clock() {
    use Check::{Clock, Coordinator};
    use Verdict::{Fit, Note, Unfit, Unknown};
    fn clock(facts: &mut Facts, behind_ms: i64, uncertain_ms: u64) {
        let difference = ClockDifference {
            behind_ms,
            uncertain_ms,
        };
        set(facts).coordinator.as_mut().unwrap().clock = Some(difference);
    }
    hold(&[
        (
            "away",
            |facts| set(facts).coordinator = Err("Connection refused".into()),
            Coordinator,
            Unfit,
            "Connection refused",
        ),
        (
            "another one",
            |facts| set(facts).coordinator.as_mut().unwrap().mistrust = Some("it is X, not Y".into()),
            Coordinator,
            Unfit,
            "operator",
        ),
        (
            "a minute behind",
            |facts| clock(facts, 60_000, 500),
            Clock,
            Unfit,
            "60.0 s behind",
        ),
        (
            "a minute ahead",
            |facts| clock(facts, -61_250, 500),
            Clock,
            Unfit,
            "61.2 s ahead of",
        ),
        (
            "just bearable",
            |facts| clock(facts, 30_500, 500),
            Clock,
            Note,
            "timedatectl",
        ),
        (
            "just unbearable",
            |facts| clock(facts, 30_501, 500),
            Clock,
            Unfit,
            "timedatectl",
        ),
        (
            "loose",
            |facts| clock(facts, -5_501, 500),
            Clock,
            Note,
            "5.5 s ahead",
        ),
        (
            "kept",
            |facts| clock(facts, -5_500, 500),
            Clock,
            Fit,
            "5.5 s ahead",
        ),
        (
            "slow answer",
            |facts| clock(facts, 9_000, 40_000),
            Clock,
            Unknown,
            "to within 40.0 s",
        ),
        ("never", |facts| clock(facts, i64::MIN, 0), Clock, Unfit, "ahead"),
        (
            "no date",
            |facts| set(facts).coordinator.as_mut().unwrap().clock = None,
            Clock,
            Unknown,
            "no date",
        ),
    ]);
}

#[test]
fn upstreams_and_ports() {
    use Check::{LocalApi, MeshPort, Reachability, Upstream};
    use Verdict::{Fit, Note, Unfit};
    fn upstream(facts: &mut Facts, named: bool, models: Result<usize, String>) {
        let upstream = &mut set(facts).upstreams[0];
        (upstream.named, upstream.models) = (named, models);
    }
    fn loopback(facts: &mut Facts, public: bool, coordinator: &str) {
        let settings = set(facts);
        settings.mesh_ports = vec![port(
            "/ip4/127.0.0.1/tcp/7410",
            "127.0.0.1:7410",
            PortOutcome::Free,
        )];
        settings.has_public_address = public;
        settings.coordinator_url = coordinator.to_owned();
    }
    hold(&[
        (
            "down",
            |facts| upstream(facts, true, Err("nothing answers".into())),
            Upstream,
            Unfit,
            "nothing answers",
        ),
        (
            "empty",
            |facts| upstream(facts, true, Ok(0)),
            Upstream,
            Unfit,
            "no model",
        ),
        (
            "found and empty",
            |facts| upstream(facts, false, Ok(0)),
            Upstream,
            Note,
            "guide",
        ),
        (
            "none",
            |facts| set(facts).upstreams.clear(),
            Upstream,
            Note,
            "guide",
        ),
        (
            "none needed",
            |facts| {
                set(facts).upstreams.clear();
                set(facts).has_built_in_models = true;
            },
            Reachability,
            Note,
            "",
        ),
        (
            "port taken",
            |facts| set(facts).mesh_ports[0].outcome = PortOutcome::InUse,
            MeshPort,
            Unfit,
            "--mesh-listen",
        ),
        (
            "port of the node",
            |facts| {
                set(facts).mesh_ports[0].outcome = PortOutcome::InUse;
                facts.data_folder.in_use = true;
            },
            MeshPort,
            Fit,
            "while the node runs",
        ),
        (
            "default port taken",
            |facts| {
                set(facts).mesh_ports[0].outcome = PortOutcome::InUse;
                set(facts).mesh_ports_chosen = false;
            },
            MeshPort,
            Note,
            "free port",
        ),
        (
            "not ours",
            |facts| set(facts).mesh_ports[0].outcome = PortOutcome::Refused("Cannot assign".into()),
            MeshPort,
            Unfit,
            "Cannot assign",
        ),
        (
            "by name",
            |facts| set(facts).mesh_ports[0].outcome = PortOutcome::NotTried,
            MeshPort,
            Note,
            "not tried",
        ),
        (
            "no address",
            |facts| set(facts).has_public_address = false,
            Reachability,
            Note,
            "--public-address",
        ),
        (
            "closed",
            |facts| loopback(facts, false, "https://coordinator.example.org"),
            Reachability,
            Unfit,
            "--mesh-listen",
        ),
        (
            "forwarded",
            |facts| loopback(facts, true, "https://coordinator.example.org"),
            Reachability,
            Note,
            "another network",
        ),
        (
            "all at home",
            |facts| loopback(facts, false, "http://[::1]:7400"),
            Reachability,
            Fit,
            "only this machine",
        ),
        (
            "local API taken",
            |facts| {
                let (port, chosen) = set(facts).local_api.as_mut().unwrap();
                (port.outcome, *chosen) = (PortOutcome::InUse, true);
            },
            LocalApi,
            Unfit,
            "--local-api",
        ),
        (
            "local API moves",
            |facts| set(facts).local_api.as_mut().unwrap().0.outcome = PortOutcome::InUse,
            LocalApi,
            Note,
            "free port",
        ),
    ]);
    let mut off = healthy();
    set(&mut off).local_api = None;
    assert!(
        examine(&off)
            .findings
            .iter()
            .all(|finding| finding.check != LocalApi)
    );
}
