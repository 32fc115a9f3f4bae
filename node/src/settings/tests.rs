use std::collections::BTreeSet;

use super::*;
use clap::Parser;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::Capability;

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    arguments: ServeArguments,
}

fn arguments(flags: &[&str]) -> ServeArguments {
    Program::parse_from(std::iter::once(&"serve").chain(flags)).arguments
}

fn file(text: &str) -> FileSection {
    toml::from_str(text).unwrap()
}

fn resolve(flags: &[&str], text: &str) -> Result<Settings, SettingsError> {
    Settings::resolve(arguments(flags), file(text))
}

/// A price with the default for what is charged by time.
fn price(input: u32, output: u32) -> Price {
    let mut price = Price::per_million_tokens(Credits::micro(input), Credits::micro(output));
    price
        .per_million
        .insert(Unit::GpuMillisecond, PRICE_THOUSAND_SECONDS);
    price
}

#[test]
fn what_is_no_text_has_prices_of_its_own() {
    let text =
        "price = { request = \"0.001\", thousand_seconds = 1 }\n[prices]\nwhisper = { megabyte_in = 2 }";
    let settings = resolve(&[], text).unwrap();
    let whisper = settings.prices.of("whisper");
    assert_eq!(whisper.constant, Credits::micro(1_000));
    let parts = [Unit::GpuMillisecond, Unit::ByteIn, Unit::ByteOut].map(|unit| whisper.coefficient(unit));
    assert_eq!(parts, [1_000_000, 2_000_000, 0].map(Credits::micro));
}

