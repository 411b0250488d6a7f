//! Metrics, read as a strict reader would.

use std::collections::BTreeMap;

/// Metrics as they were read: samples by their name and labels, as they are written.
pub(super) struct Scraped {
    pub(super) samples: BTreeMap<String, f64>,
    pub(super) types: BTreeMap<String, String>,
}

impl Scraped {
    /// Reads OpenMetrics text, and checks its form and the names' conventions on the way.
    pub(super) fn read(text: &str) -> Self {
        assert!(text.ends_with("\n# EOF\n"), "{text}");
        let (mut samples, mut types) = (BTreeMap::new(), BTreeMap::<String, String>::new());
        let mut helps = BTreeMap::new();
        let mut units = BTreeMap::new();
        let mut family = String::new();
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let (keyword, name) = (words.next().unwrap(), words.next().unwrap_or_default());
                let rest = words.next().unwrap_or_default().to_owned();
                match keyword {
                    "HELP" => assert!(helps.insert(name.to_owned(), rest).is_none(), "{line}"),
                    "TYPE" => {
                        assert!(types.insert(name.to_owned(), rest).is_none(), "{line}");
                        name.clone_into(&mut family);
                    }
                    "UNIT" => {
                        assert!(name.ends_with(&format!("_{rest}")), "{line}");
                        units.insert(name.to_owned(), rest);
                    }
                    "EOF" => {}
                    _ => panic!("{line}"),
                }
                continue;
            }
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap();
            let name = sample.split('{').next().unwrap();
            let suffixes: &[&str] = match types[&family].as_str() {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                "gauge" => &[""],
                "info" => &["_info"],
                other => panic!("{other}"),
            };
            let suffix = name.strip_prefix(family.as_str()).unwrap();
            assert!(suffixes.contains(&suffix), "{line}");
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            );
            assert!(
                name.starts_with("unskew_") || name.starts_with("process_"),
                "{line}"
            );
            assert!(
                samples.insert(sample.to_owned(), value).is_none(),
                "twice: {line}"
            );
        }
        for name in types.keys() {
            assert!(!helps[name].is_empty(), "{name}");
            // A counter of a name that ends so would be one of `_total_total`.
            assert!(!name.ends_with("_total"), "{name}");
            for other in ["milliseconds", "micros", "nanos", "minutes", "kilobytes"] {
                assert!(!name.contains(other), "{name} is not in base units");
            }
            if name.ends_with("duration_seconds") {
                assert_eq!(types[name], "histogram");
            }
        }
        Self { samples, types }
    }

    pub(super) fn value(&self, sample: &str) -> f64 {
        *self
            .samples
            .get(sample)
            .unwrap_or_else(|| panic!("no {sample} in {:#?}", self.samples))
    }
}
