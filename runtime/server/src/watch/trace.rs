//! W3C trace context: to which trace a request belongs.

use std::fmt;

use axum::http::{HeaderMap, HeaderName};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The trace and the span of the caller, as its header `traceparent` says.
///
/// The form is that of <https://www.w3.org/TR/trace-context/>. A header of another form counts as
/// none, as the standard demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    id: TraceId,
    span: SpanId,
    flags: TraceFlags,
}

impl Trace {
    /// What the headers say; `None` where they say nothing, or nothing that is valid.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut given = headers.get_all(TRACEPARENT).iter();
        let header = given.next()?;
        // Two of them name no trace.
        if given.next().is_some() {
            return None;
        }
        Self::parse(header.as_bytes())
    }

    fn parse(text: &[u8]) -> Option<Self> {
        const LENGTH: usize = 55;
        let known = text.get(..LENGTH)?;
        // A later version may add fields behind a dash.
        if text.len() > LENGTH && (&text[..2] == b"00" || text[LENGTH] != b'-') {
            return None;
        }
        let is_dash = |at: usize| known[at] == b'-';
        if !(is_dash(2) && is_dash(35) && is_dash(52)) {
            return None;
        }
        if hex(&known[..2])? == 0xff {
            return None;
        }
        let high = hex(&known[3..19])?;
        let low = hex(&known[19..35])?;
        let id = TraceId::from((u128::from(high) << 64) | u128::from(low));
        let span = SpanId::from(hex(&known[36..52])?);
        let flags = u8::try_from(hex(&known[53..])?).ok()?;
        let is_valid = id != TraceId::INVALID && span != SpanId::INVALID;
        is_valid.then_some(Self {
            id,
            span,
            flags: TraceFlags::new(flags) & TraceFlags::SAMPLED,
        })
    }

    /// As the parent of a span, with the caller's `tracestate`.
    pub(crate) fn parent(self, headers: &HeaderMap) -> opentelemetry::Context {
        let state = headers
            .get(TRACESTATE)
            .and_then(|state| state.to_str().ok()?.parse::<TraceState>().ok())
            .unwrap_or_default();
        let span = SpanContext::new(self.id, self.span, self.flags, true, state);
        opentelemetry::Context::new().with_remote_span_context(span)
    }

    /// The trace of a span, if the span is one of a trace.
    pub(crate) fn of_span(span: &tracing::Span) -> Option<TraceId> {
        use tracing_opentelemetry::OpenTelemetrySpanExt;
        let context = span.context();
        let id = context.span().span_context().trace_id();
        (id != TraceId::INVALID).then_some(id)
    }

    /// The trace's number.
    pub(crate) const fn id(self) -> TraceId {
        self.id
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = self.flags.to_u8();
        write!(f, "00-{}-{}-{flags:02x}", self.id, self.span)
    }
}

/// Lower-case hexadecimal digits, at most 16, as a number.
fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some((number << 4) | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_valid_header_is_read_as_it_was_written() {
        let trace = Trace::parse(VALID.as_bytes()).unwrap();
        assert_eq!(trace.to_string(), VALID);
        assert_eq!(trace.id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        let later = VALID.replacen("00", "01", 1) + "-more";
        assert_eq!(Trace::parse(later.as_bytes()), Some(trace));
    }

    #[test]
    fn a_header_of_another_form_counts_as_none() {
        for text in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x",
        ] {
            assert_eq!(Trace::parse(text.as_bytes()), None, "{text}");
        }
        let mut twice = HeaderMap::new();
        twice.append(TRACEPARENT, VALID.parse().unwrap());
        assert!(Trace::of(&twice).is_some());
        twice.append(TRACEPARENT, VALID.parse().unwrap());
        assert_eq!(Trace::of(&twice), None);
    }
}