#[test]
fn owners_say_what_they_know_better_about_models_of_upstreams() {
    let text = "[upstream_models.\"whisper-1\"]\nkinds = [\"audio_transcriptions\"]\n\
                [upstream_models.\"*\"]\nadd_capabilities = [\"image_input\"]\nremove_capabilities = [\"seed\"]";
    let models = resolve(&[], text).unwrap().upstreams.models;
    assert_eq!(
        models["whisper-1"].kinds,
        Some(BTreeSet::from([JobKind::AudioTranscriptions]))
    );
    let others = &models["*"];
    assert_eq!(others.added, BTreeSet::from([Capability::ImageInput]));
    assert_eq!(others.removed, BTreeSet::from([Capability::Seed]));
    for wrong in [
        "kinds = [\"chat\"]",
        "add_capabilities = [\"flight\"]",
        "kind = []",
    ] {
        assert!(
            toml::from_str::<FileSection>(&format!("[upstream_models.m]\n{wrong}")).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn nothing_set_gives_the_defaults() {
    assert_eq!(resolve(&[], "").unwrap(), Settings::default());
    assert_eq!(Settings::default().check(), Ok(()));
    let listen = Settings::default().mesh_listen.preferred();
    let texts: Vec<_> = listen.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        ["/ip4/127.0.0.1/udp/7410/quic-v1", "/ip4/127.0.0.1/tcp/7410"]
    );
}

#[test]
fn flags_win_over_the_file() {
    let text = "slots = 1\nregion = \"CH\"\nprice = { input = 1, output = \"2.5\" }\nmdns = true";
    let settings = resolve(&["--slots", "2", "--price-input", "0.3", "--mdns", "false"], text).unwrap();
    assert_eq!(
        (settings.slots, settings.region.as_str(), settings.mdns),
        (2, "CH", false)
    );
    assert_eq!(settings.prices.default, price(300_000, 2_500_000));
}

#[test]
fn prices_of_models_fall_back_to_the_default_part_by_part() {
    let text = "price = { output = 2 }\n[prices]\n\"llama:8b\" = { input = \"0.05\" }\nqwen = { output = 9 }";
    let settings = resolve(&["--price", "qwen=1/3"], text).unwrap();
    assert_eq!(*settings.prices.of("llama:8b"), price(50_000, 2_000_000));
    assert_eq!(*settings.prices.of("qwen"), price(1_000_000, 3_000_000));
    assert_eq!(*settings.prices.of("other"), price(100_000, 2_000_000));
}

#[test]
fn models_are_read_from_texts_and_tables() {
    let text =
        "models = [\"guide\", { source = \"org/name:q4.gguf\", name = \"mine\", price = { input = 1 } }]";
    let models = resolve(&[], text).unwrap().models.unwrap();
    assert_eq!(
        models[0],
        ModelSetting {
            source: ModelChoice::Guide,
            name: None,
            price: None
        }
    );
    assert_eq!(models[1].name.as_deref(), Some("mine"));
    assert_eq!(models[1].price, Some(price(1_000_000, 400_000)));
    let models = resolve(&["--model", "mine=org/name", "--model", "guide"], text)
        .unwrap()
        .models
        .unwrap();
    assert_eq!(models.len(), 2);
    let hub = ModelSource::Hub {
        repository: "org/name".into(),
        file: None,
    };
    assert_eq!(
        (&models[0].source, models[0].name.as_deref()),
        (&ModelChoice::Files(hub), Some("mine"))
    );
    assert_eq!(resolve(&[], "models = []").unwrap().models, Some(vec![]));
}

#[test]
fn upstreams_are_auto_none_or_addresses() {
    let upstreams = |text: &str| resolve(&[], text).map(|settings| settings.upstreams);
    let auto = upstreams("upstreams = [\"auto\", \"http://127.0.0.1:9000/api\"]").unwrap();
    assert!(auto.discover);
    assert_eq!(auto.urls[0].as_str(), "http://127.0.0.1:9000/api");
    assert!(!upstreams("upstreams = [\"none\"]").unwrap().discover);
    assert!(!upstreams("upstreams = []").unwrap().discover);
    assert_eq!(
        upstreams("upstreams = [\"none\", \"auto\"]"),
        Err(SettingsError::NoneBesideOthers)
    );
    for text in [
        "ftp://127.0.0.1",
        "127.0.0.1:11434",
        "http://user:pw@127.0.0.1",
        "http://127.0.0.1/?q",
    ] {
        let wrong = upstreams(&format!("upstreams = [\"{text}\"]"));
        assert_eq!(wrong, Err(SettingsError::Upstream { text: text.into() }));
    }
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let error = |text: &str| resolve(&[], text).unwrap_err();
    let bounds = |text: &str| match error(text) {
        SettingsError::OutOfBounds { setting, .. } => setting,
        other => panic!("{other}"),
    };
    assert_eq!(bounds("slots = 0"), "slots");
    assert_eq!(bounds("slots = 1025"), "slots");
    assert!(resolve(&[], "slots = 1024\nqueue_length = 0").is_ok());
    assert_eq!(bounds("redeem_interval_seconds = 0"), "redeem_interval_seconds");
    assert_eq!(bounds("drain_seconds = 3601"), "drain_seconds");
    assert!(matches!(
        error("credit_window = \"0.000999\""),
        SettingsError::CreditWindow(_)
    ));
    assert_eq!(error("mesh_listen = []"), SettingsError::MeshListen);
    assert!(matches!(
        error("mesh_listen = [\"x\"]"),
        SettingsError::Multiaddress { .. }
    ));
    assert!(matches!(
        error("local_api = \"0.0.0.0:7430\""),
        SettingsError::LocalApiNotLoopback(_)
    ));
    assert!(matches!(
        error("local_api = \"x\""),
        SettingsError::LocalApi { .. }
    ));
    assert_eq!(
        resolve(&[], "local_api = \"none\"").unwrap().local_api,
        LocalApi::Off
    );
    assert!(matches!(
        error(&format!("region = \"{}\"", "x".repeat(257))),
        SettingsError::Text { .. }
    ));
    assert!(matches!(error("region = \"a\\nb\""), SettingsError::Text { .. }));
}

#[test]
fn unknown_keys_name_their_line() {
    let error = toml::from_str::<FileSection>("slots = 1\nslot = 1")
        .unwrap_err()
        .to_string();
    assert!(error.contains("line 2") && error.contains("slot"), "{error}");
    let error = toml::from_str::<FileSection>("price = { inptu = 1 }")
        .unwrap_err()
        .to_string();
    assert!(error.contains("inptu"), "{error}");
}
