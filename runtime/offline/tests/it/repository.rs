//! A feature repository in a temporary folder, and the definitions that tests need.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType as ArrowType, Field as ArrowField, Schema};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use unskew_core::plan::{Binding, FeaturePlan, Lookup, Output, SEMANTICS};
use unskew_core::time::Mode;
use unskew_core::types::{DataType, Field, ScalarType};
use unskew_core::view::{JoinKey, Source, View};
use unskew_engine::Evaluator;
use unskew_offline::{
    Components, EntityRows, EntitySource, EvaluatedRows, Offline, OfflineError, Settings, Target,
    TrainingSetRequest,
};

/// `int64`, the type of most features here.
pub(crate) const INT64: DataType = DataType::Scalar(ScalarType::Int64);

/// A feature repository.
pub(crate) struct Repository {
    folder: tempfile::TempDir,
    pub(crate) offline: Offline,
}

impl Repository {
    pub(crate) fn new() -> Self {
        Self::with_settings(Settings {
            partitions: NonZero::new(3).unwrap(),
            ..Settings::default()
        })
    }

    pub(crate) fn with_settings(settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let offline = Offline::new(folder.path(), settings);
        Self { folder, offline }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a Parquet file.
    pub(crate) fn write(&self, name: &str, batch: &RecordBatch) -> PathBuf {
        self.write_grouped(name, batch, 1 << 20)
    }

    /// Writes a Parquet file of row groups of so many rows.
    pub(crate) fn write_grouped(&self, name: &str, batch: &RecordBatch, rows: usize) -> PathBuf {
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(rows));
        self.write_as(name, batch, properties.build())
    }

    /// Writes a Parquet file as `properties` say.
    pub(crate) fn write_as(
        &self,
        name: &str,
        batch: &RecordBatch,
        properties: WriterProperties,
    ) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = File::create(&path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
        path
    }

    /// Writes a file of text.
    pub(crate) fn write_text(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// The plan's outputs for entity rows.
    pub(crate) async fn evaluated(
        &self,
        plan: &FeaturePlan,
        entities: &RecordBatch,
    ) -> Result<EvaluatedRows, OfflineError> {
        self.evaluated_until(plan, entities, &[]).await
    }

    /// The same, each lookup up to a bound.
    pub(crate) async fn evaluated_until(
        &self,
        plan: &FeaturePlan,
        entities: &RecordBatch,
        until: &[Option<i64>],
    ) -> Result<EvaluatedRows, OfflineError> {
        let entities = EntityRows::from_batch(plan, entities)?;
        let evaluator = evaluator(plan);
        self.offline
            .evaluated_rows(
                &evaluator,
                &Components::new(),
                &entities,
                until,
                Arc::new(()),
            )
            .await
    }

    /// Builds a training set: what it is, and what the joins of its views counted.
    pub(crate) async fn trained(
        &self,
        plan: &FeaturePlan,
        entities: &RecordBatch,
    ) -> Result<(RecordBatch, Metrics), OfflineError> {
        let request = TrainingSetRequest {
            evaluator: evaluator(plan),
            components: Components::new(),
            entities: EntitySource::Files(self.write("asked.parquet", entities)),
            out: unskew_offline::Output {
                overwrite: true,
                ..unskew_offline::Output::to(Target::Parquet(self.path("set.parquet")))
            },
            progress: Arc::new(()),
        };
        let summary = self.offline.training_set(request).await?;
        let metrics = Metrics::of(&summary.explain);
        Ok((read(&self.path("set.parquet")), metrics))
    }

    /// What the join of the plan's view left out; its result is that of a run over everything.
    pub(crate) async fn pruned(&self, plan: &FeaturePlan, entities: &RecordBatch) -> Metrics {
        // Under a bound all rows are looked at.
        let bounds = vec![Some(i64::MAX); plan.lookups.len()];
        let all = self.evaluated_until(plan, entities, &bounds).await.unwrap();
        let (set, metrics) = self.trained(plan, entities).await.unwrap();
        for (column, field) in all.batch.columns().iter().zip(all.batch.schema().fields()) {
            let trained = set.column_by_name(field.name()).unwrap();
            assert_eq!(trained, column, "{}", field.name());
        }
        metrics
    }
}

/// What joins and scans counted, as the explanation of a plan shows it.
pub(crate) struct Metrics {
    views: Vec<String>,
    /// Those of each node of the plan.
    counts: Vec<BTreeMap<String, u64>>,
}

impl Metrics {
    fn of(explain: &str) -> Self {
        let views = explain.lines().filter_map(|line| {
            let (_, line) = line.split_once("PointInTimeJoinExec: view=")?;
            line.split_once(", ").map(|(view, _)| view.to_owned())
        });
        let counts = explain.lines().filter_map(|line| {
            let (_, metrics) = line.split_once("metrics=[")?;
            let metrics = metrics.trim_end().strip_suffix(']').unwrap().split(", ");
            let metrics = metrics.filter_map(|metric| metric.split_once('='));
            Some(
                metrics
                    .map(|(name, value)| (name.to_owned(), number(value)))
                    .collect(),
            )
        });
        Self {
            views: views.collect(),
            counts: counts.collect(),
        }
    }

    /// The views that were joined.
    pub(crate) fn views(&self) -> &[String] {
        &self.views
    }

