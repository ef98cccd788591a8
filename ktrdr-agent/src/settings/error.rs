//! What can be wrong with settings, said so that it can be put right: where, which key, and the likely one.

use std::{fmt, path::PathBuf};

use super::schema::Schema;

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line (from 1) of a file.
    File(PathBuf, usize),
    /// An environment variable.
    Environment(String),
    /// A command-line option.
    Flag(String),
    /// Nobody gave it: the default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "option {name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {why}", path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// Why.
        why: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{origin}: not valid TOML: {message}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// What the parser says.
        message: String,
    },
    /// There is no such key.
    #[error("{origin}: unknown key `{key}`{}", hint.as_ref().map(|h| format!("; {h}")).unwrap_or_default())]
    UnknownKey {
        /// Where.
        origin: Origin,
        /// Dotted path of the key.
        key: String,
        /// What was probably meant.
        hint: Option<String>,
    },
    /// A value of the wrong type, out of range or at odds with another.
    #[error("{origin}: bad value for `{key}`: {message}")]
    BadValue {
        /// Where.
        origin: Origin,
        /// Dotted path of the key.
        key: String,
        /// Why.
        message: String,
    },
}

/// The key that was probably meant by the unknown `key` in the table `section` (a dotted path, empty = top).
pub(super) fn hint(root: &Schema, section: &str, key: &str) -> Option<String> {
    let prefix = if section.is_empty() { String::new() } else { format!("{section}.") };
    let full = format!("{prefix}{key}");
    let paths = root.paths();
    // A neighbour spelt almost alike, else the same key in another section, else any path spelt almost alike.
    let neighbours = paths.iter().filter(|p| p.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('.')));
    let near = |candidate: &&String| -> Option<usize> {
        let short = candidate.rsplit('.').next().unwrap_or(candidate);
        let distance = strsim::osa_distance(short, key);
        (distance <= (key.len() / 3).max(2)).then_some(distance)
    };
    let neighbour = neighbours.filter_map(|p| Some((near(&p)?, p))).min();
    if let Some((_, path)) = neighbour {
        return Some(format!("did you mean `{path}`?"));
    }
    let elsewhere = paths.iter().find(|p| p.rsplit('.').next() == Some(key));
    if let Some(path) = elsewhere {
        return Some(format!("did you mean `{path}`?"));
    }
    let any = paths.iter().map(|p| (strsim::osa_distance(p, &full), p)).min()?;
    (any.0 <= full.len() / 3).then(|| format!("did you mean `{}`?", any.1))
}
