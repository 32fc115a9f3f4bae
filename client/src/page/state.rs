//! What the page shows, put together from the board, from what was seen of providers and from finished requests.
//! Neither prompts nor answers are known here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use gristmill_protocol::board::Board;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use serde::Serialize;

use crate::coordinator_link::LinkState;
use crate::core::calendar::Day;
use crate::core::keys::Program;
use crate::core::models::{ModelView, models_on_offer};
use crate::core::providers::{ProviderView, providers_on_offer};
use crate::core::records::Standing;
use crate::core::usage_report::GroupBy;
use crate::market::Market;
use crate::proxy::Proxy;
use crate::wallet::lock;

/// Most models that are sent to the page.
const MODELS_MAX: usize = 500;
/// Most providers that are sent to the page.
const PROVIDERS_MAX: usize = 100;

/// For so long back the providers are shown that were asked, as long as spending is.
const SHOWN_MS: u64 = 29 * 24 * 60 * 60 * 1_000;

/// `GET /v1/page/state`.
pub(super) async fn answer(
    State(proxy): State<Arc<Proxy>>,
    Extension(program): Extension<Program>,
) -> Json<PageState> {
    Json(page_state(&proxy.market, &program))
}

/// Everything that the page shows. Times are Unix milliseconds, amounts microcredits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct PageState {
    version: &'static str,
    now_ms: u64,
    account: AccountId,
    coordinator: CoordinatorView,
    #[serde(flatten)]
    offers: Offers,
    /// Those that were asked something lately, the dearest first; at most [`PROVIDERS_MAX`]. A program with a key of
    /// its own is shown whom it asked itself.
    providers: Vec<ProviderEntry>,
}

/// How it stands with the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct CoordinatorView {
    /// `unknown`, `joined` or `away`.
    state: &'static str,
    away_because: Option<String>,
    distrusted_because: Option<String>,
}

/// What is on offer.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Offers {
    models_on_offer: usize,
    providers_on_offer: usize,
    /// By name; at most [`MODELS_MAX`].
    models: Vec<ModelEntry>,
    /// Those on offer with what they have shown of their hardware, the verified ones first; at most [`PROVIDERS_MAX`].
    hardware: Vec<ProviderView>,
}

/// A model on offer and how fast it begins.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct ModelEntry {
    #[serde(flatten)]
    model: ModelView,
    /// The shortest time to the first output that was measured of any provider of it.
    first_output_ms: Option<u64>,
}

/// A provider, what it was asked and paid, and what was seen of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct ProviderEntry {
    account: AccountId,
    condition: Condition,
    requests: u64,
    cost: Credits,
    #[serde(flatten)]
    seen: Seen,
}

/// How a provider stands with this client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Condition {
    /// Nothing speaks against it.
    Good,
    /// It said that it has no room.
    Busy,
    /// Others are asked first.
    Failing,
    /// Nobody asks it until its time of rest is over.
    PassedOver,
    /// It offers nothing now.
    Gone,
}

/// What was seen of a provider since the client started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Seen {
    /// Jobs that it failed.
    failed: u64,
    /// Mean time to its first output in milliseconds.
    first_output_ms: Option<u64>,
    /// Output tokens that it writes per second.
    tokens_per_second: Option<f64>,
}

/// What is known of the providers that were asked something since the client started.
type Records = BTreeMap<AccountId, (Condition, Seen)>;

fn page_state(market: &Market, program: &Program) -> PageState {
    let now_ms = market.now_ms();
    let (away, state) = match market.link.state() {
        LinkState::Unknown => (None, "unknown"),
        LinkState::Joined => (None, "joined"),
        LinkState::Away(reason) => (Some(reason), "away"),
    };
    let coordinator = market.link.terms().map(|terms| terms.coordinator);
    let records = records(market, now_ms);
    let (offers, offering) = market.mesh.with_board(|board| {
        let offers = offers(board, coordinator, market.account, &records, now_ms);
        let offering: BTreeSet<_> = board.listings(now_ms).map(|listing| listing.provider).collect();
        (offers, offering)
    });
    PageState {
        version: env!("CARGO_PKG_VERSION"),
        now_ms,
        account: market.account,
        coordinator: CoordinatorView {
            state,
            away_because: away,
            distrusted_because: market.link.witness().distrust(),
        },
        offers,
        providers: providers(market, program, &records, &offering),
    }
}

