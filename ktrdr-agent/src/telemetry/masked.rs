//! Secrets in the agent's own log records, before they leave the host.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry::logs::{AnyValue, LogRecord as _};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogProcessor, SdkLogRecord};

use crate::mask::Mask;

/// Stands before the processor that sends. The agent's log is text: its attributes hold counts only.
#[derive(Debug)]
pub struct Masked(pub Arc<Mask>);

impl LogProcessor for Masked {
    fn emit(&self, record: &mut SdkLogRecord, _scope: &InstrumentationScope) {
        let Some(AnyValue::String(body)) = record.body() else { return };
        let masked = self.0.text(body.as_str());
        if masked != body.as_str() {
            let masked = masked.into_owned();
            record.set_body(AnyValue::String(masked.into()));
        }
    }
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }
    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::logs::{Logger as _, LoggerProvider as _};
    use opentelemetry_sdk::logs::SdkLoggerProvider;

    #[test]
    fn a_secret_in_the_agents_own_log_does_not_leave() {
        let logger = SdkLoggerProvider::builder().build().logger("test");
        let masked = Masked(Arc::new(Mask::default()));
        for (said, sent) in [
            ("cannot reach http://me:s3cret@host/", "cannot reach http://REDACTED@host/"),
            ("observing (hook Socket)", "observing (hook Socket)"),
        ] {
            let mut record = logger.create_log_record();
            record.set_body(said.into());
            masked.emit(&mut record, &InstrumentationScope::default());
            assert_eq!(record.body(), Some(&AnyValue::from(sent)));
        }
    }
}
