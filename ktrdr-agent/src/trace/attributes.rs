//! Attributes. What many spans say alike, because their calls carry the same bytes, is kept once for all of them.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use compact_str::CompactString;

use super::model::Value;

/// Name of an attribute.
pub type Key = Cow<'static, str>;

/// A named value.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    /// Name, from the semantic conventions or with the prefix `ktrdr.`.
    pub key: Key,
    /// Value.
    pub value: Value,
}

/// Most attributes that are shared: a bit tells of each whether another value stands in its place.
const MAX_SHARED: usize = u64::BITS as usize;

/// Attributes in the order they were set; a key occurs once.
///
/// They begin with what is shared with others, where that is: nothing of it is copied until it is changed, so that a
/// finished span takes as much memory as it differs from others of its kind.
#[derive(Clone, Default)]
pub struct Attributes {
    shared: Option<Common>,
    /// Which of the shared ones have another value here.
    replaced: u64,
    /// Those, in the order of what they replace, and behind them the others.
    own: Vec<Attribute>,
    /// Which keys there may be: a bit of [`bit`] each. Most questions are for what is not there.
    keys: u64,
}

/// What several have in common. Equal ones are the same: whoever derives something of it needs to do so once.
#[derive(Clone)]
pub struct Common(Arc<Shared>);

impl Common {
    /// These alone.
    pub fn attributes(&self) -> Attributes {
        Attributes { shared: Some(self.clone()), keys: self.0.keys, ..Attributes::new() }
    }

    /// Its place in a table of so many.
    pub fn place(&self, places: usize) -> usize {
        // Blocks of this size lie at least so far apart.
        (Arc::as_ptr(&self.0).addr() >> 6) % places
    }
}

