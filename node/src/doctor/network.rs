//! What is looked at around the machine: coordinator, clock, upstreams, ports.

use super::facts::{ClockDifference, CoordinatorFacts, Port, PortOutcome, SettingsFacts, UpstreamFacts};
use super::{Check, Finding, Verdict};

/// A clock that is farther off has its calls refused: tokens are good for half a minute around their date.
const CLOCK_MAX_MS: u64 = 30_000;
/// A clock that is farther off is not kept by anybody.
const CLOCK_LOOSE_MS: u64 = 5_000;

pub(super) fn coordinator(settings: &SettingsFacts) -> Vec<Finding> {
    let url = &settings.coordinator_url;
    let CoordinatorFacts {
        network,
        version,
        clock,
        mistrust,
    } = match &settings.coordinator {
        Ok(answer) => answer,
        Err(reason) => {
            return vec![Finding::new(
                Check::Coordinator,
                Verdict::Unfit,
                format!("the coordinator at {url} can't be asked: {reason}"),
                "see whether the address is right (--coordinator) and whether a firewall or proxy is in between; the \
                 clock was not compared",
            )];
        }
    };
    if let Some(mistrust) = mistrust {
        let remedy = "ask the operator of the network before you trust another one";
        return vec![Finding::new(
            Check::Coordinator,
            Verdict::Unfit,
            mistrust.clone(),
            remedy,
        )];
    }
    vec![
        Finding::fit(
            Check::Coordinator,
            format!("the coordinator of '{network}' answers at {url} (version {version})"),
        ),
        clock_finding(*clock),
    ]
}

fn clock_finding(clock: Option<ClockDifference>) -> Finding {
    let Some(ClockDifference {
        behind_ms,
        uncertain_ms,
    }) = clock
    else {
        return Finding::new(
            Check::Clock,
            Verdict::Unknown,
            "the coordinator's answer has no date to compare the clock with",
            "see whether the clock is kept (timedatectl, chronyc tracking)",
        );
    };
    let certainly_off = behind_ms.unsigned_abs().saturating_sub(uncertain_ms);
    let direction = if behind_ms < 0 { "ahead of" } else { "behind" };
    // Tenths of a second say as much as is known.
    let off = behind_ms.unsigned_abs();
    let what = format!(
        "the clock is {}.{} s {direction} the coordinator's, to within {}.{} s",
        off / 1_000,
        off % 1_000 / 100,
        uncertain_ms / 1_000,
        uncertain_ms % 1_000 / 100
    );
    let remedy = "set it and keep it so: timedatectl set-ntp true";
    match certainly_off {
        off if off > CLOCK_MAX_MS => Finding::new(Check::Clock, Verdict::Unfit, what, remedy),
        off if off > CLOCK_LOOSE_MS => Finding::new(Check::Clock, Verdict::Note, what, remedy),
        // So slow an answer tells nothing about the clock.
        _ if uncertain_ms > CLOCK_MAX_MS => Finding::new(Check::Clock, Verdict::Unknown, what, "try again"),
        _ => Finding::fit(Check::Clock, what),
    }
}

pub(super) fn upstreams(settings: &SettingsFacts) -> Vec<Finding> {
    let mut findings: Vec<_> = settings.upstreams.iter().map(upstream).collect();
    let has_models = settings
        .upstreams
        .iter()
        .any(|upstream| matches!(upstream.models, Ok(models) if models > 0));
    if !has_models && !settings.has_built_in_models {
        let named = settings.upstreams.iter().any(|upstream| upstream.named);
        findings.push(if named {
            Finding::new(
                Check::Upstream,
                Verdict::Unfit,
                "there is nothing to sell: no server has a model, and the node runs none itself",
                "start a server, or name a model with --model",
            )
        } else {
            Finding::new(
                Check::Upstream,
                Verdict::Note,
                "no server was found at the usual ports, so only the small guide model is on offer",
                "start Ollama, vLLM, SGLang, llama.cpp or LM Studio, name a server with --upstream, or a model with \
                 --model",
            )
        });
    }
    findings
}

