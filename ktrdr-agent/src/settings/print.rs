//! The default file: every key with its documentation and default.

use std::fmt::Write;

use toml::{Table, Value};

use super::{
    said::{Rule, Said},
    schema::{Schema, Shape},
};

/// The text of `ktrdr-agent config print`; read back, it gives the defaults.
pub fn default_file() -> String {
    file(&Said::default())
}

/// These settings as a commented file.
pub fn file(said: &Said) -> String {
    let values = Table::try_from(said).unwrap_or_default();
    let mut out = String::new();
    doc(&mut out, "", Said::SCHEMA.doc);
    section(&mut out, "", &Said::SCHEMA, &values, "");
    out
}

/// Prints the keys of a table, then the tables below it. `lead` stands before every line that is not a comment.
fn section(out: &mut String, path: &str, schema: &Schema, values: &Table, lead: &str) {
    for field in schema.fields.iter().filter(|f| matches!(f.shape, Shape::Value)) {
        doc(out, lead, field.doc);
        match values.get(field.key) {
            Some(value) => line(out, format_args!("{lead}{} = {value}", field.key)),
            // Not set by default, and with no value that would mean the same.
            None => line(out, format_args!("{lead}# {} =", field.key)),
        }
    }
    for field in schema.fields {
        let below = if path.is_empty() { field.key.to_owned() } else { format!("{path}.{}", field.key) };
        let value = values.get(field.key);
        match (field.shape, value) {
            (Shape::Value, _) => {}
            (Shape::Section(s), value) => {
                let empty = Table::new();
                let table = value.and_then(Value::as_table).unwrap_or(&empty);
                out.push('\n');
                doc(out, lead, s.doc);
                line(out, format_args!("{lead}[{below}]"));
                section(out, &below, s, table, lead);
            }
            (Shape::List(s), value) => {
                let items = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                // Without an entry, one is shown as a comment: of nothing but defaults it would not be valid.
                let blank = [Value::try_from(Rule::default()).unwrap_or(Value::Boolean(false))];
                let (items, lead) = if items.is_empty() { (&blank[..], "# ") } else { (items, lead) };
                for item in items.iter().filter_map(Value::as_table) {
                    out.push('\n');
                    doc(out, "", s.doc);
                    line(out, format_args!("{lead}[[{below}]]"));
                    section(out, &below, s, item, lead);
                }
            }
        }
    }
}

fn doc(out: &mut String, lead: &str, lines: &[&str]) {
    for text in lines {
        line(out, format_args!("{lead}#{}{}", if text.is_empty() { "" } else { " " }, text.trim()));
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}
