//! Which upstream servers an owner names.

use std::collections::{BTreeMap, BTreeSet};

use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::Capability;
use reqwest::Url;

use super::SettingsError;

/// Which upstream servers a node uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstreams {
    /// Whether to look for Ollama, vLLM, llama.cpp, LM Studio and SGLang at their usual ports on loopback.
    pub discover: bool,
    /// Servers that the owner named.
    pub urls: Vec<Url>,
    /// Hosts beyond loopback that an upstream may be on.
    pub allowed_hosts: Vec<String>,
    /// What the owner says about models of upstreams, by their names on offer, or `*` for those without a name here.
    pub models: BTreeMap<String, UpstreamModelSetting>,
}

/// What an owner says about a model of an upstream, over what is found out about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamModelSetting {
    /// The kinds of jobs it serves, where they are not those that were found out.
    pub kinds: Option<BTreeSet<JobKind>>,
    /// What it can honour besides what was found out.
    pub added: BTreeSet<Capability>,
    /// What is not offered, whatever was found out.
    pub removed: BTreeSet<Capability>,
}

pub(super) fn parse_upstreams(
    texts: Option<Vec<String>>,
    allowed_hosts: Vec<String>,
) -> Result<Upstreams, SettingsError> {
    let Some(texts) = texts else {
        return Ok(Upstreams {
            discover: true,
            urls: Vec::new(),
            allowed_hosts,
            models: BTreeMap::new(),
        });
    };
    let mut upstreams = Upstreams {
        discover: false,
        urls: Vec::new(),
        allowed_hosts,
        models: BTreeMap::new(),
    };
    for text in &texts {
        match text.as_str() {
            "auto" => upstreams.discover = true,
            "none" if texts.len() == 1 => {}
            "none" => return Err(SettingsError::NoneBesideOthers),
            _ => upstreams.urls.push(parse_upstream(text)?),
        }
    }
    Ok(upstreams)
}

/// An upstream is `http` or `https`, a host, a port, and perhaps a path before `/v1`.
fn parse_upstream(text: &str) -> Result<Url, SettingsError> {
    let wrong = || SettingsError::Upstream {
        text: text.to_owned(),
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || !plain {
        return Err(wrong());
    }
    Ok(url)
}
