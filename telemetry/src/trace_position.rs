//! Where a request stands in a trace: the span of this program, and the one that caused it.

use gristmill_protocol::trace::TraceParent;
use rand::{Rng, RngExt as _};

/// A span of this program in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracePosition {
    /// The span itself: the parent of what others do for it.
    pub own: TraceParent,
    /// The span that caused it, where the caller told one.
    pub caused_by: Option<[u8; 8]>,
}

impl TracePosition {
    /// A new span below the caller's, or at the root of a trace of its own where the caller told none. A trace that
    /// the caller does not record is not recorded here either.
    pub fn begin(caller: Option<TraceParent>, random: &mut impl Rng) -> Self {
        let span = not_zero(random);
        match caller {
            Some(caller) => Self {
                own: caller.with_parent(span),
                caused_by: Some(caller.parent),
            },
            None => Self {
                own: TraceParent {
                    trace: not_zero(random),
                    parent: span,
                    is_sampled: true,
                },
                caused_by: None,
            },
        }
    }

    /// A span below this one.
    pub fn child(&self, random: &mut impl Rng) -> Self {
        Self::begin(Some(self.own), random)
    }
}

/// Random bytes; all zero is no id (W3C Trace Context, sections 3.2.2.3 and 3.2.2.4).
fn not_zero<const N: usize>(random: &mut impl Rng) -> [u8; N] {
    let mut bytes = [0; N];
    random.fill(&mut bytes);
    if bytes.iter().all(|byte| *byte == 0) {
        bytes[N - 1] = 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_stays_in_its_callers_trace_and_begins_one_where_there_is_none() {
        let mut random = rand::rng();
        let caller: TraceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
            .parse()
            .unwrap();
        let below = TracePosition::begin(Some(caller), &mut random);
        assert_eq!(
            (below.own.trace, below.caused_by),
            (caller.trace, Some(caller.parent))
        );
        assert!(
            below.own.parent != caller.parent && !below.own.is_sampled,
            "the caller's choice is kept"
        );
        let root = TracePosition::begin(None, &mut random);
        assert!(root.own.is_sampled && root.caused_by.is_none());
        let child = root.child(&mut random);
        assert_eq!(
            (child.own.trace, child.caused_by),
            (root.own.trace, Some(root.own.parent))
        );
        assert_eq!(root.own.to_string().parse(), Ok(root.own), "never all zero");
    }
}