impl PartialEq for Common {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Attributes that several have in common.
struct Shared {
    all: Box<[Attribute]>,
    /// Which keys there are.
    keys: u64,
    /// Which of them each has its own value of, as its bit.
    individual: u64,
    /// Its memory.
    bytes: usize,
    /// Values that masking puts in the place of these; as a rule none.
    masked: OnceLock<Box<[(usize, Value)]>>,
}

/// The bit that stands for a key. Of a literal it is known when the agent is built.
#[inline]
const fn bit(key: &str) -> u64 {
    let bytes = key.as_bytes();
    let len = bytes.len();
    if len == 0 {
        return 1;
    }
    1 << ((len * 5 + bytes[len - 1] as usize * 3 + bytes[len / 2] as usize) % MAX_SHARED)
}

impl Attributes {
    /// None yet.
    pub const fn new() -> Self {
        Self { shared: None, replaced: 0, own: Vec::new(), keys: 0 }
    }
    /// None yet, with room for `n`.
    pub fn with_capacity(n: usize) -> Self {
        Self { own: Vec::with_capacity(n), ..Self::new() }
    }
    /// A copy with room for `n` more.
    pub fn with_room(&self, n: usize) -> Self {
        let mut own = Vec::with_capacity(self.own.len() + n);
        own.extend_from_slice(&self.own);
        Self { shared: self.shared.clone(), replaced: self.replaced, own, keys: self.keys }
    }
    /// Has copies share what is there now; each will have its own value of `individual`.
    pub fn share(&mut self, individual: &str) {
        if self.len() <= MAX_SHARED && !self.own.is_empty() {
            let all: Box<[Attribute]> = match &self.shared {
                None => std::mem::take(&mut self.own).into(),
                Some(_) => self.iter().cloned().collect(),
            };
            let bytes = bytes(&all, all.len());
            let individual = all.iter().position(|a| a.key == individual).map_or(0, |at| 1 << at);
            let shared = Shared { all, keys: self.keys, individual, bytes, masked: OnceLock::new() };
            let shared = Some(Common(Arc::new(shared)));
            *self = Self { shared, keys: self.keys, ..Self::new() };
        }
    }
    /// Adds an attribute whose key the caller knows to be new: [`set`](Self::set) without the search.
    #[inline]
    pub fn push(&mut self, key: impl Into<Key>, value: impl Into<Value>) {
        let key = key.into();
        debug_assert!(self.get(&key).is_none(), "{key} is there already");
        self.keys |= bit(&key);
        self.own.push(Attribute { key, value: value.into() });
    }
    /// Adds or replaces.
    #[inline]
    pub fn set(&mut self, key: impl Into<Key>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        let bit = bit(&key);
        if self.keys & bit == 0 {
            self.keys |= bit;
            self.own.push(Attribute { key, value });
        } else {
            self.put(key, value, bit);
        }
    }
    /// [`set`](Self::set) where the key may be there.
    fn put(&mut self, key: Key, value: Value, bit: u64) {
        let rest = self.replaced_count();
        if let Some(at) = self.shared_at(&key, bit) {
            self.replace(at, value);
        } else if let Some(a) = self.own[rest..].iter_mut().find(|a| a.key == key) {
            a.value = value;
        } else {
            self.own.push(Attribute { key, value });
        }
    }
    /// Where among the shared ones the key is.
    fn shared_at(&self, key: &str, bit: u64) -> Option<usize> {
        let shared = &self.shared.as_ref()?.0;
        if shared.keys & bit == 0 { None } else { shared.all.iter().position(|a| a.key == key) }
    }
    /// Puts another value in the place of a shared one.
    fn replace(&mut self, at: usize, value: Value) {
        let place = self.place(at);
        if self.replaced >> at & 1 == 1 {
            self.own[place].value = value;
        } else {
            let key = self.shared()[at].key.clone();
            self.own.insert(place, Attribute { key, value });
            self.replaced |= 1 << at;
        }
    }
    fn shared(&self) -> &[Attribute] {
        self.shared.as_ref().map_or(&[], |s| &s.0.all)
    }
    /// What they have in common with others, but for the values that each has its own of; `None` if there is nothing, or
    /// another value stands in the place of one. What was [added](Self::added) comes on top.
    pub fn common(&self) -> Option<&Common> {
        self.shared.as_ref().filter(|s| self.replaced & !s.0.individual == 0)
    }
    /// Those that are not in [`common`](Self::common).
    pub fn added(&self) -> &[Attribute] {
        &self.own[self.replaced_count()..]
    }
    /// Where in `own` what replaces the shared one at `at` stands, or would.
    fn place(&self, at: usize) -> usize {
        (self.replaced & ((1 << at) - 1)).count_ones() as usize
    }
    fn replaced_count(&self) -> usize {
        self.replaced.count_ones() as usize
    }
    /// The value of `key`.
    #[inline]
    pub fn get(&self, key: &str) -> Option<&Value> {
        let bit = bit(key);
        if self.keys & bit == 0 { None } else { self.find(key, bit) }
    }
    fn find(&self, key: &str, bit: u64) -> Option<&Value> {
        if let Some(at) = self.shared_at(key, bit) {
            let replaced = self.replaced >> at & 1 == 1;
            return Some(if replaced { &self.own[self.place(at)].value } else { &self.shared()[at].value });
        }
        self.own[self.replaced_count()..].iter().find(|a| a.key == key).map(|a| &a.value)
    }
    /// Adds or replaces all of `other`.
    pub fn extend(&mut self, other: Attributes) {
        if self.is_empty() {
            // The room that was made for them stays.
            let own = std::mem::take(&mut self.own);
            *self = other;
            if self.own.is_empty() {
                self.own = own;
            }
        } else if other.shared.is_none() {
            other.own.into_iter().for_each(|a| self.set(a.key, a.value));
        } else {
            other.iter().for_each(|a| self.set(a.key.clone(), a.value.clone()));
        }
    }
    /// In the order they were set.
    pub fn iter(&self) -> Iter<'_> {
        let (instead, rest) = self.own.split_at(self.replaced_count());
        Iter {
            shared: self.shared().iter(),
            replaced: self.replaced,
            instead: instead.iter(),
            rest: rest.iter(),
        }
    }
    /// Puts other values in the place of those for which `mask` has one. Of shared ones it is asked once for all: it has
    /// to say the same of the same attribute each time.
    pub fn mask(&mut self, mask: impl Fn(&Attribute) -> Option<Value>) {
        if let Some(shared) = self.shared.clone() {
            let masked = shared.0.masked.get_or_init(|| {
                let all = shared.0.all.iter().enumerate();
                all.filter_map(|(at, a)| Some((at, mask(a)?))).collect()
            });
            for (at, value) in masked {
                if self.replaced >> at & 1 == 0 {
                    self.replace(*at, value.clone());
                }
            }
        }
        for a in &mut self.own {
            if let Some(value) = mask(a) {
                a.value = value;
            }
        }
    }
    /// Memory, beside that of the list itself. Of what is shared, the part that falls to this one: at least an eighth, as the
    /// others may go first.
    pub fn bytes(&self) -> usize {
        let shared = self.shared.as_ref().map_or(0, |s| s.0.bytes / Arc::strong_count(&s.0).clamp(1, 8));
        shared + bytes(&self.own, self.own.capacity())
    }
    /// How many.
    pub fn len(&self) -> usize {
        self.shared().len() + self.own.len() - self.replaced_count()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.own.is_empty() && self.shared.is_none()
    }
}

