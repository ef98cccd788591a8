//! Where the agent's own telemetry goes.

use super::{
    Bad, Otlp, Target,
    said::{Otlp as SaidOtlp, SelfTelemetry as Said},
};

/// A receiver like that of `otlp`, from the few settings that are left to choose.
pub(super) fn resolve(said: &Said) -> Result<Option<Target>, Bad> {
    let as_otlp = SaidOtlp {
        endpoint: said.endpoint.clone(),
        headers: said.headers.clone(),
        certificate: said.certificate.clone(),
        ..SaidOtlp::default()
    };
    let resolved = Otlp::resolve(&as_otlp);
    let resolved =
        resolved.map_err(|Bad { key, message }| Bad::new(key.replace("otlp.", "self_telemetry."), message));
    Ok(resolved?.traces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_sent_unless_told_and_a_wrong_url_names_its_key() {
        assert_eq!(resolve(&Said::default()).unwrap(), None);
        let of = |endpoint: &str| resolve(&Said { endpoint: endpoint.to_owned(), ..Said::default() });
        assert_eq!(of("http://c:4317").unwrap().unwrap().url, "http://c:4317");
        assert_eq!(of("ftp://c").unwrap_err().key, "self_telemetry.endpoint");
    }
}