    /// A count, of the whole plan; exact below 1,000, and to three digits above.
    pub(crate) fn get(&self, name: &str) -> u64 {
        let counts: Vec<_> = self
            .counts
            .iter()
            .filter_map(|counts| counts.get(name))
            .collect();
        assert!(!counts.is_empty(), "no `{name}` in {:?}", self.counts);
        counts.into_iter().sum()
    }
}

/// What DataFusion shows for a person: `7`, `12.50 K`.
fn number(shown: &str) -> u64 {
    let (digits, unit) = shown.split_once(' ').unwrap_or((shown, ""));
    let unit = match unit {
        "" => 1.0,
        "K" => 1e3,
        "M" => 1e6,
        unit => panic!("{unit}"),
    };
    (digits.parse::<f64>().unwrap() * unit).round() as u64
}

pub(crate) fn evaluator(plan: &FeaturePlan) -> Arc<Evaluator> {
    Arc::new(Evaluator::new(Arc::new(plan.clone()), &Components::new()).unwrap())
}

/// A view of the file or folder `path` with a string key `id` and an int64 feature `v`, timestamps
/// in `at` and `made`.
pub(crate) fn view(path: &str) -> View {
    View {
        name: "v".to_owned(),
        source: Source {
            name: "s".to_owned(),
            path: path.to_owned(),
            timestamp_field: "at".to_owned(),
            created_timestamp_column: Some("made".to_owned()),
            point_in_time: Mode::Event,
            late_by: 0,
            columns: BTreeMap::new(),
            partition: None,
        },
        keys: vec![key("id", ScalarType::String)],
        features: vec![Field::new("v", INT64)],
        ttl: None,
        online: true,
        batch: None,
    }
}

pub(crate) fn key(name: &str, data_type: ScalarType) -> JoinKey {
    JoinKey {
        name: name.to_owned(),
        data_type,
    }
}

/// A plan of lookups: the name, the view, and the names of the plan's join keys in the order of the
/// view's. Outputs are called `LOOKUP__FEATURE`.
pub(crate) fn plan(lookups: &[(&str, &View, &[&str])]) -> FeaturePlan {
    let mut plan = FeaturePlan {
        semantics: SEMANTICS,
        service: Some("service".to_owned()),
        join_keys: Vec::new(),
        request_fields: Vec::new(),
        lookups: Vec::new(),
        steps: Vec::new(),
        outputs: Vec::new(),
    };
    for (index, (name, view, keys)) in lookups.iter().enumerate() {
        let indices = keys.iter().zip(&view.keys).map(|(key, declared)| {
            let known = plan.join_keys.iter().position(|known| known.name == *key);
            known.unwrap_or_else(|| {
                let data_type = DataType::Scalar(declared.data_type);
                plan.join_keys.push(Field::new(*key, data_type));
                plan.join_keys.len() - 1
            })
        });
        let keys = indices.collect();
        for (feature, field) in view.features.iter().enumerate() {
            plan.outputs.push(Output {
                name: format!("{name}__{}", field.name),
                data_type: field.data_type,
                binding: Binding::Feature {
                    lookup: index,
                    feature,
                },
            });
        }
        plan.lookups.push(Lookup {
            name: (*name).to_owned(),
            view: Arc::new((*view).clone()),
            keys,
            features: (0..view.features.len()).collect(),
        });
    }
    plan
}

/// A plan of one view under its own name and keys.
pub(crate) fn plan_of(view: &View) -> FeaturePlan {
    let keys: Vec<_> = view.keys.iter().map(|key| key.name.as_str()).collect();
    plan(&[(view.name.as_str(), view, &keys)])
}

/// A batch of nullable columns.
pub(crate) fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<_> = columns
        .iter()
        .map(|(name, array)| ArrowField::new(*name, array.data_type().clone(), true))
        .collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

/// A row of a history of [`view`]: key, event, created, value.
pub(crate) type Row<'a> = (Option<&'a str>, Option<i64>, Option<i64>, Option<i64>);

/// A history of [`view`].
pub(crate) fn history(rows: &[Row<'_>]) -> RecordBatch {
    batch(vec![
        ("id", strings(rows.iter().map(|row| row.0))),
        ("at", times(rows.iter().map(|row| row.1))),
        ("made", times(rows.iter().map(|row| row.2))),
        ("v", ints(rows.iter().map(|row| row.3))),
    ])
}

/// Entity rows for [`view`]: key, instant.
pub(crate) fn entities(rows: &[(Option<&str>, i64)]) -> RecordBatch {
    batch(vec![
        ("id", strings(rows.iter().map(|row| row.0))),
        ("event_timestamp", times(rows.iter().map(|row| Some(row.1)))),
    ])
}

pub(crate) fn strings<'a>(values: impl IntoIterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringArray>())
}

pub(crate) fn ints(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Int64Array>())
}

pub(crate) fn times(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    let times: TimestampMicrosecondArray = values.into_iter().collect();
    Arc::new(times.with_timezone("UTC"))
}

/// The values of an int64 column.
pub(crate) fn values(batch: &RecordBatch, column: &str) -> Vec<Option<i64>> {
    let column = batch.column_by_name(column).unwrap();
    assert_eq!(column.data_type(), &ArrowType::Int64);
    column
        .as_primitive::<arrow::datatypes::Int64Type>()
        .iter()
        .collect()
}

/// Reads a Parquet file whole.
pub(crate) fn read(path: &Path) -> RecordBatch {
    let file = File::open(path).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file);
    let reader = reader.unwrap().build().unwrap();
    let schema = arrow::array::RecordBatchReader::schema(&reader);
    let batches: Vec<_> = reader.collect::<Result<_, _>>().unwrap();
    arrow::compute::concat_batches(&schema, &batches).unwrap()
}
