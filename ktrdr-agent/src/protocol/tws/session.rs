//! What is known of the session, beside its requests.

use super::codes::{self, Effect};
use crate::trace::model::Attributes;

/// Farms remembered as broken: IB has about two dozen.
const MAX_FARMS: usize = 32;
/// Longest name of a farm that is kept.
const MAX_FARM: usize = 40;

/// The session of one connection.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// Version agreed on in the handshake.
    pub server_version: Option<i64>,
    /// The client's id for itself.
    pub client_id: Option<i64>,
    down: bool,
    farms_down: Vec<String>,
}

impl Session {
    /// A message without a request id.
    pub(super) fn news(&mut self, code: i64, text: &str) {
        match codes::effect(code) {
            Effect::Down => self.down = true,
            Effect::Up => self.down = false,
            Effect::FarmDown => {
                if let Some(farm) = farm(text)
                    && self.farms_down.len() < MAX_FARMS
                    && !self.farms_down.iter().any(|f| f == farm)
                {
                    self.farms_down.push(farm.to_owned());
                }
            }
            Effect::FarmUp => {
                let farm = farm(text);
                self.farms_down.retain(|f| Some(f.as_str()) != farm);
            }
            Effect::None => {}
        }
    }

    /// For each request.
    pub(super) fn attributes(&self) -> Attributes {
        let mut a = Attributes::new();
        if let Some(version) = self.server_version {
            a.push("ib.server_version", version);
        }
        if let Some(id) = self.client_id {
            a.push("connection.client_id", id);
        }
        if self.down {
            a.push("ib.session.state", "no_connection_to_ib");
        }
        if !self.farms_down.is_empty() {
            a.push("ib.session.farms_down", self.farms_down.clone());
        }
        a
    }
}

/// The farm's name stands behind the last colon: `Market data farm connection is OK:usfarm`.
fn farm(text: &str) -> Option<&str> {
    let name = text.rsplit_once(':')?.1.trim();
    (!name.is_empty() && name.len() <= MAX_FARM).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_what_is_broken_until_it_is_mended() {
        let mut session = Session { server_version: Some(178), client_id: Some(7), ..Session::default() };
        let before = session.attributes();
        session.news(2103, "Market data farm connection is broken:usfarm");
        session.news(2105, "HMDS data farm connection is broken:ushmds");
        session.news(2103, "Market data farm connection is broken:usfarm");
        session.news(1100, "Connectivity between IB and Trader Workstation has been lost.");
        let farms = crate::trace::model::Value::from(vec!["usfarm".to_owned(), "ushmds".to_owned()]);
        assert_eq!(session.attributes().get("ib.session.farms_down"), Some(&farms));
        assert_eq!(session.attributes().get("ib.session.state"), Some(&"no_connection_to_ib".into()));
        session.news(2104, "Market data farm connection is OK:usfarm");
        session.news(2106, "HMDS data farm connection is OK:ushmds");
        session.news(1102, "Connectivity between IB and Trader Workstation has been restored");
        assert_eq!(session.attributes(), before);
        for n in 0..1000 {
            session.news(2103, &format!("Market data farm connection is broken:f{n}"));
        }
        assert_eq!(session.farms_down.len(), MAX_FARMS);
    }
}
