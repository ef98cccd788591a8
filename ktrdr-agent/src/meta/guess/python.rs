//! Python programs: application servers, modules, scripts, console scripts, and the helpers of `multiprocessing`.

use super::{Found, Process, VAGUE, last, script};

/// What the interpreter was told to run (python(1)): the thing, and its own arguments.
#[derive(Debug, PartialEq, Eq)]
enum Entry<'a> {
    Module(&'a str, &'a [String]),
    Script(&'a str, &'a [String]),
    Code(&'a str),
    Nothing,
}

impl<'a> Entry<'a> {
    fn of(args: &'a [String]) -> Self {
        let mut i = 1;
        while let Some(arg) = args.get(i) {
            let rest = |from: usize| args.get(from..).unwrap_or_default();
            let Some(letters) = arg.strip_prefix('-').filter(|l| !l.is_empty()) else {
                return if arg == "-" { Self::Nothing } else { Self::Script(arg, rest(i + 1)) };
            };
            i += 1;
            if let Some(long) = letters.strip_prefix('-') {
                // The only long option with a value of its own.
                i += usize::from(long == "check-hash-based-pycs");
                continue;
            }
            // Short options may stand together, and one that takes a value takes what is left or the next argument.
            for (at, letter) in letters.char_indices() {
                if !matches!(letter, 'c' | 'm' | 'W' | 'X') {
                    continue;
                }
                let inline = &letters[at + 1..];
                let value = if inline.is_empty() { args.get(i).map(String::as_str) } else { Some(inline) };
                let after = i + usize::from(inline.is_empty());
                match (letter, value) {
                    ('c', Some(code)) => return Self::Code(code),
                    ('m', Some(module)) => return Self::Module(module, rest(after)),
                    (_, Some(_)) => i = after,
                    (_, None) => return Self::Nothing,
                }
                break;
            }
        }
        Self::Nothing
    }
}

/// Whether this is a helper that does its parent's work: its own command line names only `multiprocessing`.
pub fn is_spawned(p: &Process) -> bool {
    match Entry::of(&p.args) {
        Entry::Code(code) => code.contains("multiprocessing."),
        _ => false,
    }
}

/// Names a Python program.
pub(super) fn name(p: &Process) -> Found {
    // Programs that set their own title (setproctitle) leave one string.
    if let Some(app) =
        p.args.first().and_then(|t| t.strip_prefix("gunicorn: ")?.split_once('[')?.1.strip_suffix(']'))
    {
        return app_name(app);
    }
    match Entry::of(&p.args) {
        Entry::Module(module, rest) => launcher(module, rest).unwrap_or_else(|| module_name(module)),
        Entry::Script(path, rest) => {
            if let Some(found) = launcher(last(path), rest) {
                return found;
            }
            // An installed console script: `python /venv/bin/name`.
            let dir = path.rsplit_once('/').map_or("", |(dir, _)| last(dir));
            if dir == "bin" && !path.ends_with(".py") {
                Found::Name(last(path).to_owned())
            } else {
                script(path)
            }
        }
        Entry::Code(_) | Entry::Nothing => Found::In(String::new()),
    }
}

/// Programs that run somebody else's application.
fn launcher(program: &str, rest: &[String]) -> Option<Found> {
    let option = |names: &[&str]| {
        rest.iter().enumerate().find_map(|(i, a)| {
            let (name, inline) = a.split_once('=').map_or((a.as_str(), None), |(n, v)| (n, Some(v)));
            names.contains(&name).then(|| inline.or_else(|| rest.get(i + 1).map(String::as_str)))?
        })
    };
    match program {
        "uvicorn" | "gunicorn" | "hypercorn" | "daphne" | "granian" | "uwsgi" | "waitress-serve" => {
            let app = rest.iter().map(String::as_str).find(|a| is_app(a));
            // gunicorn and uwsgi take a module without `:app`, as the last argument or as an option.
            let app = app.or_else(|| option(&["--module", "-w", "--app"]).filter(|a| is_dotted(a)));
            let app = app.or_else(|| rest.last().map(String::as_str).filter(|a| is_dotted(a)));
            Some(app.map_or_else(|| Found::Name(program.to_owned()), app_name))
        }
        "flask" => Some(option(&["--app", "-A"]).map_or_else(|| Found::In(String::new()), app_or_file)),
        "fastapi" => {
            let file = rest.iter().skip(1).find(|a| !a.starts_with('-') && a.parse::<u16>().is_err());
            Some(file.map_or_else(|| Found::In(String::new()), |f| script(f)))
        }
        "celery" => option(&["-A", "--app"]).map(app_name),
        "streamlit" => rest.iter().find(|a| a.ends_with(".py")).map(|f| script(f)),
        _ => None,
    }
}

fn app_or_file(app: &str) -> Found {
    if app.ends_with(".py") { script(app) } else { app_name(app) }
}

/// `package.module:attribute`, perhaps called: what application servers take. A host and port (`0.0.0.0:80`,
/// `localhost:80`) is not one.
fn is_app(text: &str) -> bool {
    let Some((module, attribute)) = text.split_once(':') else { return false };
    let attribute = attribute.strip_suffix("()").unwrap_or(attribute);
    is_dotted(module) && is_dotted(attribute)
}

fn is_dotted(text: &str) -> bool {
    let word = |w: &str| {
        w.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_')
            && w.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    text.split('.').all(word)
}

fn app_name(app: &str) -> Found {
    module_name(app.split(':').next().unwrap_or(app))
}

/// Parts that may end a module's path without saying more than what stands before them.
const ENTRIES: [&str; 9] =
    ["main", "__main__", "app", "application", "wsgi", "asgi", "run", "start", "index"];

/// A dotted module without the parts at its end that say nothing: `shop.api.main` is `shop.api`.
fn module_name(module: &str) -> Found {
    let mut parts: Vec<&str> = module.split('.').collect();
    while parts.last().is_some_and(|p| ENTRIES.contains(p)) {
        parts.pop();
    }
    if parts.iter().all(|p| VAGUE.contains(p)) {
        Found::In(String::new())
    } else {
        Found::Name(parts.join("."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn interpreter_options_are_followed() {
        let nothing: &[String] = &[];
        for (line, want) in [
            ("python main.py", Entry::Script("main.py", nothing)),
            ("python -u -W ignore -X dev main.py", Entry::Script("main.py", nothing)),
            ("python -Wignore -Xdev -bb main.py", Entry::Script("main.py", nothing)),
            ("python -um pkg.mod", Entry::Module("pkg.mod", nothing)),
            ("python -mpkg", Entry::Module("pkg", nothing)),
            ("python --check-hash-based-pycs always x.py", Entry::Script("x.py", nothing)),
            ("python -c print(1)", Entry::Code("print(1)")),
            ("python", Entry::Nothing),
            ("python -", Entry::Nothing),
            ("python -m", Entry::Nothing),
            ("python -Eé m", Entry::Script("m", nothing)),
        ] {
            assert_eq!(Entry::of(&args(line)), want, "{line}");
        }
    }

    #[test]
    fn applications_are_told_from_addresses() {
        for app in ["main:app", "ktrdr.api.main:app", "shop:create_app()", "a:b.c"] {
            assert!(is_app(app), "{app}");
        }
        for other in ["0.0.0.0:8000", "localhost:8000", "[::]:80", "main", "--x:y", ":app", "a:"] {
            assert!(!is_app(other), "{other}");
        }
    }
}
