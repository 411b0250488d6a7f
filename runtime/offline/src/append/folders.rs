//! Into which folder a row goes: hive style, as the files of the source lie.

use std::path::Path;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use unskew_core::time;
use unskew_core::view::Source;

use super::{AppendProblem, Folder};
use crate::error::OfflineError;
use crate::hive;
use crate::schema::FileSchema;

/// What is escaped in the name of a folder, as Hive does it.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'\'')
    .add(b'*')
    .add(b'/')
    .add(b':')
    .add(b'=')
    .add(b'?')
    .add(b'\\')
    .add(b'{')
    .add(b'[')
    .add(b']')
    .add(b'^')
    .add(b'<')
    .add(b'>')
    .add(b'|')
    .add(b'~')
    .add(b'`');

/// The folders that a source's files lie in, below that of the source.
#[derive(Debug, Default)]
pub(super) struct Levels {
    /// From the outermost inwards.
    levels: Vec<Level>,
    /// What the source's own path says.
    constants: Vec<(String, String)>,
}

#[derive(Debug)]
struct Level {
    column: String,
    /// The form of the times that name it, if it goes by event timestamps.
    form: Option<Form>,
}

/// How the name of a folder gives a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Year,
    Month,
    Day,
    /// `20240101`
    PlainDay,
    /// What stands between day and hour.
    Hour(char),
}

impl Form {
    fn of(value: &str) -> Option<Self> {
        let form: String = value
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        Some(match form.as_str() {
            "0000" => Self::Year,
            "0000-00" => Self::Month,
            "0000-00-00" => Self::Day,
            "00000000" => Self::PlainDay,
            "0000-00-00T00" => Self::Hour('T'),
            "0000-00-00-00" => Self::Hour('-'),
            "0000-00-00 00" => Self::Hour(' '),
            _ => return None,
        })
    }

    /// The name for the instant `micros`.
    fn name(self, micros: i64) -> String {
        // `2024-01-01T05:00:00Z`
        let text = time::format(micros);
        let part = |end: usize| text.get(..end).unwrap_or(&text).to_owned();
        match self {
            Self::Year => part(4),
            Self::Month => part(7),
            Self::Day => part(10),
            Self::PlainDay => part(10).replace('-', ""),
            Self::Hour(between) => {
                let hour = text.get(11..13).unwrap_or_default();
                format!("{}{between}{hour}", part(10))
            }
        }
    }
}

impl Levels {
    /// The folders of `files`, which are those of `source`.
    ///
    /// # Errors
    /// Two files lie in folders that name different columns.
    pub(super) fn of(
        source: &Source,
        root: &Path,
        folder: Option<&Folder>,
        files: &[FileSchema],
    ) -> Result<Self, OfflineError> {
        let constants = match folder {
            Some(Folder::Local(path)) => {
                let below = path.strip_prefix(root).unwrap_or(path);
                let names = below.components();
                hive::columns(names.filter_map(|name| name.as_os_str().to_str()))
            }
            Some(Folder::Remote { path, .. }) => hive::columns(path.as_ref().split('/')),
            None => Vec::new(),
        };
        let is_constant = |name: &str| constants.iter().any(|(known, _)| known == name);
        let of_file = |file: &FileSchema| -> Vec<String> {
            let names = file.file.partition.iter().map(|(name, _)| name.clone());
            names.filter(|name| !is_constant(name)).collect()
        };
        let partition = source
            .partition
            .as_ref()
            .map(|partition| &partition.column)
            .filter(|column| !is_constant(column));
        let names = match files.first() {
            Some(first) => of_file(first),
            None => partition.cloned().into_iter().collect(),
        };
        if folder.is_some()
            && let Some(other) = files.iter().find(|file| of_file(file) != names)
        {
            let shown = |file: &FileSchema| file.file.path.display().to_string();
            let problem = AppendProblem::Folders {
                one: files.first().map(shown).unwrap_or_default(),
                other: shown(other),
            };
            return Err(OfflineError::append(&source.name, problem));
        }
        let form = |column: &String| {
            let values = files.iter().rev().flat_map(|file| &file.file.partition);
            let mut forms = values
                .filter(|(name, _)| name == column)
                .filter_map(|(_, value)| Form::of(value));
            forms.next().unwrap_or(Form::Day)
        };
        let levels = names.into_iter().map(|column| Level {
            form: (Some(&column) == partition).then(|| form(&column)),
            column,
        });
        Ok(Self {
            levels: levels.collect(),
            constants,
        })
    }

