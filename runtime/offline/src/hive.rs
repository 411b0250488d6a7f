//! What the folders of a file say, hive style: `country=CH`, `dt=2024-01-01`.

use percent_encoding::percent_decode_str;
use unskew_core::time;
use unskew_core::view::Partition;

use crate::error::SourceProblem;
use crate::files::SourceFile;

/// What hive writes where the value of a folder's column is null.
pub(crate) const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

const HOUR: i64 = 3_600 * time::SECOND;

/// The columns that folders name, in their order; `folders` are names of folders, the outermost
/// first. Of a name that occurs twice the innermost counts.
pub(crate) fn columns<'a>(folders: impl IntoIterator<Item = &'a str>) -> Vec<(String, String)> {
    let mut columns: Vec<(String, String)> = Vec::new();
    for folder in folders {
        let Some((name, value)) = folder.split_once('=') else {
            continue;
        };
        let (name, value) = (decoded(name), decoded(value));
        if name.is_empty() {
            continue;
        }
        columns.retain(|(known, _)| *known != name);
        columns.push((name, value));
    }
    columns
}

/// Engines write characters that a file system might not take as `%3A`.
fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The instants that the folder of `file` allows its event timestamps under `partition`, both
/// inclusive; `None` if it names none.
///
/// # Errors
/// No folder names the partition's column, or what it names is no time.
pub(crate) fn events(
    partition: &Partition,
    file: &SourceFile,
) -> Result<Option<(i64, i64)>, SourceProblem> {
    let column = &partition.column;
    let mut columns = file.partition.iter();
    let Some((_, value)) = columns.find(|(name, _)| name == column) else {
        return Err(SourceProblem::NotInPartition {
            column: column.clone(),
            file: file.path.clone(),
        });
    };
    if value == NULL {
        return Ok(None);
    }
    let Some((start, end)) = span(value) else {
        return Err(SourceProblem::InvalidPartition {
            column: column.clone(),
            value: value.clone(),
            file: file.path.clone(),
        });
    };
    Ok(Some((
        start.saturating_sub(partition.slack),
        end.saturating_add(partition.slack),
    )))
}