/// Memory of a list with this room.
fn bytes(list: &[Attribute], room: usize) -> usize {
    let text = |s: &CompactString| if s.is_heap_allocated() { s.capacity() } else { 0 };
    let key = |key: &Key| if let Cow::Owned(key) = key { key.capacity() } else { 0 };
    let value = |value: &Value| match value {
        Value::Str(s) => text(s),
        Value::List(items) => items.iter().map(|s| s.capacity() + size_of::<String>()).sum(),
        Value::Static(_) | Value::Id(_) | Value::Int(_) | Value::Float(_) | Value::Bool(_) => 0,
    };
    room * size_of::<Attribute>() + list.iter().map(|a| key(&a.key) + value(&a.value)).sum::<usize>()
}

/// See [`Attributes::iter`].
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    shared: std::slice::Iter<'a, Attribute>,
    replaced: u64,
    instead: std::slice::Iter<'a, Attribute>,
    rest: std::slice::Iter<'a, Attribute>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Attribute;
    #[inline]
    fn next(&mut self) -> Option<&'a Attribute> {
        let Some(shared) = self.shared.next() else { return self.rest.next() };
        let replaced = self.replaced & 1 == 1;
        self.replaced >>= 1;
        if replaced { self.instead.next() } else { Some(shared) }
    }
}

impl<'a> DoubleEndedIterator for Iter<'a> {
    #[inline]
    fn next_back(&mut self) -> Option<&'a Attribute> {
        if let Some(last) = self.rest.next_back() {
            return Some(last);
        }
        let shared = self.shared.next_back()?;
        let replaced = self.replaced >> self.shared.len() & 1 == 1;
        if replaced { self.instead.next_back() } else { Some(shared) }
    }
}

impl<'a> IntoIterator for &'a Attributes {
    type Item = &'a Attribute;
    type IntoIter = Iter<'a>;
    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl PartialEq for Attributes {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl std::fmt::Debug for Attributes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same as a plain list.
    #[derive(Clone, Default)]
    struct Model(Vec<(String, i64)>);

    impl Model {
        fn set(&mut self, key: &str, n: i64) {
            match self.0.iter_mut().find(|(k, _)| k == key) {
                Some((_, value)) => *value = n,
                None => self.0.push((key.to_owned(), n)),
            }
        }
    }

    fn listed(a: &Attributes) -> Vec<(String, i64)> {
        let value = |a: &Attribute| match a.value {
            Value::Int(n) => n,
            _ => unreachable!(),
        };
        a.iter().map(|a| (a.key.to_string(), value(a))).collect()
    }

    proptest! {
        /// Whatever is set, shared, copied and masked in whatever order.
        #[test]
        fn sharing_changes_nothing_that_is_said(
            steps in proptest::collection::vec((0u8..7, 0u8..90, 0i64..100), 0..300)
        ) {
            let (mut a, mut model) = (Attributes::new(), Model::default());
            let (mut before, mut model_before) = (a.clone(), model.clone());
            for (step, key, n) in steps {
                let key = format!("a.{key}");
                match step {
                    0..=2 => {
                        a.set(key.clone(), n);
                        model.set(&key, n);
                    }
                    3 => a.share("a.1"),
                    4 => (before, model_before) = (a.with_room(3), model.clone()),
                    5 => {
                        a.extend(before.clone());
                        model_before.0.iter().for_each(|(k, n)| model.set(k, *n));
                    }
                    _ => {
                        a.mask(|a| (a.value == Value::Int(7)).then_some(Value::Int(-7)));
                        model.0.iter_mut().for_each(|(_, n)| *n = if *n == 7 { -7 } else { *n });
                    }
                }
                prop_assert_eq!(listed(&a), model.0.clone());
                prop_assert!(a.iter().rev().eq(a.iter().collect::<Vec<_>>().into_iter().rev()));
                prop_assert_eq!(a.len(), model.0.len());
                prop_assert_eq!(a.is_empty(), model.0.is_empty());
                let known = model.0.iter().find(|(k, _)| *k == key).map(|(_, n)| Value::Int(*n));
                prop_assert_eq!(a.get(&key), known.as_ref());
                prop_assert!(a == a.clone());
                if a.common().is_some() && a.get("a.1").is_none() {
                    let common = a.len() - a.added().len();
                    prop_assert!(a.iter().skip(common).eq(a.added()));
                }
            }
            prop_assert_eq!(listed(&before), model_before.0);
        }
    }
}
