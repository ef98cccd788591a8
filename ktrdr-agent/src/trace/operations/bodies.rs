//! Bodies that were read before. Both ends of a call on one host carry the same bytes, and so do most answers to a poll;
//! reading one takes longer than all else that is done for a call.
//!
//! A pure shortcut: the bytes decide, and with and without it the fields are the same.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::body::Fields;
use super::rules::Rules;

/// Bodies remembered, each at most [`MAX_SAMPLE`](crate::engine::half::MAX_SAMPLE) bytes and its fields: about as many as
/// are on their way between two ends at once.
const PLACES: usize = 64;
/// Shorter ones are read as quickly as they are looked up.
const MIN_LEN: usize = 32;

/// The bodies read last.
pub struct Bodies {
    /// By their hash; a newer one takes the place.
    places: Box<[Option<Known>]>,
    nothing: Arc<Fields>,
}

struct Known {
    body: Box<[u8]>,
    fields: Arc<Fields>,
}

impl Default for Bodies {
    fn default() -> Self {
        let places = std::iter::repeat_with(|| None).take(PLACES).collect();
        Self { places, nothing: Arc::default() }
    }
}

impl Bodies {
    /// As [`Fields::by`]. The rules are the same each time.
    pub fn fields(&mut self, body: &[u8], rules: &Rules) -> Arc<Fields> {
        if body.is_empty() {
            return self.nothing.clone();
        }
        if body.len() < MIN_LEN {
            return Arc::new(Fields::by(body, rules));
        }
        let place = xxh3_64(body) as usize % PLACES;
        match &mut self.places[place] {
            Some(known) if *known.body == *body => known.fields.clone(),
            other => {
                let fields = Arc::new(Fields::by(body, rules));
                *other = Some(Known { body: body.into(), fields: fields.clone() });
                fields
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_seen_again_says_the_same_and_another_one_does_not() {
        let (mut bodies, rules) = (Bodies::default(), Rules::default());
        let body =
            |n: u32| format!(r#"{{"success": false, "error": "gateway {n} is not connected", "code": {n}}}"#);
        // More than there are places, so that some lose theirs, and each twice.
        for n in (0..200).chain(0..200).flat_map(|n| [n, n]) {
            let text = body(n);
            let fields = bodies.fields(text.as_bytes(), &rules);
            assert_eq!(*fields, Fields::by(text.as_bytes(), &rules));
            assert_eq!(fields.get("/error"), Some(&*format!("gateway {n} is not connected")));
        }
        let text = body(7);
        let again = bodies.fields(text.as_bytes(), &rules);
        assert!(Arc::ptr_eq(&again, &bodies.fields(text.as_bytes(), &rules)));
        assert!(bodies.fields(b"", &rules).is_empty());
    }
}
