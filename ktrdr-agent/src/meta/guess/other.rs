//! Programs that are not Python: interpreters by what they run, everything else by its executable.

use super::{Found, Process, VAGUE, last, script, stem};

/// Names a program.
pub(super) fn name(p: &Process) -> Found {
    // A program may have renamed itself in its arguments (`nginx: worker process`): the executable does not lie.
    let exe = if p.exe.is_empty() { p.args.first().map_or(p.comm.as_str(), String::as_str) } else { &p.exe };
    let program = without_version(last(exe));
    let rest = p.args.get(1..).unwrap_or_default();
    match program {
        "node" | "nodejs" | "bun" | "deno" => node(rest),
        "java" => java(rest),
        "dotnet" => first(rest, &["exec", "run"])
            .map_or_else(|| own(program), |dll| Found::Name(stem(last(dll)).to_owned())),
        "ruby" | "perl" | "php" | "lua" | "Rscript" => first(rest, &[]).map_or_else(|| own(program), script),
        "bash" | "sh" | "dash" | "zsh" => first(rest, &[]).map_or_else(|| own(program), script),
        _ => own(program),
    }
}

/// A program by its own name, unless that says nothing (a Go service built as `server`).
fn own(program: &str) -> Found {
    if VAGUE.contains(&program) { Found::In(String::new()) } else { Found::Name(program.to_owned()) }
}

/// `php-fpm8.2` → `php-fpm`; a name that is nothing but digits and dots stays.
fn without_version(name: &str) -> &str {
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    // A digit within the name proper (`http2`, `s3`, `k8s`) is no version: those have a dot.
    let version = &name[bare.len()..];
    let bare = bare.trim_end_matches('-');
    if bare.is_empty() || !version.contains('.') { name } else { bare }
}

/// The first argument that is neither an option nor one of the sub-commands to skip.
fn first<'a>(rest: &'a [String], skip: &[&str]) -> Option<&'a str> {
    rest.iter().map(String::as_str).find(|a| !a.starts_with('-') && !skip.contains(a))
}

fn node(rest: &[String]) -> Found {
    // Options with a value of their own stand before the script: only these are common.
    let mut args = rest.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        match arg {
            "-r" | "--require" | "--import" | "--loader" | "--experimental-loader" | "-C" => {
                args.next();
            }
            "-e" | "--eval" | "-p" | "--print" => return Found::In(String::new()),
            "run" | "start" => {}
            option if option.starts_with('-') => {}
            path => return node_script(path),
        }
    }
    Found::In(String::new())
}

fn node_script(path: &str) -> Found {
    // Code of an installed package is named after the package.
    if let Some((_, package)) = path.rsplit_once("node_modules/").filter(|(_, p)| !p.starts_with(".bin/")) {
        let mut parts = package.split('/');
        let name = parts.next().unwrap_or(package);
        let scoped = name.starts_with('@').then(|| parts.next()).flatten();
        return Found::Name(scoped.unwrap_or(name).to_owned());
    }
    script(path)
}

fn java(rest: &[String]) -> Found {
    let mut args = rest.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        match arg {
            "-jar" => {
                let jar = args.next().map_or("java", |j| stem(last(j)));
                return own(without_jar_version(jar));
            }
            "-cp" | "-classpath" | "--class-path" | "-p" | "--module-path" | "--add-modules"
            | "--add-opens" | "--add-exports" => {
                args.next();
            }
            "-m" | "--module" => {
                let module = args.next().unwrap_or("java");
                return main_class(module.split('/').next_back().unwrap_or(module));
            }
            option if option.starts_with(['-', '@']) => {}
            class => return main_class(class),
        }
    }
    Found::Name("java".to_owned())
}

/// `shop-1.2.3-SNAPSHOT` → `shop`.
fn without_jar_version(jar: &str) -> &str {
    let version =
        jar.match_indices('-').find(|(i, _)| jar[i + 1..].starts_with(|c: char| c.is_ascii_digit()));
    version.map_or(jar, |(i, _)| &jar[..i])
}

/// The class's own name, or its package's where that says nothing (`com.acme.shop.Main`).
fn main_class(class: &str) -> Found {
    let parts: Vec<&str> = class.split('.').collect();
    let says = |p: &&&str| !VAGUE.contains(&p.to_lowercase().as_str());
    let name = parts.iter().rev().find(says).or(parts.last());
    Found::Name(name.map_or_else(|| "java".to_owned(), |n| (*n).to_owned()))
}
