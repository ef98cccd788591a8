//! The macro that defines a section of the settings, and what it leaves behind: a struct for serde, its defaults,
//! and a [`Schema`] from which the default file, the spelling help and the environment variables follow.
//!
//! Adding a setting is one doc-commented field in [`super::said`].

/// One key of a section.
#[derive(Debug)]
pub struct Field {
    /// Key as written in the file.
    pub key: &'static str,
    /// Doc comment, one entry per line.
    pub doc: &'static [&'static str],
    /// What is below the key.
    pub shape: Shape,
}

/// A table of the file.
#[derive(Debug)]
pub struct Schema {
    /// Doc comment, one entry per line.
    pub doc: &'static [&'static str],
    /// Its keys in the order of definition.
    pub fields: &'static [Field],
}

/// What a key holds.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// A value: the schema ends here.
    Value,
    /// A table.
    Section(&'static Schema),
    /// An array of tables (`[[…]]`).
    List(&'static Schema),
}

/// Types that can be the type of a setting.
pub trait HasShape {
    /// What such a key holds.
    const SHAPE: Shape;
}

/// Marks types as plain values.
macro_rules! values {
    ($($ty:ty),* $(,)?) => {$(
        impl $crate::settings::schema::HasShape for $ty {
            const SHAPE: $crate::settings::schema::Shape = $crate::settings::schema::Shape::Value;
        }
    )*};
}

values!(bool, f64, u16, u32, u64, usize, String, Vec<String>, Vec<u16>, Vec<u32>);
values!(std::collections::BTreeMap<String, String>);
values!(std::collections::BTreeMap<String, super::values::Secret>);

impl<T: HasShape> HasShape for Option<T> {
    const SHAPE: Shape = T::SHAPE;
}

/// Defines sections: doc comment, type and default of every key in one place.
macro_rules! settings {
    ($(
        $(#[doc = $doc:literal])*
        pub struct $name:ident {
            $( $(#[doc = $field_doc:literal])* $field:ident: $ty:ty = $default:expr ),* $(,)?
        }
    )*) => {$(
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $( $(#[doc = $field_doc])* pub $field: $ty, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        impl $name {
            /// Keys, documentation and nested sections.
            pub const SCHEMA: $crate::settings::schema::Schema = $crate::settings::schema::Schema {
                doc: &[$($doc),*],
                fields: &[$( $crate::settings::schema::Field {
                    key: stringify!($field),
                    doc: &[$($field_doc),*],
                    shape: <$ty as $crate::settings::schema::HasShape>::SHAPE,
                } ),*],
            };
        }

        impl $crate::settings::schema::HasShape for $name {
            const SHAPE: $crate::settings::schema::Shape =
                $crate::settings::schema::Shape::Section(&$name::SCHEMA);
        }

        impl $crate::settings::schema::HasShape for Vec<$name> {
            const SHAPE: $crate::settings::schema::Shape =
                $crate::settings::schema::Shape::List(&$name::SCHEMA);
        }
    )*};
}

pub(crate) use settings;
pub(crate) use values;

impl Schema {
    /// The key's field, if the section has it.
    pub fn field(&self, key: &str) -> Option<&'static Field> {
        self.fields.iter().find(|f| f.key == key)
    }

    /// Every key below this section as a dotted path, lists included as `list.key`.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect("", &mut out);
        out
    }

    fn collect(&self, prefix: &str, out: &mut Vec<String>) {
        for field in self.fields {
            let path = if prefix.is_empty() { field.key.into() } else { format!("{prefix}.{}", field.key) };
            if let Shape::Section(s) | Shape::List(s) = field.shape {
                s.collect(&path, out);
            }
            out.push(path);
        }
    }

    /// Shape of the key at a dotted path; lists and values have nothing below that a path could name.
    pub fn at(&self, path: &str) -> Option<Shape> {
        let (head, rest) = path.split_once('.').map_or((path, None), |(h, r)| (h, Some(r)));
        let shape = self.field(head)?.shape;
        match (rest, shape) {
            (None, shape) => Some(shape),
            (Some(rest), Shape::Section(s)) => s.at(rest),
            (Some(_), Shape::Value | Shape::List(_)) => None,
        }
    }
}
