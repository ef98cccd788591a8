//! A file that no module names is compiled by nobody, and its tests never run.

use super::Finding;
use super::tree::Tree;

pub fn every_file_is_compiled(tree: &Tree) -> Vec<Finding> {
    let orphan = |path: &str| {
        let (directory, name) = path.rsplit_once('/')?;
        // The module is the directory's, if the file is called `mod.rs`.
        let (directory, name) = match name {
            "mod.rs" => directory.rsplit_once('/')?,
            _ => (directory, name.strip_suffix(".rs")?),
        };
        let of_a_crate = directory.ends_with("/src") || directory.contains("/src/");
        if !of_a_crate || directory.ends_with("/src/bin") || matches!(name, "lib" | "main") {
            return None;
        }
        let parents = ["/mod.rs", "/lib.rs", "/main.rs", ".rs"].map(|end| format!("{directory}{end}"));
        let named = |text: &str| text.lines().any(|line| line.trim_end().ends_with(&format!("mod {name};")));
        let mut parents = tree.rust().filter(|file| parents.contains(&file.path));
        (!parents.any(|file| named(&file.text))).then(|| name.to_owned())
    };
    tree.rust()
        .filter_map(|file| Some((file, orphan(&file.path)?)))
        .map(|(file, name)| {
            Finding::new(&file.path, 0, format!("no `mod {name};` names it: nobody compiles it"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tree::tree_of;
    use super::*;

    #[test]
    fn a_file_without_a_module_is_found() {
        let tree = tree_of(&[
            ("xtask/src/main.rs", "mod a;\npub(super) mod b;\n"),
            ("xtask/src/a.rs", "mod inner;\n"),
            ("xtask/src/a/inner.rs", ""),
            ("xtask/src/a/lost.rs", ""),
            ("xtask/src/b/mod.rs", "// mod c;ompiled\n"),
            ("xtask/src/b/c.rs", ""),
            ("xtask/src/d/mod.rs", ""),
            ("tests/tests/alone.rs", ""),
        ]);
        let found = every_file_is_compiled(&tree);
        assert_eq!(
            found.iter().map(|finding| finding.path.as_str()).collect::<Vec<_>>(),
            ["xtask/src/a/lost.rs", "xtask/src/b/c.rs", "xtask/src/d/mod.rs"]
        );
    }
}
