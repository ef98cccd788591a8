//! What the user is told of it: when it begins, when it ends, and in between when it is much different.

use std::time::Duration;

use super::Limits;
use super::law::observed;

/// Between two lines about changes.
const PAUSE: Duration = Duration::from_secs(60);
/// A part that is so much larger or smaller is news.
const MUCH: f64 = 2.0;
/// Ports that are named in one line; the busiest come first.
const NAMED: usize = 5;

/// A thinned port, for people.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Thin {
    pub port: u16,
    pub left_out: u32,
    /// Transfers per second, seen and unseen.
    pub rate: f64,
}

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Words {
    told: Vec<Thin>,
    at: Duration,
}

impl Words {
    /// The line to say at `now`, if there is one: whether it is a warning, and its text.
    pub fn of(&mut self, now: Duration, ports: &[Thin], limits: &Limits) -> Option<(bool, String)> {
        let (begins, ends) = (self.told.is_empty(), ports.is_empty());
        if begins && ends || !begins && !ends && (now < self.at + PAUSE || !self.much_different(ports)) {
            return None;
        }
        (self.told, self.at) = (ports.to_vec(), now);
        Some(match (begins, ends) {
            (_, true) => (false, "within the agent's budget again: all connections are observed".to_owned()),
            (true, false) => (
                true,
                format!(
                    "the agent takes more than {limits}: it observes {} until there is less to do; a larger budget.cpu \
                     observes more of them, exclude.ports none",
                    parts(ports)
                ),
            ),
            (false, false) => {
                (false, format!("to stay within its budget the agent now observes {}", parts(ports)))
            }
        })
    }

    fn much_different(&self, ports: &[Thin]) -> bool {
        let before = |port| self.told.iter().find(|t| t.port == port).map_or(1.0, |t| observed(t.left_out));
        let gone = self.told.iter().any(|t| ports.iter().all(|p| p.port != t.port));
        gone || ports.iter().any(|p| {
            let (now, before) = (observed(p.left_out), before(p.port));
            now >= before * MUCH || now <= before / MUCH
        })
    }
}

fn parts(ports: &[Thin]) -> String {
    let mut busiest = ports.to_vec();
    busiest.sort_by(|a, b| b.rate.total_cmp(&a.rate));
    let named: Vec<String> = busiest
        .iter()
        .take(NAMED)
        .map(|p| {
            let part = observed(p.left_out) * 100.0;
            let digits = usize::from(part < 10.0);
            format!("{part:.digits$} % of the connections on port {} ({:.0} transfers/s)", p.port, p.rate)
        })
        .collect();
    let more = busiest.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and parts of {more} more") } else { String::new() };
    named.join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thin(port: u16, part: f64) -> Thin {
        Thin { port, left_out: ((1.0 - part) * 65_536.0) as u32, rate: 240_000.0 / f64::from(port) }
    }

    #[test]
    fn the_begin_and_the_end_are_told_and_what_is_much_different_now_and_then() {
        let mut words = Words::default();
        let limits = Limits { processors: 0.1, fraction: 0.05, online: 2.0 };
        let mut at = |s, ports: &[Thin]| words.of(Duration::from_secs(s), ports, &limits);
        assert_eq!(at(1, &[]), None);
        let (warns, text) = at(20, &[thin(80, 0.14)]).unwrap();
        assert!(warns);
        assert_eq!(
            text,
            "the agent takes more than 5% of this host's 2 processors: it observes 14 % of the connections on port 80 (3000 \
             transfers/s) until there is less to do; a larger budget.cpu observes more of them, exclude.ports none"
        );
        assert_eq!(at(30, &[thin(80, 0.02)]), None);
        assert_eq!(at(90, &[thin(80, 0.12)]), None);
        let (warns, text) = at(95, &[thin(80, 0.004)]).unwrap();
        assert!(
            !warns && text.ends_with("now observes 0.4 % of the connections on port 80 (3000 transfers/s)"),
            "{text}"
        );
        assert!(at(160, &[thin(80, 0.004), thin(90, 0.9)]).is_none());
        assert!(at(170, &[thin(90, 0.9)]).is_some());
        let (warns, text) = at(171, &[]).unwrap();
        assert!(!warns && text.starts_with("within"), "{text}");
        assert!(at(172, &[]).is_none());
        let many: Vec<Thin> = (1..=7).map(|port| thin(port, 0.5)).collect();
        assert!(
            at(173, &many).unwrap().1.contains("on port 5 (48000 transfers/s) and parts of 2 more until")
        );
    }
}
