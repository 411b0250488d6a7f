//! Results that are named values and tables: one form for a person and for a program.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::table::Table;

/// Named values and tables, in order.
///
/// As JSON it is an object, and each table in it a list of objects. As text a value is a line, a
/// null is left out, a digest in a table is cut to its first twelve digits.
#[derive(Debug, Default)]
pub(crate) struct Document {
    entries: Vec<(&'static str, Entry)>,
}

#[derive(Debug)]
enum Entry {
    Value(Value),
    Rows(Rows),
}

/// A table of values.
#[derive(Debug)]
pub(crate) struct Rows {
    columns: Vec<&'static str>,
    rows: Vec<Vec<Value>>,
}

impl Rows {
    /// An empty table with these columns.
    pub(crate) fn new(columns: impl Into<Vec<&'static str>>) -> Self {
        Self {
            columns: columns.into(),
            rows: Vec::new(),
        }
    }

    /// Adds a row: a cell for each column.
    pub(crate) fn row(&mut self, cells: impl Into<Vec<Value>>) {
        self.rows.push(cells.into());
    }

    /// The table as text, with `indent` before each line; a column without any value is left out.
    pub(crate) fn text(&self, indent: &str) -> String {
        if self.rows.is_empty() {
            return format!("{indent}none\n");
        }
        let column = |index: usize| self.rows.iter().filter_map(move |row| row.get(index));
        let used: Vec<usize> = (0..self.columns.len())
            .filter(|&index| column(index).any(|cell| !is_nothing(cell)))
            .collect();
        let names: Vec<String> = used
            .iter()
            .map(|&index| label(self.columns[index]))
            .collect();
        let numbers: Vec<bool> = used
            .iter()
            .map(|&index| column(index).all(|cell| cell.is_number() || cell.is_null()))
            .collect();
        let mut table = Table::new(&names, &numbers);
        for row in &self.rows {
            table.row(
                used.iter()
                    .map(|&index| row.get(index).map_or_else(String::new, cell)),
            );
        }
        table.text(indent)
    }
}

impl Document {
    /// Adds a value.
    pub(crate) fn value(&mut self, name: &'static str, value: impl Into<Value>) {
        self.entries.push((name, Entry::Value(value.into())));
    }

    /// Adds a table.
    pub(crate) fn rows(&mut self, name: &'static str, rows: Rows) {
        self.entries.push((name, Entry::Rows(rows)));
    }

    /// The document for a person: values in blocks, a blank line before each table and after it.
    pub(crate) fn text(&self) -> String {
        let mut blocks = Vec::new();
        let mut values = None;
        for (name, entry) in &self.entries {
            match entry {
                Entry::Value(value) if is_nothing(value) => {}
                Entry::Value(value) => values
                    .get_or_insert_with(Table::plain)
                    .row([label(name), shown(value)]),
                Entry::Rows(rows) => {
                    blocks.extend(values.take().map(|values| values.text("")));
                    blocks.push(format!("{}\n{}", label(name), rows.text("  ")));
                }
            }
        }
        blocks.extend(values.map(|values| values.text("")));
        blocks.join("\n")
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.entries.len()))?;
        for (name, entry) in &self.entries {
            match entry {
                Entry::Value(value) => map.serialize_entry(name, value)?,
                Entry::Rows(rows) => map.serialize_entry(name, rows)?,
            }
        }
        map.end()
    }
}

impl Serialize for Rows {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.rows.iter().map(|row| {
            let cells = self.columns.iter().copied().zip(row);
            Ordered(cells.collect())
        }))
    }
}

/// A JSON object whose keys keep their order.
pub(crate) struct Ordered<K, V>(pub(crate) Vec<(K, V)>);

impl<K: Serialize, V: Serialize> Serialize for Ordered<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

fn label(name: &str) -> String {
    name.replace('_', " ")
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A value in a line of text.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Object(map) => match (map.get("name"), map.get("type")) {
            // A join key, as a person writes it.
            (Some(name), Some(kind)) if map.len() == 2 => {
                format!("{} {}", shown(name), shown(kind))
            }
            _ => map
                .iter()
                .filter(|(_, value)| !is_nothing(value))
                .map(|(key, value)| format!("{} {}", label(key), shown(value)))
                .collect::<Vec<_>>()
                .join(" "),
        },
    }
}

/// A value in a table, where a digest would be too wide.
fn cell(value: &Value) -> String {
    let text = shown(value);
    match text.strip_prefix("sha256:") {
        Some(hex) if hex.len() == 64 => hex[..12].to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Document {
        let mut document = Document::default();
        document.value("name", "driver_stats");
        document.value("owner", Value::Null);
        document.value("join_keys", json!([{"name": "id", "type": "int64"}]));
        document.value("is_online", true);
        let mut rows = Rows::new(["name", "late_by", "rows", "digest"]);
        rows.row([
            json!("a"),
            Value::Null,
            json!(7),
            json!(format!("sha256:{:064}", 1)),
        ]);
        rows.row([json!("b"), Value::Null, json!(1_000), Value::Null]);
        document.rows("all_views", rows);
        document.value("gaps", json!([{"after": "x", "before": "y"}]));
        document.rows("aliases", Rows::new(["name"]));
        document
    }

    #[test]
    fn as_text_nothing_is_left_out_and_tables_are_indented() {
        let expected = "\
name       driver_stats
join keys  id int64
is online  yes

all views
  NAME  ROWS  DIGEST
  a        7  000000000000
  b     1000

gaps  after x before y

aliases
  none
";
        assert_eq!(document().text(), expected);
    }

    #[test]
    fn as_json_everything_is_there_in_order() {
        let json = serde_json::to_string(&document()).unwrap();
        let digest = format!("sha256:{:064}", 1);
        let expected = format!(
            "{{\"name\":\"driver_stats\",\"owner\":null,\
             \"join_keys\":[{{\"name\":\"id\",\"type\":\"int64\"}}],\"is_online\":true,\"all_views\":[\
             {{\"name\":\"a\",\"late_by\":null,\"rows\":7,\"digest\":\"{digest}\"}},\
             {{\"name\":\"b\",\"late_by\":null,\"rows\":1000,\"digest\":null}}],\
             \"gaps\":[{{\"after\":\"x\",\"before\":\"y\"}}],\"aliases\":[]}}"
        );
        assert_eq!(json, expected);
    }
}
