//! What was measured, as people and programs read it, with the targets and what was not fair.

use serde_json::{Value, json};

use super::super::load::Mode;
use super::super::report::{median, print, quantile};
use super::bound::Signatures;

/// Against LiteLLM's proxy.
const LITELLM_THROUGHPUT_TARGET: f64 = 30.0;
const LITELLM_FIRST_TOKEN_TARGET: f64 = 100.0;
const LITELLM_MEMORY_TARGET: f64 = 60.0;
/// Against Portkey's gateway.
const PORTKEY_THROUGHPUT_TARGET: f64 = 10.0;

/// What a reader must know before believing a ratio.
const NOT_FAIR: [&str; 8] = [
    "for us: both peers run in one interpreter's process and thread unless more workers are asked for; ours are three processes with threads of their own",
    "for us: LiteLLM translates between some hundred services and can log, guard and budget; none of that is switched on, but its code is in the way",
    "for us: Portkey's gateway waits 25 ms of its own before it passes on the first chunk of a stream",
    "for us: the network between client and node is loopback; over the internet its round trip is added to ours, and to theirs where their upstream is away",
    "against us: our path has two processes and an encrypted QUIC connection, admission and payment between program and upstream; theirs has one process and none of these",
    "against us: load generator and upstream use the same cores, which costs the fastest subject the most",
    "against us: the memory of a peer is that of its proxy; ours is given for the proxy alone and for all roles",
    "for nobody: the upstream answers at once; behind a model that takes seconds, all of them are fast enough",
];

/// How many requests a subject answered.
pub(super) struct Throughput {
    pub(super) mode: Mode,
    pub(super) concurrency: usize,
    pub(super) per_second: f64,
}

/// A way from the program to the upstream.
pub(super) struct Subject {
    pub(super) name: &'static str,
    pub(super) first_token_ms: Vec<f64>,
    pub(super) throughput: Vec<Throughput>,
}

/// Processor time per chunk of a long stream.
pub(super) struct ChunkCost {
    pub(super) role: &'static str,
    pub(super) micros: f64,
}