fn upstream(upstream: &UpstreamFacts) -> Finding {
    let UpstreamFacts { url, named, models } = upstream;
    // What was only looked for may be anything.
    let bad = if *named { Verdict::Unfit } else { Verdict::Note };
    match models {
        Ok(0) => Finding::new(
            Check::Upstream,
            bad,
            format!("{url} answers and has no model"),
            "load one there (Ollama: ollama pull …)",
        ),
        Ok(1) => Finding::fit(Check::Upstream, format!("{url} has 1 model")),
        Ok(models) => Finding::fit(Check::Upstream, format!("{url} has {models} models")),
        Err(reason) => Finding::new(
            Check::Upstream,
            bad,
            reason.clone(),
            format!("start the server at {url}, or correct --upstream"),
        ),
    }
}

pub(super) fn mesh(settings: &SettingsFacts, node_runs: bool) -> Vec<Finding> {
    let mut findings: Vec<_> = settings
        .mesh_ports
        .iter()
        .map(|port| {
            port_finding(
                Check::MeshPort,
                port,
                settings.mesh_ports_chosen,
                node_runs,
                "--mesh-listen",
            )
        })
        .collect();
    findings.push(reachability(settings));
    findings
}

pub(super) fn local_api(settings: &SettingsFacts, node_runs: bool) -> Option<Finding> {
    let (port, chosen) = settings.local_api.as_ref()?;
    Some(port_finding(
        Check::LocalApi,
        port,
        *chosen,
        node_runs,
        "--local-api",
    ))
}

fn port_finding(check: Check, port: &Port, chosen: bool, node_runs: bool, flag: &str) -> Finding {
    let address = &port.address;
    match &port.outcome {
        PortOutcome::Free => Finding::fit(check, format!("{address} is free")),
        PortOutcome::InUse if node_runs => Finding::fit(
            check,
            format!("{address} is in use, as it should be while the node runs"),
        ),
        PortOutcome::InUse if chosen => Finding::new(
            check,
            Verdict::Unfit,
            format!("{address} is in use by another program"),
            format!("end that program (ss -lntup shows it), or choose another port with {flag}"),
        ),
        PortOutcome::InUse => Finding::new(
            check,
            Verdict::Note,
            format!("{address} is in use by another program; the node takes a free port instead"),
            format!("choose one with {flag} if it has to stay the same"),
        ),
        PortOutcome::Refused(reason) => Finding::new(
            check,
            Verdict::Unfit,
            format!("{address} can't be listened on: {reason}"),
            format!("choose an address of this machine and a port above 1023 with {flag}"),
        ),
        PortOutcome::NotTried => Finding::new(
            check,
            Verdict::Note,
            format!("{address} was not tried: it is no plain address and port"),
            "",
        ),
    }
}

/// What can be told from here about who reaches the node.
fn reachability(settings: &SettingsFacts) -> Finding {
    let sockets = || settings.mesh_ports.iter().filter_map(|port| port.socket);
    let only_loopback = sockets().next().is_some() && sockets().all(|socket| socket.ip().is_loopback());
    let market_is_here = is_loopback_url(&settings.coordinator_url);
    let from_outside = "whether others reach it can't be told from here: try its UDP and TCP port from another \
                        network, and see that firewall and router let them through";
    if only_loopback && market_is_here {
        return Finding::fit(
            Check::Reachability,
            "only this machine reaches the node, as the coordinator is on this machine too",
        );
    }
    if only_loopback {
        // A forwarder on this machine may stand before it, if the owner says where others find it.
        let (verdict, remedy) = if settings.has_public_address {
            (Verdict::Note, from_outside)
        } else {
            let open = "listen for others with --mesh-listen /ip4/0.0.0.0/udp/7410/quic-v1 and say where they find \
                        the node with --public-address";
            (Verdict::Unfit, open)
        };
        let what = "the node listens on this machine only, and the market is elsewhere";
        return Finding::new(Check::Reachability, verdict, what, remedy);
    }
    if settings.has_public_address {
        return Finding::new(
            Check::Reachability,
            Verdict::Note,
            "the node is open to others",
            from_outside,
        );
    }
    Finding::new(
        Check::Reachability,
        Verdict::Note,
        "the node is open to others, and tells them the addresses it listens on",
        "behind a router those are of no use: say where others find it with --public-address",
    )
}

fn is_loopback_url(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else {
        return false;
    };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost"
        || host
            .parse()
            .is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}
