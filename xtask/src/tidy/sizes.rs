//! Files stay small enough to be read in one sitting.

use super::Finding;
use super::tree::{File, Tree};

/// Over this, a file that is neither tests nor a flat table must be divided (lines).
const MOST: usize = 500;
/// Over this, a file is worth a hard look (lines).
pub const WARNED: usize = 350;

pub fn files_stay_readable(tree: &Tree) -> Vec<Finding> {
    let too_long = |file: &&File| lines(file) > MOST;
    let what = |file: &File| format!("has {} lines; the most is {MOST}: divide it by subject", lines(file));
    tree.rust().filter(too_long).map(|file| Finding::new(&file.path, 0, what(file))).collect()
}

/// Files that are long but allowed, with their lines.
pub fn to_look_hard_at(tree: &Tree) -> Vec<(&str, usize)> {
    let sized = tree.rust().map(|file| (file.path.as_str(), lines(file)));
    sized.filter(|(_, lines)| (WARNED + 1..=MOST).contains(lines)).collect()
}

/// Lines of a file that count: unit tests at its end do not, and files of tests or flat tables have none.
fn lines(file: &File) -> usize {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    let table = name.ends_with("table.rs") || name.ends_with("tables.rs");
    if table || file.test { 0 } else { file.text.lines().count().min(file.tests_from - 1) }
}

#[cfg(test)]
mod tests {
    use super::super::tree::tree_of;
    use super::*;

    #[test]
    fn long_files_are_found_and_tests_are_not_counted() {
        let long = "x\n".repeat(MOST + 1);
        let tested =
            format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", "x\n".repeat(WARNED), "y\n".repeat(MOST));
        let tree = tree_of(&[
            ("ktrdr-agent/src/a.rs", long.as_str()),
            ("ktrdr-agent/src/tested.rs", tested.as_str()),
            ("ktrdr-agent/src/status_table.rs", long.as_str()),
            ("tests/tests/e2e.rs", long.as_str()),
        ]);
        let found = files_stay_readable(&tree);
        assert_eq!(
            found.iter().map(|finding| finding.path.as_str()).collect::<Vec<_>>(),
            ["ktrdr-agent/src/a.rs"]
        );
    }

    #[test]
    fn files_near_the_bound_are_named() {
        let text = "x\n".repeat(WARNED + 1);
        assert_eq!(to_look_hard_at(&tree_of(&[("xtask/src/a.rs", &text)])), [("xtask/src/a.rs", WARNED + 1)]);
    }
}