/// Everything of one run.
pub(super) struct Figures {
    pub(super) requests: usize,
    pub(super) litellm_workers: usize,
    /// Direct, two hops, ours, and the peers.
    pub(super) subjects: Vec<Subject>,
    /// Resident mebibytes by process.
    pub(super) memory: Vec<(&'static str, f64)>,
    pub(super) chunk_costs: Vec<ChunkCost>,
    /// Processor time of proxy and node for a voucher.
    pub(super) voucher_us: f64,
    pub(super) signatures: Signatures,
}

/// A ratio with what it should be.
struct Verdict {
    name: String,
    ratio: f64,
    target: f64,
}

impl Verdict {
    fn is_met(&self) -> bool {
        self.ratio >= self.target
    }
}

impl Figures {
    /// Prints the table and the JSON.
    pub(super) fn tell(&self) {
        let mut rows: Vec<(String, String)> = Vec::new();
        for subject in &self.subjects {
            let figures = &subject.first_token_ms;
            rows.push((
                format!("time to first token, {}", subject.name),
                format!(
                    "p50 {:.2} ms, p99 {:.2} ms",
                    median(figures),
                    quantile(figures, 0.99)
                ),
            ));
        }
        for (name, added) in self.added() {
            let [p50, p99] = added;
            rows.push((
                format!("added by {name}"),
                format!("p50 {p50:.2} ms, p99 {p99:.2} ms"),
            ));
        }
        let loads = self.subjects.first().map(|first| &first.throughput);
        for (at, load) in loads.into_iter().flatten().enumerate() {
            let each = self.subjects.iter().filter_map(|subject| {
                let per_second = subject.throughput.get(at)?.per_second;
                Some(format!("{} {per_second:.0}", subject.name))
            });
            rows.push((
                format!(
                    "requests per second, {}, {} at once",
                    load.mode.name(),
                    load.concurrency
                ),
                each.collect::<Vec<_>>().join(", "),
            ));
        }
        for (name, mebibytes) in &self.memory {
            rows.push((format!("resident, {name}"), format!("{mebibytes:.0} MiB")));
        }
        for cost in &self.chunk_costs {
            rows.push((
                format!("processor per chunk, {}", cost.role),
                format!("{:.1} µs", cost.micros),
            ));
        }
        rows.push((
            "processor per voucher, proxy and node".into(),
            format!("{:.1} µs", self.voucher_us),
        ));
        let Signatures { sign_us, verify_us } = self.signatures;
        rows.push((
            "of it Ed25519".into(),
            format!("{sign_us:.1} µs to sign, {verify_us:.1} µs to verify"),
        ));
        let bound = self.bound_ms();
        rows.push((
            "bound: two loopback hops and one Ed25519 verification".into(),
            format!("{bound:.3} ms; ours adds {:.1} times that", self.distance()),
        ));
        for verdict in self.verdicts() {
            let met = if verdict.is_met() { "met" } else { "MISSED" };
            rows.push((
                verdict.name.clone(),
                format!("{:.1} (target {:.0}, {met})", verdict.ratio, verdict.target),
            ));
        }
        for line in NOT_FAIR {
            let (whom, what) = line.split_once(": ").unwrap_or(("", line));
            rows.push((format!("not fair, {whom}"), what.to_owned()));
        }
        if cfg!(debug_assertions) {
            rows.push((
                "NO FIGURES".into(),
                "this is a dev build; run it in release".into(),
            ));
        }
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone()))
            .collect();
        print(
            "Our proxy and others behind the same instant upstream",
            &rows,
            &self.json(),
        );
    }

    fn subject(&self, name: &str) -> Option<&Subject> {
        self.subjects.iter().find(|subject| subject.name == name)
    }

    /// What each adds to the time to first token, at the median and at the 99th percentile. Requests that follow each
    /// other are compared, so that a slow moment of the machine counts for both.
    fn added(&self) -> Vec<(&'static str, [f64; 2])> {
        let direct = self
            .subject("direct")
            .map_or(&[][..], |direct| &direct.first_token_ms);
        let added = |subject: &Subject| {
            let each: Vec<f64> = subject
                .first_token_ms
                .iter()
                .zip(direct)
                .map(|(through, direct)| through - direct)
                .collect();
            let p99 = quantile(&subject.first_token_ms, 0.99) - quantile(direct, 0.99);
            (subject.name, [median(&each), p99])
        };
        self.subjects.iter().skip(1).map(added).collect()
    }

    fn added_by(&self, name: &str) -> [f64; 2] {
        let added = self.added();
        added
            .iter()
            .find(|(subject, _)| *subject == name)
            .map_or([0.0; 2], |(_, added)| *added)
    }

    /// What a subject adds to a request of which none are beside it, in milliseconds: a mean over thousands of them,
    /// since what two hops add is less than the median of a first token is sure to.
    fn added_alone_ms(&self, name: &str) -> f64 {
        let alone_ms = |name: &str| {
            let subject = self.subjects.iter().find(|subject| subject.name == name);
            let alone = subject.and_then(|subject| subject.throughput.iter().find(|at| at.concurrency == 1));
            alone.map_or(f64::NAN, |alone| 1_000.0 / alone.per_second)
        };
        alone_ms(name) - alone_ms("direct")
    }

    /// Milliseconds that no way through two loopback hops and a voucher can add less than.
    fn bound_ms(&self) -> f64 {
        self.added_alone_ms("two hops") + self.signatures.verify_us / 1_000.0
    }

    fn distance(&self) -> f64 {
        self.added_alone_ms("gristmill") / self.bound_ms()
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for (peer, target) in [
            ("litellm", LITELLM_THROUGHPUT_TARGET),
            ("portkey", PORTKEY_THROUGHPUT_TARGET),
        ] {
            let (Some(ours), Some(theirs)) = (self.subject("gristmill"), self.subject(peer)) else {
                continue;
            };
            for (ours, theirs) in ours.throughput.iter().zip(&theirs.throughput) {
                verdicts.push(Verdict {
                    name: format!(
                        "requests per second against {peer}, {}, {} at once",
                        ours.mode.name(),
                        ours.concurrency
                    ),
                    ratio: ours.per_second / theirs.per_second,
                    target,
                });
            }
        }
        let (ours, theirs) = (self.added_by("gristmill"), self.added_by("litellm"));
        for (name, ours, theirs) in [("p50", ours[0], theirs[0]), ("p99", ours[1], theirs[1])] {
            verdicts.push(Verdict {
                name: format!("LiteLLM's added time to first token over ours, {name}"),
                ratio: theirs / ours,
                target: LITELLM_FIRST_TOKEN_TARGET,
            });
        }
        let resident = |name: &str| {
            self.memory
                .iter()
                .find(|(role, _)| *role == name)
                .map(|(_, size)| *size)
        };
        if let (Some(ours), Some(theirs)) = (resident("client"), resident("litellm")) {
            verdicts.push(Verdict {
                name: "LiteLLM's memory over our proxy's".into(),
                ratio: theirs / ours,
                target: LITELLM_MEMORY_TARGET,
            });
        }
        verdicts
    }

    fn json(&self) -> Value {
        let subject = |subject: &Subject| {
            let throughput = |load: &Throughput| json!({ "mode": load.mode.name(), "concurrency": load.concurrency, "per_second": load.per_second });
            json!({
                "name": subject.name,
                "first_token_ms": {
                    "p50": median(&subject.first_token_ms), "p99": quantile(&subject.first_token_ms, 0.99),
                },
                "requests_per_second": subject.throughput.iter().map(throughput).collect::<Vec<_>>(),
            })
        };
        let verdict = |verdict: &Verdict| {
            json!({
                "name": verdict.name, "ratio": verdict.ratio, "target": verdict.target, "met": verdict.is_met(),
            })
        };
        let map = |pairs: Vec<(&str, f64)>| -> Value {
            pairs
                .iter()
                .map(|(name, figure)| ((*name).to_owned(), json!(figure)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        json!({
            "bench": "proxy",
            "is_release_build": !cfg!(debug_assertions),
            "requests": self.requests,
            "litellm_workers": self.litellm_workers,
            "subjects": self.subjects.iter().map(subject).collect::<Vec<_>>(),
            "added_first_token_ms": self.added().iter()
                .map(|(name, [p50, p99])| ((*name).to_owned(), json!({ "p50": p50, "p99": p99 })))
                .collect::<serde_json::Map<_, _>>(),
            "resident_mebibytes": map(self.memory.clone()),
            "chunk_processor_us": map(self.chunk_costs.iter().map(|cost| (cost.role, cost.micros)).collect()),
            "voucher_processor_us": self.voucher_us,
            "ed25519_us": { "sign": self.signatures.sign_us, "verify": self.signatures.verify_us },
            "bound_ms": self.bound_ms(),
            "times_the_bound": self.distance(),
            "verdicts": self.verdicts().iter().map(verdict).collect::<Vec<_>>(),
            "not_fair": NOT_FAIR,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(name: &'static str, milliseconds: f64, per_second: f64) -> Subject {
        Subject {
            name,
            first_token_ms: vec![milliseconds; 3],
            throughput: vec![Throughput {
                mode: Mode::Whole,
                concurrency: 1,
                per_second,
            }],
        }
    }

    #[test]
    fn ratios_are_against_the_direct_way_and_the_targets() {
        let figures = Figures {
            requests: 3,
            litellm_workers: 1,
            subjects: vec![
                subject("direct", 1.0, 10_000.0),
                subject("two hops", 1.1, 9_000.0),
                subject("gristmill", 1.5, 3_000.0),
                subject("litellm", 51.0, 100.0),
                subject("portkey", 3.0, 600.0),
            ],
            memory: vec![("client", 10.0), ("litellm", 500.0)],
            chunk_costs: Vec::new(),
            voucher_us: 100.0,
            signatures: Signatures {
                sign_us: 20.0,
                verify_us: 50.0,
            },
        };
        let close = |one: f64, other: f64| (one - other).abs() < 1e-6;
        let bound_ms = 1.0 / 9.0 - 0.1 + 0.05;
        assert!(close(figures.bound_ms(), bound_ms));
        assert!(close(figures.distance(), (1.0 / 3.0 - 0.1) / bound_ms));
        let verdicts = figures.verdicts();
        let of = |name: &str| {
            let found = verdicts
                .iter()
                .find(|verdict| verdict.name.contains(name))
                .unwrap();
            (found.ratio, found.is_met())
        };
        assert!(close(of("against litellm").0, 30.0) && of("against litellm").1);
        assert!(close(of("against portkey").0, 5.0) && !of("against portkey").1);
        assert!(close(of("over ours, p50").0, 100.0));
        assert!(close(of("memory").0, 50.0) && !of("memory").1);
        assert_eq!(
            figures.json()["verdicts"].as_array().unwrap().len(),
            verdicts.len()
        );
    }
}
