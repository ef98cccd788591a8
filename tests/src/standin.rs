//! Builds the stand-in for NVIDIA's library, each test its own, and writes its script.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A library that says what its script says.
pub struct StandIn {
    dir: TempDir,
}

impl StandIn {
    /// With everything.
    pub fn new(script: &str) -> Self {
        Self::with(&[], script)
    }

    /// With something left out: `-DOLD`, `-DBARE`, `-DNO_INIT`.
    pub fn with(options: &[&str], script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // From either crate that builds it.
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/gpu/standin.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(dir.path().join("standin.so"));
        let built =
            cc.arg(source).args(options).status().expect("a C compiler, as `cargo xtask setup` brings it");
        assert!(built.success());
        let made = Self { dir };
        made.say(script);
        made
    }

    /// The library says something else from now on; never half of it.
    pub fn say(&self, script: &str) {
        let new = self.dir.path().join("new");
        std::fs::write(&new, script).unwrap();
        std::fs::rename(new, self.dir.path().join("standin.so.script")).unwrap();
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("standin.so")
    }
}