    /// Whether folders name the column.
    pub(super) fn has(&self, column: &str) -> bool {
        self.levels.iter().any(|level| level.column == column)
            || self.constants.iter().any(|(name, _)| name == column)
    }

    /// The columns that rows give.
    pub(super) fn given(&self) -> impl Iterator<Item = &str> {
        let levels = self.levels.iter().filter(|level| level.form.is_none());
        levels.map(|level| level.column.as_str())
    }

    /// Whether each row's event timestamp, or the source's path, gives the column.
    pub(super) fn is_made(&self, column: &str) -> bool {
        self.has(column) && !self.given().any(|given| given == column)
    }

    /// The folder of a row, below that of the source, and what it says of all columns; `given` are
    /// the values of [`Self::given`].
    pub(super) fn folder(
        &self,
        event: i64,
        given: impl IntoIterator<Item = Option<String>>,
    ) -> (String, Vec<(String, String)>) {
        let mut given = given.into_iter();
        let mut columns = self.constants.clone();
        let mut names = Vec::with_capacity(self.levels.len());
        for level in &self.levels {
            let value = match level.form {
                Some(form) => Some(form.name(event)),
                None => given.next().flatten(),
            };
            let value = value.unwrap_or_else(|| hive::NULL.to_owned());
            names.push(format!(
                "{}={}",
                utf8_percent_encode(&level.column, ESCAPED),
                utf8_percent_encode(&value, ESCAPED)
            ));
            columns.push((level.column.clone(), value));
        }
        (names.join("/"), columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(levels: &[(&str, Option<Form>)]) -> Levels {
        let levels = levels.iter().map(|&(column, form)| Level {
            column: column.to_owned(),
            form,
        });
        Levels {
            levels: levels.collect(),
            constants: vec![("kind".to_owned(), "x".to_owned())],
        }
    }

    #[test]
    fn a_folder_goes_by_the_time_in_the_form_that_others_have() {
        let at = time::parse("2024-02-29T05:06:07Z").unwrap();
        for (known, name) in [
            ("1999", "2024"),
            ("1999-01", "2024-02"),
            ("1999-01-01", "2024-02-29"),
            ("19990101", "20240229"),
            ("1999-01-01T00", "2024-02-29T05"),
            ("1999-01-01-00", "2024-02-29-05"),
            ("1999-01-01 00", "2024-02-29 05"),
        ] {
            assert_eq!(Form::of(known).unwrap().name(at), name);
        }
        assert_eq!(Form::of("last week"), None);
    }

    #[test]
    fn a_folder_says_what_it_was_made_of() {
        let at = time::parse("2024-02-29T05:06:07Z").unwrap();
        let levels = levels(&[("land", None), ("dt", Some(Form::Day))]);
        for value in ["CH", "", "a/b=c", "100%", "Zürich :*?", "\n"] {
            let (folder, columns) = levels.folder(at, [Some(value.to_owned())]);
            let read = hive::columns(folder.split('/'));
            assert_eq!(read, columns[1..], "{folder}");
            assert_eq!(read[0].1, value);
            assert_eq!(read[1].1, "2024-02-29");
        }
        let (folder, _) = levels.folder(at, [None]);
        assert_eq!(folder, format!("land={}/dt=2024-02-29", hive::NULL));
        assert!(levels.is_made("dt") && levels.is_made("kind") && !levels.is_made("land"));
    }
}
