//! YAML as JSON values, with the line of each.

use std::collections::BTreeSet;
use std::sync::Arc;

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use serde_json::{Map, Value};

use super::problem::{Lines, Place, Problems, below};

/// A file's value.
pub(super) struct Document {
    pub(super) value: Value,
    pub(super) root: Place,
    /// The places of values that have a problem already, and are not what was meant.
    pub(super) spoilt: BTreeSet<String>,
}

/// Reads one YAML document; an empty file is an empty mapping.
///
/// # Errors
/// Adds to `problems` what is no YAML, and gives nothing then; also what has no JSON form, which is
/// spoilt.
pub(super) fn read(file: &str, text: &str, problems: &mut Problems) -> Option<Document> {
    let mut reader = Reader {
        text,
        lines: Lines {
            name: file.to_owned(),
            ..Lines::default()
        },
        problems: Vec::new(),
        spoilt: BTreeSet::new(),
    };
    let value = match MarkedYaml::load_from_str(text) {
        Ok(documents) => match documents.as_slice() {
            [] => Some(Value::Object(Map::new())),
            [document] => Some(match &document.data {
                YamlData::Value(Scalar::Null) => Value::Object(Map::new()),
                _ => reader.value(document, String::new()),
            }),
            [_, second, ..] => {
                let message = "a second YAML document begins; write one document per file";
                reader
                    .problems
                    .push((second.span.start.line(), message.to_owned()));
                None
            }
        },
        Err(error) => {
            let line = error.marker().line();
            let shown = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
            let message = match shown.trim() {
                "" => format!("no valid YAML: {}", error.info()),
                shown => format!("no valid YAML: {}, at `{shown}`", error.info()),
            };
            reader.problems.push((line, message));
            None
        }
    };
    let root = Place {
        file: Arc::new(reader.lines),
        pointer: String::new(),
    };
    for (line, message) in reader.problems {
        problems.0.push(super::Problem {
            file: file.to_owned(),
            line,
            message,
        });
    }
    let spoilt = reader.spoilt;
    value.map(|value| Document {
        value,
        root,
        spoilt,
    })
}

struct Reader<'a> {
    text: &'a str,
    lines: Lines,
    problems: Vec<(usize, String)>,
    spoilt: BTreeSet<String>,
}

impl Reader<'_> {
    fn value(&mut self, node: &MarkedYaml<'_>, pointer: String) -> Value {
        let line = node.span.start.line();
        // A mapping's value stands where its key stands, which the caller has set.
        self.lines.lines.entry(pointer.clone()).or_insert(line);
        match &node.data {
            YamlData::Value(scalar) => self.scalar(node, scalar, &pointer),
            YamlData::Sequence(items) => Value::Array(
                items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| self.value(item, format!("{pointer}/{index}")))
                    .collect(),
            ),
            YamlData::Mapping(entries) => {
                let mut map = Map::new();
                for (key, value) in entries {
                    let YamlData::Value(scalar) = &key.data else {
                        self.problem(key, &pointer, "a key must be plain text");
                        continue;
                    };
                    let name = match self.scalar(key, scalar, &pointer) {
                        Value::String(name) => name,
                        other => other.to_string(),
                    };
                    let line = key.span.start.line();
                    let pointer = below(&pointer, &name);
                    self.lines.lines.insert(pointer.clone(), line);
                    let value = self.value(value, pointer);
                    map.insert(name, value);
                }
                Value::Object(map)
            }
            YamlData::Tagged(..) => {
                self.problem(node, &pointer, "tags have no meaning here; leave it out");
                Value::Null
            }
            YamlData::Representation(..) | YamlData::Alias(_) | YamlData::BadValue => {
                self.problem(node, &pointer, "this value cannot be read");
                Value::Null
            }
        }
    }

    fn problem(&mut self, node: &MarkedYaml<'_>, pointer: &str, message: &str) {
        self.spoilt.insert(pointer.to_owned());
        self.problems
            .push((node.span.start.line(), message.to_owned()));
    }

    fn scalar(&mut self, node: &MarkedYaml<'_>, scalar: &Scalar<'_>, pointer: &str) -> Value {
        match scalar {
            Scalar::Null => Value::Null,
            Scalar::Boolean(value) => Value::Bool(*value),
            Scalar::Integer(value) => Value::from(*value),
            Scalar::FloatingPoint(value) => self.float(node, value.into_inner(), pointer),
            Scalar::String(value) => Value::String(value.clone().into_owned()),
        }
    }

    /// A float; a number that no float and no integer holds is a problem, and not another number.
    fn float(&mut self, node: &MarkedYaml<'_>, value: f64, pointer: &str) -> Value {
        let (start, end) = (node.span.start.index(), node.span.end.index());
        let written: String = self.text.chars().take(end).skip(start).collect();
        let written = written.trim();
        let digits = written.trim_start_matches(['-', '+']);
        if digits.bytes().all(|digit| digit.is_ascii_digit()) && !digits.is_empty() {
            let message = format!(
                "`{written}` is beyond the integers, which end at {}; a float is written {written}.0",
                i64::MAX
            );
            self.problem(node, pointer, &message);
        } else if value.is_infinite() && digits.contains(|c: char| c.is_ascii_digit()) {
            let message = format!("`{written}` is beyond the floats; infinity is written .inf");
            self.problem(node, pointer, &message);
        }
        // JSON has no non-finite numbers; these are the strings that stand for them.
        match serde_json::Number::from_f64(value) {
            Some(number) => Value::Number(number),
            None if value.is_nan() => Value::from("NaN"),
            None if value > 0.0 => Value::from("Infinity"),
            None => Value::from("-Infinity"),
        }
    }
}