/// The first and the last instant of the year, month, day or hour that `value` names, in UTC.
fn span(value: &str) -> Option<(i64, i64)> {
    let form: String = value
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    let day = |date: &str| time::parse(date).ok();
    let (start, next) = match form.as_str() {
        "0000" => {
            let year: u16 = value.parse().ok()?;
            let start = day(&format!("{value}-01-01"))?;
            (start, day(&format!("{:04}-01-01", year + 1)))
        }
        "0000-00" => {
            let start = day(&format!("{value}-01"))?;
            let (year, month): (u16, u16) = (value[..4].parse().ok()?, value[5..].parse().ok()?);
            let (year, month) = match month {
                12 => (year + 1, 1),
                month => (year, month + 1),
            };
            (start, day(&format!("{year:04}-{month:02}-01")))
        }
        "0000-00-00" => {
            let start = day(value)?;
            (start, Some(start + time::DAY))
        }
        "00000000" => {
            let start = day(&format!("{}-{}-{}", &value[..4], &value[4..6], &value[6..]))?;
            (start, Some(start + time::DAY))
        }
        "0000-00-00T00" | "0000-00-00-00" | "0000-00-00 00" => {
            let start = day(&format!("{}T{}:00:00", &value[..10], &value[11..]))?;
            (start, Some(start + HOUR))
        }
        _ => return None,
    };
    // After the year 9999 there is none.
    Some((start, next.map_or(time::MAX, |next| next - 1)))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_folder_names_a_column_and_its_value() {
        let columns = columns([
            "data",
            "country=CH",
            "dt=2024-01-01 05%3A00",
            "a%20b=x=y",
            "=z",
            "e=",
            "country=DE",
            "100%=1",
        ]);
        let expected = [
            ("dt", "2024-01-01 05:00"),
            ("a b", "x=y"),
            ("e", ""),
            ("country", "DE"),
            ("100%", "1"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(columns, expected);
    }

    #[test]
    fn a_value_stands_for_all_of_its_year_month_day_or_hour() {
        for (value, first, last) in [
            (
                "2024",
                "2024-01-01T00:00:00Z",
                "2024-12-31T23:59:59.999999Z",
            ),
            (
                "2024-02",
                "2024-02-01T00:00:00Z",
                "2024-02-29T23:59:59.999999Z",
            ),
            (
                "2023-12",
                "2023-12-01T00:00:00Z",
                "2023-12-31T23:59:59.999999Z",
            ),
            (
                "2024-01-01",
                "2024-01-01T00:00:00Z",
                "2024-01-01T23:59:59.999999Z",
            ),
            (
                "20240229",
                "2024-02-29T00:00:00Z",
                "2024-02-29T23:59:59.999999Z",
            ),
            (
                "1969-12-31T23",
                "1969-12-31T23:00:00Z",
                "1969-12-31T23:59:59.999999Z",
            ),
            (
                "2024-01-01-05",
                "2024-01-01T05:00:00Z",
                "2024-01-01T05:59:59.999999Z",
            ),
            (
                "2024-01-01 05",
                "2024-01-01T05:00:00Z",
                "2024-01-01T05:59:59.999999Z",
            ),
            (
                "9999",
                "9999-01-01T00:00:00Z",
                "9999-12-31T23:59:59.999999Z",
            ),
            (
                "9999-12",
                "9999-12-01T00:00:00Z",
                "9999-12-31T23:59:59.999999Z",
            ),
            (
                "9999-12-31",
                "9999-12-31T00:00:00Z",
                "9999-12-31T23:59:59.999999Z",
            ),
        ] {
            let (start, end) = span(value).unwrap_or_else(|| panic!("{value}"));
            let shown = (time::format(start), time::format(end));
            assert_eq!(shown, (first.to_owned(), last.to_owned()), "{value}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for value in [
            "",
            "0000",
            "24",
            "2024-1-1",
            "2024-13",
            "2024-00",
            "2023-02-29",
            "20241301",
            "202401",
            "2024-01-01T24",
            "2024-01-01T05:00",
            "2024-01-01Z",
            "2024_01_01",
            " 2024",
            "+2024",
            "２０２４",
            "1704067200",
            "today",
        ] {
            assert_eq!(span(value), None, "{value}");
        }
    }

    fn file(folders: &[&str]) -> SourceFile {
        let path = folders.iter().collect::<PathBuf>().join("a.parquet");
        SourceFile {
            path,
            store: None,
            meta: object_store::ObjectMeta {
                location: object_store::path::Path::ROOT,
                last_modified: std::time::UNIX_EPOCH.into(),
                size: 0,
                e_tag: None,
                version: None,
            },
            events: None,
            partition: columns(folders.iter().copied()),
        }
    }

    fn of(folders: &[&str], slack: i64) -> Result<Option<(i64, i64)>, String> {
        let column = "dt".to_owned();
        let partition = Partition { column, slack };
        events(&partition, &file(folders)).map_err(|problem| problem.to_string())
    }

    #[test]
    fn slack_widens_a_partition_on_both_sides() {
        let start = time::parse("2024-01-01").unwrap();
        let end = start + time::DAY - 1;
        assert_eq!(of(&["dt=2024-01-01"], 0), Ok(Some((start, end))));
        assert_eq!(
            of(&["x=1", "dt=20240101"], 7),
            Ok(Some((start - 7, end + 7)))
        );
        assert_eq!(
            of(&["dt=1969"], i64::MAX),
            Ok(Some((i64::MIN, i64::MAX - 1)))
        );
        assert_eq!(of(&[&format!("dt={NULL}")], 0), Ok(None));
    }

    #[test]
    fn a_file_outside_of_every_partition_is_an_error() {
        let error = of(&["data", "day=2024-01-01"], 0).unwrap_err();
        assert!(error.contains("`data/day=2024-01-01/a.parquet`"), "{error}");
        assert!(error.contains("`dt=…`"), "{error}");
        let error = of(&["data", "dt=last%20week"], 0).unwrap_err();
        assert!(error.contains("`data/dt=last%20week/a.parquet`"), "{error}");
        assert!(error.contains("`last week`"), "{error}");
    }
}
