//! What is known of a request beside its body: its id, who asks, and where it stands in the caller's trace.

use gristmill_protocol::job::RequestId;
use gristmill_protocol::trace::TraceParent;

use crate::core::keys::Program;
use crate::core::overrides::RoutingOverrides;

/// What travels with a request from the endpoint to the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestContext {
    /// The same in headers, logs and receipts.
    pub request_id: RequestId,
    /// Who asks.
    pub program: Program,
    /// The position in the program's trace, where it sent one.
    pub trace_parent: Option<TraceParent>,
    /// What the program says of this request's routing.
    pub overrides: RoutingOverrides,
}

impl RequestContext {
    /// A request that nothing more is known of.
    #[must_use]
    pub fn new(request_id: RequestId) -> Self {
        Self {
            request_id,
            program: Program::default(),
            trace_parent: None,
            overrides: RoutingOverrides::default(),
        }
    }
}
