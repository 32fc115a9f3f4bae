use serde::Deserialize;

use super::*;
use crate::scenario::{Bounded, Fraction};

const TEXT: &str = r#"# How far does a word go?
duration_s = 60

[network]
# Lost on the way.
loss = 0.01
degree = 8

[[providers]]
name = "home"
count = 10
churn = 0.5

[[providers]]
name = "farm"
count = 2

[vary]
network.loss = [0.0, 0.1]
providers.home.count = [10, 20, 40]

[small]
duration_s = 5
vary.providers.home.count = [1, 2]

[answer]
sentence = "It goes {far}."
headline = ["far"]

[[expect]]
metric = "far"
at_least = 0.5
because = "it always did"
"#;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    duration_s: Bounded<1, 86_400>,
    network: Network,
    providers: Vec<Group>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Network {
    loss: Fraction,
    degree: Bounded<1, 64>,
    #[serde(default)]
    nat: Option<String>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    count: Bounded<0, 100>,
    #[serde(default)]
    churn: Option<Fraction>,
}

fn plan(text: &str) -> Plan {
    Plan::parse("far", text).unwrap()
}

fn read(plan: &Plan) -> Result<Vec<Config>, String> {
    let variants = plan.variants().map_err(|error| error.to_string())?;
    let read = variants.iter().map(Variant::read);
    read.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

#[test]
fn variants_are_all_combinations_in_the_order_of_the_file() {
    let plan = plan(TEXT);
    assert_eq!(
        (plan.question.as_str(), plan.answer.headline.len()),
        ("How far does a word go?", 1)
    );
    assert_eq!(plan.expectations.len(), 1);
    let configs = read(&plan).unwrap();
    let got: Vec<(f64, u64)> = configs
        .iter()
        .map(|config| (config.network.loss.get(), config.providers[0].count.get()))
        .collect();
    assert_eq!(
        got,
        [(0.0, 10), (0.0, 20), (0.0, 40), (0.1, 10), (0.1, 20), (0.1, 40)]
    );
    assert!(plan.varies_as_its_file());
    let variants = plan.variants().unwrap();
    assert_eq!(variants[4].parameters["providers.home.count"], "20");
    assert_ne!(variants[4].identity(), variants[5].identity());
}

#[test]
fn a_small_plan_has_its_own_values() {
    let mut plan = plan(TEXT);
    plan.make_small().unwrap();
    let configs = read(&plan).unwrap();
    assert_eq!(
        (
            configs.len(),
            configs[3].duration_s.get(),
            configs[3].providers[0].count.get()
        ),
        (4, 5, 2)
    );
}

#[test]
fn keys_are_found_by_their_end_and_a_change_ends_varying() {
    let mut plan = plan(TEXT);
    plan.change(&Change::parse("loss = 0.3").unwrap()).unwrap();
    plan.vary("home.count", vec!["3".into()]).unwrap();
    assert!(!plan.varies_as_its_file(), "the loss is set");
    plan.change(&Change::new("providers.farm.churn", "0.25")).unwrap();
    plan.change(&Change::new("network.nat", "open")).unwrap();
    assert_eq!(plan.recipe().plan().unwrap().variants(), plan.variants());
    let configs = read(&plan).unwrap();
    let [only] = configs.as_slice() else {
        panic!("{configs:?}")
    };
    assert_eq!((only.network.loss.get(), only.providers[0].count.get()), (0.3, 3));
    assert_eq!(only.providers[0].churn.map(Fraction::get), Some(0.5));
    assert_eq!(only.network.nat.as_deref(), Some("open"));
}

#[test]
fn mistakes_in_the_file_name_line_key_and_mending() {
    let cases = [
        (
            "loss = 0.01",
            "lose = 0.01",
            "line 6, key network.lose: unknown field `lose`, expected one of `loss`",
        ),
        ("degree = 8", "degree = -8", "line 7, key network.degree: "),
        (
            "degree = 8",
            "degree = 65",
            "line 7, key network.degree: 65 is out of bounds; it must be from 1 to 64",
        ),
        (
            "churn = 0.5",
            "churn = 1.5",
            "line 12, key providers.churn: 1.5 is out of bounds; a share must be from 0.0 to 1.0",
        ),
        ("count = 2", "", "line 14, key providers: missing field `count`"),
        (
            "[answer]",
            "[answer]\nsay = 1",
            "key answer.say: unknown field `say`",
        ),
        ("duration_s = 60", "duration_s = ", "line 2, key duration_s: "),
        (
            "[vary]\n",
            "[vary]\nduration_s = 3\n",
            "line 19, key vary.duration_s: write the values to compare as a list",
        ),
    ];
    for (from, to, part) in cases {
        assert!(TEXT.contains(from), "{from}");
        let text = TEXT.replacen(from, to, 1);
        let message = match Plan::parse("far", &text) {
            Ok(mut plan) => {
                plan.dimensions.clear();
                read(&plan).unwrap_err()
            }
            Err(error) => error.to_string(),
        };
        assert!(message.contains(part), "{to}: {message}");
    }
    assert_eq!(Plan::parse("far", &TEXT[1..]), Err(PlanError::Question));
}

#[test]
fn a_mistake_in_a_value_that_is_varied_is_one() {
    let unvaried = |text: &str| {
        let unvaried = plan(text).unvaried().unwrap();
        unvaried.read::<Config>().map_err(|error| error.to_string())
    };
    assert_eq!(unvaried(TEXT).unwrap().network.loss.get(), 0.01);
    let lossy = TEXT.replacen("loss = 0.01", "loss = 1.5", 1);
    assert!(read(&plan(&lossy)).is_ok(), "no variant has it");
    assert_eq!(
        unvaried(&lossy).unwrap_err().split(": 1.5").next(),
        Some("line 6, key network.loss")
    );
    let without = TEXT.replacen("loss = 0.01", "", 1);
    assert_eq!(unvaried(&without).unwrap().network.loss.get(), 0.0);
}

#[test]
fn mistakes_in_a_change_name_the_change() {
    let cases = [
        ("network.loss=1.5", "network.loss=1.5: 1.5 is out of bounds"),
        ("network.loos=0.5", "network.loos=0.5: unknown field `loos`"),
        (
            "loos=0.5",
            "loos=0.5: unknown field `loos`, expected one of `duration_s`, `network`, `providers`; a key of a table",
        ),
        (
            "name=attic",
            "several keys end so; write one of providers.home.name, providers.farm.name",
        ),
        (
            "providers.attic.count=5",
            "providers has no table that is named attic",
        ),
        ("degree=[1", "degree=[1: the value is no TOML"),
        ("degree=-1", "degree=-1: "),
    ];
    for (change, part) in cases {
        let mut plan = plan(TEXT);
        let message = match plan.change(&Change::parse(change).unwrap()) {
            Ok(()) => read(&plan).unwrap_err(),
            Err(error) => error.to_string(),
        };
        assert!(message.contains(part), "{change}: {message}");
    }
    assert!(Change::parse("churn").is_err() && Change::parse("=1").is_err());
    let mut plan = plan(TEXT);
    assert!(matches!(
        plan.vary("loss", Vec::new()),
        Err(PlanError::NoValues { .. })
    ));
    plan.vary("loss", vec!["0.1".into(); VARIANTS_MAX + 1]).unwrap();
    assert_eq!(plan.variants(), Err(PlanError::TooManyVariants));
}
