//! What the head of a request says of operations and workers. Most requests have the same head as another one a moment ago,
//! and what is found in it is the same each time.

use std::sync::Arc;

use super::rules::Rules;
use super::workers;
use crate::trace::assembly::About;
use crate::trace::attributes::{Attributes, Common};

/// Heads remembered: those that a busy host's requests have in common, at both ends. A newer one takes the place.
const PLACES: usize = 256;

/// What a head says.
#[derive(Debug)]
pub struct Reading {
    /// The operation that a header names.
    pub header: Option<Box<str>>,
    /// The one that the URL names.
    pub url: Option<Box<str>>,
    /// What the request is about, but for its body.
    pub about: About,
    /// It is to or from a worker, or about one.
    pub of_worker: bool,
}

impl Reading {
    fn of(a: &Attributes, rules: &Rules) -> Self {
        Self {
            header: rules.in_headers(a).map(Into::into),
            url: rules.in_url(a).map(Into::into),
            about: About::request(a, std::iter::empty(), false),
            of_worker: workers::concern(a),
        }
    }
}

type Known = (Common, Arc<Reading>);

/// Heads read before.
pub struct Readings(Box<[Option<Known>]>);

impl Default for Readings {
    fn default() -> Self {
        Self(vec![None; PLACES].into())
    }
}

impl Readings {
    /// What a request's attributes say. The rules are the same each time.
    pub fn of(&mut self, a: &Attributes, rules: &Rules) -> Arc<Reading> {
        let Some(common) = a.common() else { return Arc::new(Reading::of(a, rules)) };
        match &mut self.0[common.place(PLACES)] {
            Some((known, reading)) if known == common => reading.clone(),
            other => {
                let reading = Arc::new(Reading::of(&common.attributes(), rules));
                *other = Some((common.clone(), reading.clone()));
                reading
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_in_common_is_read_once_and_says_the_same() {
        let (mut readings, rules) = (Readings::default(), Rules::default());
        for n in 0..300 {
            let mut a = Attributes::new();
            a.push("url.path", format!("/api/v1/operations/op_training_{n:08}/AAPL"));
            a.push("network.peer.port", 1_u16);
            let alone = readings.of(&a, &rules);
            a.share("network.peer.port");
            a.set("network.peer.port", 2_u16);
            a.push("thread.id", 7_u32);
            let common = readings.of(&a, &rules);
            assert_eq!(common.url, alone.url);
            assert_eq!(common.url.as_deref(), Some(&*format!("op_training_{n:08}")));
            assert_eq!(common.about, alone.about);
            assert!(Arc::ptr_eq(&common, &readings.of(&a, &rules)));
            // Another path in its place is read for itself.
            a.set("url.path", "/workers/register");
            let other = readings.of(&a, &rules);
            assert!(other.of_worker && other.url.is_none());
        }
    }
}