fn records(market: &Market, now_ms: u64) -> Records {
    let known = lock(&market.records);
    let asked = known
        .standings(now_ms)
        .filter(|(_, standing)| standing.jobs_begun > 0);
    asked
        .map(|(provider, standing)| (provider, (Condition::of(&standing), Seen::of(&standing))))
        .collect()
}

impl Condition {
    const fn of(standing: &Standing) -> Self {
        match standing {
            standing if !standing.is_admitted => Self::PassedOver,
            standing if standing.is_failing => Self::Failing,
            standing if standing.is_busy => Self::Busy,
            _ => Self::Good,
        }
    }
}

impl Seen {
    fn of(standing: &Standing) -> Self {
        Self {
            failed: standing.totals.failed,
            first_output_ms: standing.first_output_ms.map(whole_ms),
            tokens_per_second: standing.tokens_per_second,
        }
    }
}

/// Records are bounded by an hour and never negative.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and nobody reads fractions of milliseconds"
)]
fn whole_ms(milliseconds: f64) -> u64 {
    milliseconds.round() as u64
}

/// What can be bought with a coordinator's tickets, and how fast it began so far.
fn offers(
    board: &Board,
    coordinator: Option<AccountId>,
    account: AccountId,
    records: &Records,
    now_ms: u64,
) -> Offers {
    let payable = board
        .listings(now_ms)
        .filter(|listing| coordinator.is_none_or(|it| listing.coordinators.contains(&it)))
        .filter(|listing| listing.provider != account);
    let mut fastest: BTreeMap<&str, u64> = BTreeMap::new();
    for listing in payable {
        let measured = records
            .get(&listing.provider)
            .and_then(|(_, seen)| seen.first_output_ms);
        let Some(measured_ms) = measured else {
            continue;
        };
        for offer in &listing.offers {
            let fastest_ms = fastest.entry(&offer.model).or_insert(measured_ms);
            *fastest_ms = measured_ms.min(*fastest_ms);
        }
    }
    let models = models_on_offer(board, coordinator, Some(account), now_ms).data;
    let mut providers = providers_on_offer(board, coordinator, Some(account), now_ms);
    providers.data.truncate(PROVIDERS_MAX);
    Offers {
        models_on_offer: models.len(),
        providers_on_offer: providers.total,
        hardware: providers.data,
        models: models
            .into_iter()
            .take(MODELS_MAX)
            .map(|model| ModelEntry {
                first_output_ms: fastest.get(model.id.as_str()).copied(),
                model,
            })
            .collect(),
    }
}

fn providers(
    market: &Market,
    program: &Program,
    records: &Records,
    offering: &BTreeSet<AccountId>,
) -> Vec<ProviderEntry> {
    let own = match program {
        Program::Key { name, .. } => Some(name.as_str()),
        Program::Anyone | Program::Owner | Program::Settings => None,
    };
    let since = Day::of(market.now_ms().saturating_sub(SHOWN_MS));
    let asked = market.usage.report(GroupBy::Provider, Some(since), own).rows;
    let entry = |account: AccountId, requests, cost| {
        let (condition, seen) = records
            .get(&account)
            .copied()
            .unwrap_or((Condition::Good, Seen::default()));
        ProviderEntry {
            account,
            condition: if offering.contains(&account) {
                condition
            } else {
                Condition::Gone
            },
            requests,
            cost,
            seen,
        }
    };
    asked
        .into_iter()
        // What is summed up as others has no account.
        .filter_map(|row| Some(entry(row.group.parse().ok()?, row.sums.requests, row.sums.cost)))
        .take(PROVIDERS_MAX)
        .collect()
}
