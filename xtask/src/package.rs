//! `cargo xtask package`: what is handed out. One binary that runs on old distributions, and a Debian package of it.
//!
//! The binary is linked against glibc's oldest symbols with zig, and not statically: NVIDIA's library is opened at run
//! time with dlopen, which a static binary cannot.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::build::GLIBC;
use crate::{build, cmd, host, setup};

/// Makes the binary and the package; of the development build if that is asked for, which tests packaging in less time
/// and runs on this host's glibc only. Gives the package.
pub fn run(development: bool) -> Result<PathBuf> {
    setup::package(development)?;
    let built =
        if development { build::development()? } else { build::with_zig(std::env::consts::ARCH, true)? };
    let directory = host::root().join("target/package");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let binary = directory.join("ktrdr-agent");
    cmd::run(Command::new("strip").arg("--strip-unneeded").arg("-o").arg(&binary).arg(&built))?;
    if !development {
        check_glibc(&binary)?;
        // For whoever reads a backtrace or a profile.
        let symbols = directory.join("ktrdr-agent.debug");
        cmd::run(Command::new("objcopy").arg("--only-keep-debug").arg(&built).arg(&symbols))?;
    }
    let mut deb = Command::new(setup::packaging::cargo_deb());
    deb.current_dir(host::root()).args(["--no-build", "--no-strip", "--quiet", "--package", "ktrdr-agent"]);
    if development {
        deb.args(["--variant", "development"]);
    }
    match maintainer(|name| std::env::var(name).ok()) {
        Some(maintainer) => {
            deb.args(["--maintainer", &maintainer]);
        }
        // Policy 3.3: every package has one, who can be reached.
        None if !development => {
            eprintln!(
                "xtask: the package will name nobody who can be reached: set DEBEMAIL (and DEBFULLNAME) to hand it out"
            );
        }
        None => {}
    }
    let said = cmd::output(deb.arg("--output").arg(&directory))?;
    let package = said.lines().rfind(|line| line.ends_with(".deb")).map(PathBuf::from);
    let package = package.context("cargo-deb does not say where the package is")?;
    println!("{}\n{}", binary.display(), package.display());
    Ok(package)
}

/// Who answers for the package, as Debian's own tools are told. Without an address it names the authors, and one that says
/// that there is none.
fn maintainer(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let email = variable("DEBEMAIL").filter(|email| !email.is_empty())?;
    let name = variable("DEBFULLNAME").filter(|name| !name.is_empty());
    Some(format!("{} <{email}>", name.as_deref().unwrap_or("The ktrdr-agent authors")))
}

/// No symbol of a glibc newer than promised.
fn check_glibc(binary: &Path) -> Result<()> {
    let symbols = cmd::output(Command::new("objdump").arg("-T").arg(binary))?;
    match newest_glibc(&symbols) {
        None => bail!("{} is not linked to glibc: dlopen would not work", binary.display()),
        Some(newest) if newest > GLIBC => {
            bail!(
                "{} needs glibc {}.{}, newer than {}.{}",
                binary.display(),
                newest.0,
                newest.1,
                GLIBC.0,
                GLIBC.1
            )
        }
        Some((major, minor)) => {
            eprintln!("xtask: {} needs glibc {major}.{minor} or newer", binary.display());
            Ok(())
        }
    }
}

/// The newest version of glibc that a table of dynamic symbols names.
fn newest_glibc(symbols: &str) -> Option<(u32, u32)> {
    let versions = symbols.split("GLIBC_").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(rest.len());
        let mut numbers = rest[..end].split('.');
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    });
    versions.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maintainer_needs_an_address() {
        let with = |pairs: &[(&str, &str)]| {
            maintainer(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
        };
        assert_eq!(with(&[("DEBFULLNAME", "A. Packager")]), None);
        assert_eq!(with(&[("DEBEMAIL", "a@b.org")]).as_deref(), Some("The ktrdr-agent authors <a@b.org>"));
        let both = [("DEBFULLNAME", "A. Packager"), ("DEBEMAIL", "a@b.org")];
        assert_eq!(with(&both).as_deref(), Some("A. Packager <a@b.org>"));
    }

    #[test]
    fn versions_compare_as_numbers() {
        let table = "0000 DF *UND* 0000 (GLIBC_2.2.5) memcpy\n0000 DF *UND* 0000 (GLIBC_2.17) clock_gettime\n\
                     0000 DF *UND* 0000 (GLIBC_2.9) pipe2\n";
        assert_eq!(newest_glibc(table), Some((2, 17)));
        assert!(Some((2, 34)) > newest_glibc(table) && newest_glibc(table) == Some(GLIBC));
        assert_eq!(newest_glibc("no symbols"), None);
    }
}
