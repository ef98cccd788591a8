//! Secrets on command lines.

use std::borrow::Cow;

use super::names::Level;
use super::{Mask, REDACTED};

/// Options whose value is `user:password` (curl, wget, ab, …).
const USER_OPTIONS: &[&str] = &["-u", "-U", "--user", "--proxy-user"];

pub(super) fn mask(mask: &Mask, args: &[String]) -> Vec<String> {
    let program = args.first().map(|a| a.rsplit('/').next().unwrap_or(a)).unwrap_or_default();
    let mut out = Vec::with_capacity(args.len());
    for (i, arg) in args.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|i| args.get(i)).map_or("", String::as_str);
        out.push(one(mask, program, before, arg).into_owned());
    }
    out
}

fn one<'a>(mask: &Mask, program: &str, before: &str, arg: &'a str) -> Cow<'a, str> {
    if let Some((name, value)) = arg.split_once('=')
        && plain(name)
        && !value.is_empty()
    {
        let level = if name.starts_with('-') { Level::Wide } else { Level::Text };
        if mask.names(name.as_bytes(), value, level) {
            return Cow::Owned(format!("{name}={REDACTED}"));
        }
    }
    let is_value = !arg.is_empty() && (!arg.starts_with('-') || arg.len() == 1);
    if is_value && before.starts_with('-') && plain(before) && mask.names(before.as_bytes(), arg, Level::Wide)
    {
        return Cow::Borrowed(REDACTED);
    }
    if USER_OPTIONS.contains(&before)
        && let Some((user, password)) = arg.split_once(':')
        && !(is_id(user) && is_id(password))
    {
        return Cow::Owned(format!("{user}:{REDACTED}"));
    }
    match program {
        "curl" if arg.starts_with("-u") && arg.contains(':') => {
            return Cow::Owned(format!("{}:{REDACTED}", arg.split(':').next().unwrap_or_default()));
        }
        "mysql" | "mysqldump" | "mysqladmin" | "mariadb" | "sshpass"
            if arg.starts_with("-p") && arg.len() > 2 =>
        {
            return Cow::Owned(format!("-p{REDACTED}"));
        }
        "curl" if before == "-b" => return Cow::Borrowed(REDACTED),
        "curl" if arg.starts_with("-b") && arg.len() > 2 => return Cow::Owned(format!("-b{REDACTED}")),
        "sshpass" if before == "-p" => return Cow::Borrowed(REDACTED),
        _ => {}
    }
    mask.text(arg)
}

/// An option or variable, not a text that happens to hold a `=`.
fn plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// `docker run -u 1000:1000`.
fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}
