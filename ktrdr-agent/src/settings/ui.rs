//! Where something is served, and to whom.

use std::net::SocketAddr;

use super::{Bad, said, values::Secret};

/// Recent traces over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ui {
    /// Where, if at all.
    pub listen: Option<SocketAddr>,
    /// What a client must show, if anything.
    pub token: Secret,
}

impl Ui {
    pub(super) fn resolve(said: &said::Ui) -> Result<Self, Bad> {
        let listen = listen("ui", "127.0.0.1:16686", &said.listen, &said.token)?;
        Ok(Self { listen, token: said.token.clone() })
    }
}

/// The address that `listen` of a section names. Whatever others can reach asks for a token.
pub(super) fn listen(
    section: &str,
    example: &str,
    text: &str,
    token: &Secret,
) -> Result<Option<SocketAddr>, Bad> {
    let bad = |why: String| Bad::new(format!("{section}.listen"), why);
    if text.is_empty() {
        return Ok(None);
    }
    let address = text
        .parse::<SocketAddr>()
        .map_err(|_| bad(format!("must be an address and a port, such as {example}")))?;
    if !address.ip().is_loopback() && token.reveal().is_none() {
        return Err(bad(format!(
            "is not a loopback address, so {section}.token must be set: others can reach it"
        )));
    }
    Ok(Some(address))
}
