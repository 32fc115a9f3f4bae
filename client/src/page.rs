//! The local page: try a prompt, see what is on offer, what was spent, and who answered.
//!
//! Its files are in the program, so that it works without a network and without a build step. They are served to
//! everybody who may call at all and hold no secret; what they show comes from [`state`], for which a key is asked
//! where there are some.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::get;

use crate::proxy::Proxy;

pub(crate) mod state;

/// Nothing but the page's own files and calls, no script or style inside the page, no frame around it. (W3C Content
/// Security Policy Level 3, Trusted Types.)
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";
const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

/// A file of the page.
struct Asset {
    path: &'static str,
    media_type: &'static str,
    text: &'static str,
}

macro_rules! asset {
    ($path:literal, $media_type:expr, $file:literal) => {
        Asset {
            path: $path,
            media_type: $media_type,
            text: include_str!(concat!("page/assets/", $file)),
        }
    };
}

/// Every file of the page.
const ASSETS: &[Asset] = &[
    asset!("/", HTML, "index.html"),
    asset!("/page/style.css", STYLE, "style.css"),
    asset!("/page/tables.css", STYLE, "tables.css"),
    asset!("/page/icon.svg", PICTURE, "icon.svg"),
    asset!("/page/page.js", SCRIPT, "page.js"),
    asset!("/page/ask.js", SCRIPT, "ask.js"),
    asset!("/page/api.js", SCRIPT, "api.js"),
    asset!("/page/chart.js", SCRIPT, "chart.js"),
    asset!("/page/event_stream.js", SCRIPT, "event_stream.js"),
    asset!("/page/format.js", SCRIPT, "format.js"),
    asset!("/page/hardware.js", SCRIPT, "hardware.js"),
    asset!("/page/tables.js", SCRIPT, "tables.js"),
];

/// The routes of the page's files, with the headers that keep other pages out of it.
pub(crate) fn files() -> Router<Arc<Proxy>> {
    let served = ASSETS.iter().fold(Router::new(), |routes, asset| {
        let answer = ([(header::CONTENT_TYPE, asset.media_type)], asset.text);
        routes.route(asset.path, get(move || async move { answer }))
    });
    served.layer(map_response(protect))
}

/// The route of what the page shows; for whoever may use the endpoint.
pub(crate) fn data() -> Router<Arc<Proxy>> {
    Router::new()
        .route("/v1/page/state", get(state::answer))
        .layer(map_response(protect))
}

async fn protect(mut response: Response) -> Response {
    response.headers_mut().extend(protection());
    response
}

fn protection() -> HeaderMap {
    [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // The files change with the program, and the figures all the time; neither has to stay on a disk.
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ]
    .into_iter()
    .map(|(name, value)| (name, HeaderValue::from_static(value)))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name of SVG's elements. Nobody loads it.
    const SVG_NAMESPACE: &str = "http://www.w3.org/2000/svg";

    #[test]
    fn no_file_names_another_place() {
        for asset in ASSETS {
            let text = asset.text.replace(SVG_NAMESPACE, "");
            for foreign in [
                "http:", "https:", "ws:", "wss:", "data:", "url(", "\"//", "'//", "@import",
            ] {
                let found = text.matches(foreign).count();
                // The word that begins the lines of an event stream.
                let known = usize::from(foreign == "data:") * text.matches("startsWith(\"data:").count();
                assert_eq!(found, known, "{foreign} in {}", asset.path);
            }
        }
    }

    #[test]
    fn the_policy_is_not_undermined() {
        for asset in ASSETS {
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                " style=",
                "<style",
                "localStorage",
                "indexedDB",
                "document.cookie",
                " onclick",
            ] {
                assert!(!asset.text.contains(forbidden), "{forbidden} in {}", asset.path);
            }
            let scripts = asset.text.matches("<script").count();
            assert_eq!(
                scripts,
                asset.text.matches("<script type=\"module\" src=").count()
            );
        }
        for loose in ["unsafe", "*", "http", "blob", "data"] {
            assert!(!CONTENT_SECURITY_POLICY.contains(loose), "{loose}");
        }
    }

    #[test]
    fn every_file_that_another_one_names_is_there() {
        for asset in ASSETS {
            let named = asset.text.split(['"', '\'']).filter(|text| {
                text.starts_with("./") || text.starts_with("/page/") && !text.contains(char::is_whitespace)
            });
            for name in named {
                let path = name.replacen("./", "/page/", 1);
                assert!(
                    ASSETS.iter().any(|asset| asset.path == path),
                    "{name} in {}",
                    asset.path
                );
            }
        }
    }
}
