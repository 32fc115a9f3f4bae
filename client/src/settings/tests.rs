use super::*;
use clap::Parser;

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

#[test]
fn nothing_set_gives_the_defaults() {
    assert_eq!(resolve(&[], ""), Ok(Settings::default()));
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let text = "coordinator = \"http://a\"\nchannel_limit = 3\nmax_price_per_million = \"0.5\"";
    let settings = resolve(&["--coordinator", "http://b", "--attempts-max", "5"], text).unwrap();
    assert_eq!(settings.coordinator, "http://b");
    assert_eq!(settings.channel_limit, Credits::micro(3_000_000));
    assert_eq!(settings.max_price_per_million, Some(Credits::micro(500_000)));
    assert_eq!(
        (settings.attempts_max, settings.output_tokens_assumed),
        (5, 4_096)
    );
}

#[test]
fn a_chosen_mesh_port_is_not_replaced() {
    assert!(resolve(&[], "").unwrap().mesh_port_fallback);
    assert!(
        !resolve(&["--mesh-listen", "/ip4/127.0.0.1/udp/1/quic-v1"], "")
            .unwrap()
            .mesh_port_fallback
    );
}

#[test]
fn an_endpoint_open_to_others_needs_a_key() {
    for listen in ["0.0.0.0:7420", "[::]:7420", "192.0.2.1:7420"] {
        let open = resolve(&["--listen", listen], "").unwrap();
        let refused = open.check_access(false);
        assert!(matches!(refused, Err(SettingsError::OpenToOthers(_))), "{listen}");
        assert_eq!(open.check_access(true), Ok(()), "a program has a key of its own");
        let keyed = resolve(&["--listen", listen], "api_keys = [\"0123456789abcdef\"]").unwrap();
        assert_eq!(keyed.check_access(false), Ok(()));
    }
    for listen in ["127.0.0.1:0", "127.9.9.9:1", "[::1]:7420"] {
        let own = resolve(&["--listen", listen], "").unwrap();
        assert_eq!(own.check_access(false), Ok(()), "{listen}");
    }
}

#[test]
fn hosts_and_origins_that_nobody_sends_are_named() {
    for host in ["http://mill", "mill:80", "", "a b", "[::1", "mill/"] {
        let refused = resolve(&[], &format!("allowed_hosts = [{host:?}]"));
        assert_eq!(refused, Err(SettingsError::Host(host.to_owned())));
    }
    for origin in [
        "localhost",
        "http://a/b",
        "http://",
        "null",
        "*",
        "http://a:b",
        "http://u@a",
    ] {
        let refused = resolve(&[], &format!("allowed_origins = [{origin:?}]"));
        assert_eq!(refused, Err(SettingsError::Origin(origin.to_owned())));
    }
    let good = "allowed_hosts = [\"mill.local\", \"[fe80::1]\"]\n\
                allowed_origins = [\"http://localhost:5173\", \"https://mill\", \"http://[::1]:80\", \
                \"vscode-webview://abc\"]";
    resolve(&[], good).unwrap();
}

#[test]
fn numbers_out_of_bounds_are_named() {
    for text in [
        "attempts_max = 0",
        "attempts_max = 17",
        "body_max_bytes = 0",
        "output_tokens_assumed = 0",
        "channel_life_seconds = 0",
        "channel_life_seconds = 2592001",
        "answer_timeout_seconds = 0",
    ] {
        let error = resolve(&[], text).unwrap_err().to_string();
        assert!(error.contains(text.split(' ').next().unwrap()), "{error}");
    }
    assert_eq!(
        resolve(&[], "channel_limit = 0"),
        Err(SettingsError::ChannelLimit)
    );
    assert_eq!(resolve(&[], "mesh_listen = []"), Err(SettingsError::MeshListen));
}

#[test]
fn unknown_keys_name_their_line_and_keys_are_not_shown() {
    let error = toml::from_str::<FileSection>("mdns = true\nlissten = 1")
        .unwrap_err()
        .to_string();
    assert!(error.contains("line 2") && error.contains("lissten"), "{error}");
    let settings = resolve(&[], "api_keys = [\"0123456789abcdef\"]").unwrap();
    assert!(!format!("{settings:?}").contains("0123456789abcdef"));
}
