//! The sources under check: every file that git tracks or would add.

use std::process::Command;

use anyhow::{Context, Result};

use super::lexer;
use crate::{cmd, host};

pub struct Tree {
    pub files: Vec<File>,
}

pub struct File {
    /// From the top of the checkout, with `/`.
    pub path: String,
    pub text: String,
    /// Of Rust files: the text with comments, strings and characters blanked, lines kept.
    pub code: String,
    /// Of Rust files: string literals with the line each begins on.
    pub strings: Vec<(usize, String)>,
    /// Whether all of the file is tests: by where it lies, or by the `#[cfg(test)] mod` that names it.
    pub test: bool,
    /// First line of the unit tests at the file's end; past the end if there are none.
    pub tests_from: usize,
}

impl Tree {
    pub fn of_checkout() -> Result<Self> {
        let mut git = Command::new("git");
        // Root looks at a user's checkout when called through sudo.
        git.args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let listing =
            cmd::output(git.current_dir(host::root())).context("tidy lists the sources with git")?;
        let mut files = Vec::new();
        for path in listing.split_terminator('\0') {
            // Not every file is text, and a tracked file may be deleted in the working tree.
            if let Ok(text) = std::fs::read_to_string(host::root().join(path)) {
                files.push(File::new(path, text));
            }
        }
        Ok(Self::of(files))
    }

    fn of(mut files: Vec<File>) -> Self {
        let test_modules: Vec<String> = files.iter().flat_map(File::test_modules).collect();
        for file in &mut files {
            let module = file.path.trim_end_matches(".rs").trim_end_matches("/mod");
            let inside = |test: &String| module == test || module.starts_with(&format!("{test}/"));
            file.test |= test_modules.iter().any(inside);
        }
        Self { files }
    }

    /// Files under one of `directories`, in Rust.
    pub fn rust_under(&self, directories: &[&str]) -> impl Iterator<Item = &File> {
        self.rust().filter(move |file| directories.iter().any(|directory| file.path.starts_with(directory)))
    }

    pub fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust())
    }
}

impl File {
    pub fn new(path: &str, text: String) -> Self {
        let (code, strings) = if path.ends_with(".rs") { lexer::split(&text) } else { Default::default() };
        let tests_from = tests_from(&code);
        let test = path.starts_with("tests/") || path.contains("/tests/");
        Self { path: path.to_owned(), text, code, strings, test, tests_from }
    }

    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The modules in files of their own that this file declares for tests only, as paths without `.rs`.
    fn test_modules(&self) -> Vec<String> {
        let (parent, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let directory = match name {
            "mod.rs" | "lib.rs" | "main.rs" => parent.to_owned(),
            name => format!("{parent}/{}", name.trim_end_matches(".rs")),
        };
        let lines: Vec<&str> = self.code.lines().map(str::trim).collect();
        let declared = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]");
        let names = declared.filter_map(|pair| pair[1].strip_prefix("mod ")?.strip_suffix(';'));
        names.map(|name| format!("{directory}/{name}")).collect()
    }

    /// Lines of code outside unit tests, with their 1-based numbers; comments and literals are blank.
    pub fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code_lines().take_while(|(line, _)| *line < self.tests_from)
    }

    pub fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

/// The line of the `#[cfg(test)]` that stands before a module with a body.
fn tests_from(code: &str) -> usize {
    let lines: Vec<&str> = code.lines().map(str::trim).collect();
    let begins = |index: usize| {
        let next = lines.get(index + 1).copied().unwrap_or_default();
        lines[index].starts_with("#[cfg(test)]") && next.starts_with("mod ") && next.ends_with('{')
    };
    (0..lines.len()).find(|&index| begins(index)).map_or(usize::MAX, |index| index + 1)
}

/// Whether `word` stands in `line` with no letter, digit or underscore beside it.
pub fn has_word(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(part_of_name) && !after.is_some_and(part_of_name)
    })
}

#[cfg(test)]
pub fn tree_of(files: &[(&str, &str)]) -> Tree {
    Tree::of(files.iter().map(|(path, text)| File::new(path, (*text).to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_whole() {
        assert!(has_word("use aya::maps;", "aya"));
        assert!(!has_word("use aya_log;", "aya"));
        assert!(!has_word("let papaya = 1;", "aya"));
    }

    #[test]
    fn unit_tests_are_no_product() {
        let file = File::new("a.rs", "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n".to_owned());
        assert_eq!(file.tests_from, 2);
        assert_eq!(file.product_lines().map(|(line, _)| line).collect::<Vec<_>>(), [1]);
        // A test module in a file of its own leaves the rest of this one product code.
        assert_eq!(
            File::new("a.rs", "#[cfg(test)]\nmod tests;\nfn a() {}".to_owned()).tests_from,
            usize::MAX
        );
    }

    #[test]
    fn files_that_only_tests_include_are_tests() {
        let tree = tree_of(&[
            ("a/src/protocol/mod.rs", "#[cfg(test)]\nmod laws;\nmod product;\n"),
            ("a/src/protocol/laws.rs", ""),
            ("a/src/protocol/laws/chunks.rs", ""),
            ("a/src/protocol/product.rs", "#[cfg(test)]\nmod deep;\n"),
            ("a/src/protocol/product/deep.rs", ""),
            ("a/src/laws.rs", ""),
        ]);
        let tests: Vec<bool> = tree.files.iter().map(|file| file.test).collect();
        assert_eq!(tests, [false, true, true, false, true, false]);
    }
}
