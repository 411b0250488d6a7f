//! Scans of a source's Parquet files: the columns that are asked for, under the names that
//! definitions give them, in types that hold the values of every file.
//!
//! ```text
//! ScanExec                      renames; a column that a file lacks is null; joins types
//! ├─ DataSourceExec (Parquet)   the files with one set of column types
//! └─ DataSourceExec (Parquet)   those with another
//! ```
//!
//! DataFusion would cast between the types of files by itself, but not without loss: nanoseconds
//! before 1970 would be rounded up, and large integers would lose digits.

use std::convert::Infallible;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::config::{ConfigOptions, TableParquetOptions};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt;
use unskew_core::types::DataType;
use unskew_core::values::coerce;
use unskew_core::view::Source;

use crate::error::{OfflineError, SourceProblem};
use crate::footers::{COERCE_INT96, footers, reason};
use crate::schema::{FileSchema, merged_schema, merged_type, plain};

/// Reads columns of a source's files.
#[derive(Clone, Debug)]
pub struct ScanExec {
    source: String,
    columns: Arc<[Column]>,
    groups: Arc<[Group]>,
    /// For each partition its group, and its partition there.
    partitions: Vec<(usize, usize)>,
    rows: u64,
    properties: Arc<PlanProperties>,
}

/// A column of the output.
#[derive(Clone, Debug)]
struct Column {
    /// Its name in the files.
    file_column: String,
    data_type: ArrowType,
}

/// Files that have the needed columns in the same types.
#[derive(Clone, Debug)]
struct Group {
    input: Arc<dyn ExecutionPlan>,
    files: Vec<FileSchema>,
    /// The columns that these files have, as the reader gives them.
    schema: SchemaRef,
    /// For each column of the output its index in `schema`.
    indices: Vec<Option<usize>>,
}

impl ScanExec {
    /// A scan of `columns`, by their names in definitions, over all files of `source`.
    ///
    /// # Errors
    /// No file matches; a file cannot be read; no file has a column; files disagree about its type.
    pub(crate) async fn new(
        context: &TaskContext,
        root: &Path,
        source: &Source,
        columns: &[&str],
    ) -> Result<Self, OfflineError> {
        let files = footers(context, root, &source.name, &source.path).await?;
        let rows = files.iter().map(|file| file.rows).sum();
        let mut fields = Vec::with_capacity(columns.len());
        let mut read = Vec::with_capacity(columns.len());
        for &column in columns {
            let file_column = source.file_column(column);
            let data_type = merged_type(&source.name, &files, file_column)?
                .ok_or_else(|| missing_column(source, &files, column))?;
            fields.push(plain(column, data_type.clone()));
            read.push(Column {
                file_column: file_column.to_owned(),
                data_type,
            });
        }
        let groups = grouped(&read, files)
            .into_iter()
            .map(|files| Group::new(context, &read, files))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self::of(
            source.name.clone(),
            Arc::new(Schema::new(fields)),
            read.into(),
            groups.into(),
            rows,
        ))
    }

    /// How many rows the files have, as their footers say.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    fn of(
        source: String,
        schema: SchemaRef,
        columns: Arc<[Column]>,
        groups: Arc<[Group]>,
        rows: u64,
    ) -> Self {
        let partitions: Vec<_> = groups
            .iter()
            .enumerate()
            .flat_map(|(index, group)| {
                let count = group.input.properties().partitioning.partition_count();
                (0..count).map(move |partition| (index, partition))
            })
            .collect();
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(partitions.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        Self {
            source,
            columns,
            groups,
            partitions,
            rows,
            properties,
        }
    }

    /// The error of a reading, with the file that it is of.
    async fn located(&self, context: &Arc<TaskContext>, error: DataFusionError) -> OfflineError {
        match self
            .first_failure(context, |_| Ok::<_, Infallible>(()))
            .await
        {
            Some(Failure {
                file,
                error: FailureKind::Reading(error),
                ..
            }) => OfflineError::UnreadableFile {
                file,
                reason: reason(&error),
            },
            // It went away, such as a disk that was not there for a moment.
            _ => error.into(),
        }
    }

    /// Reads file by file, in order, until `check` or the reading fails: the file, the rows of it
    /// before the batch at fault, and the error. `None` if nothing fails.
    ///
    /// This is how an error that came out of many files at once learns where it belongs: readers
    /// of pages do not know their file. It costs a second reading up to the fault, and only then.
    pub(crate) async fn first_failure<E: Send + 'static>(
        &self,
        context: &Arc<TaskContext>,
        check: impl Fn(&RecordBatch) -> Result<(), E> + Send + Sync + 'static,
    ) -> Option<Failure<E>> {
        let check = Arc::new(check);
        let mut files: Vec<_> = self
            .groups
            .iter()
            .flat_map(|group| group.files.iter().map(move |file| (group, file)))
            .collect();
        files.sort_by(|(_, one), (_, other)| one.file.path.cmp(&other.file.path));
        for (group, file) in files {
            let at = |rows, error| {
                Some(Failure {
                    file: file.file.path.clone(),
                    rows,
                    error,
                })
            };
            let mut rows = 0;
            let opened = parquet_scan(&group.schema, vec![file.clone()], None)
                .and_then(|plan| plan.execute(0, Arc::clone(context)));
            let mut stream = match opened {
                Ok(stream) => stream,
                Err(error) => return at(rows, FailureKind::Reading(error)),
            };
            while let Some(batch) = stream.next().await {
                let adapted = batch.map_err(FailureKind::Reading).and_then(|batch| {
                    adapt(&self.schema(), &self.columns, &group.indices, &batch)
                        .map_err(|error| FailureKind::Reading(error.into()))
                });
                let batch = match adapted {
                    Ok(batch) => batch,
                    Err(error) => return at(rows, error),
                };
                let count = batch.num_rows() as u64;
                let check = Arc::clone(&check);
                // Components run in `check`: off the threads that drive everybody's tasks.
                match tokio::task::spawn_blocking(move || check(&batch)).await {
                    Ok(Ok(())) => rows += count,
                    Ok(Err(error)) => return at(rows, FailureKind::Check(error)),
                    Err(_) => return None,
                }
            }
        }
        None
    }
}

/// Where and how a scan failed.
pub(crate) struct Failure<E> {
    pub(crate) file: std::path::PathBuf,
    /// How many rows of the file came before the batch at fault.
    pub(crate) rows: u64,
    pub(crate) error: FailureKind<E>,
}

pub(crate) enum FailureKind<E> {
    /// The file cannot be read.
    Reading(DataFusionError),
    /// It can, but what it holds was refused.
    Check(E),
}

/// The schema of all the files that `path`, of the source `name`, names: names in the files,
/// types that hold every file's values.
pub(crate) async fn source_schema(
    context: &TaskContext,
    root: &Path,
    name: &str,
    path: &str,
) -> Result<SchemaRef, OfflineError> {
    Ok(merged_schema(&footers(context, root, name, path).await?))
}

impl Group {
    fn new(
        context: &TaskContext,
        columns: &[Column],
        files: Vec<FileSchema>,
    ) -> Result<Self, OfflineError> {
        let mut fields: Vec<Field> = Vec::new();
        let mut indices = Vec::with_capacity(columns.len());
        for column in columns {
            let there = files
                .first()
                .and_then(|file| file.schema.field_with_name(&column.file_column).ok());
            indices.push(there.map(|field| {
                // Two names of definitions may stand for one column.
                let known = fields.iter().position(|known| known.name() == field.name());
                known.unwrap_or_else(|| {
                    fields.push(field.clone().with_nullable(true));
                    fields.len() - 1
                })
            }));
        }
        let schema = Arc::new(Schema::new(fields));
        let input = parquet_scan(
            &schema,
            files.clone(),
            Some(context.session_config().options()),
        )
        .map_err(OfflineError::from)?;
        Ok(Self {
            input,
            files,
            schema,
            indices,
        })
    }
}

/// The files, those with the same types of the needed columns together.
fn grouped(columns: &[Column], files: Vec<FileSchema>) -> Vec<Vec<FileSchema>> {
    let mut groups: Vec<(Vec<Option<ArrowType>>, Vec<FileSchema>)> = Vec::new();
    for file in files {
        let types: Vec<_> = columns
            .iter()
            .map(|column| {
                let field = file.schema.field_with_name(&column.file_column).ok()?;
                Some(field.data_type().clone())
            })
            .collect();
        match groups.iter_mut().find(|(known, _)| *known == types) {
            Some((_, group)) => group.push(file),
            None => groups.push((types, vec![file])),
        }
    }
    groups.into_iter().map(|(_, files)| files).collect()
}

/// A scan of all of `schema` in `files`: in their order and one partition, or, given options, in as
/// many partitions as those say.
pub(crate) fn parquet_scan(
    schema: &SchemaRef,
    files: Vec<FileSchema>,
    repartition: Option<&ConfigOptions>,
) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
    let mut options = TableParquetOptions::default();
    options.global.coerce_int96 = Some(COERCE_INT96.1.to_owned());
    options.global.schema_force_view_types = false;
    let source = ParquetSource::new(Arc::clone(schema)).with_table_parquet_options(options);
    let files = files
        .into_iter()
        .map(|file| PartitionedFile::new_from_meta(file.file.meta))
        .collect();
    let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), Arc::new(source))
        .with_file_group(FileGroup::new(files))
        .with_preserve_order(repartition.is_none())
        .build();
    let plan: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(config);
    match repartition {
        None => Ok(plan),
        Some(options) => Ok(plan
            .repartitioned(options.execution.target_partitions, options)?
            .unwrap_or(plan)),
    }
}

fn missing_column(source: &Source, files: &[FileSchema], column: &str) -> OfflineError {
    let schema = merged_schema(files);
    OfflineError::source(
        &source.name,
        SourceProblem::MissingColumn {
            column: column.to_owned(),
            file_column: source.file_column(column).to_owned(),
            file: files
                .first()
                .map(|file| file.file.path.clone())
                .unwrap_or_default(),
            files: files.len(),
            columns: schema.fields().iter().map(|f| f.name().clone()).collect(),
        },
    )
}

/// The columns of the output, of a batch that a group's files gave.
fn adapt(
    schema: &SchemaRef,
    columns: &[Column],
    indices: &[Option<usize>],
    batch: &RecordBatch,
) -> Result<RecordBatch, OfflineError> {
    let arrays = columns
        .iter()
        .zip(indices)
        .map(|(column, index)| match index {
            None => Ok(new_null_array(&column.data_type, batch.num_rows())),
            Some(index) => as_type(column, batch.column(*index)),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        arrays,
        &options,
    )?)
}

/// The values in the type that holds those of every file.
fn as_type(column: &Column, array: &ArrayRef) -> Result<ArrayRef, OfflineError> {
    if array.data_type() == &column.data_type {
        return Ok(Arc::clone(array));
    }
    let failed = |reason: String| {
        OfflineError::from(DataFusionError::Execution(format!(
            "column `{}`: {reason}",
            column.file_column
        )))
    };
    match DataType::of_arrow(&column.data_type) {
        // Types that differ were joined, so the joint one is of the contract, or the other is null.
        Some(wanted) if wanted.arrow() == column.data_type => {
            coerce(array, wanted).map_err(|error| failed(error.to_string()))
        }
        _ => arrow::compute::cast(array, &column.data_type)
            .map_err(|error| failed(error.to_string())),
    }
}

impl DisplayAs for ScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: usize = self.groups.iter().map(|group| group.files.len()).sum();
        write!(
            f,
            "ScanExec: source={}, files={files}, rows={}, columns=[{}]",
            self.source,
            self.rows,
            self.schema()
                .fields()
                .iter()
                .map(|field| field.name().as_str())
                .collect::<Vec<_>>()
                .join(", ")
        )
    }
}

impl ExecutionPlan for ScanExec {
    fn name(&self) -> &'static str {
        "ScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.groups.iter().map(|group| &group.input).collect()
    }

    crate::plan::with_children!(self, children, {
        let groups = self
            .groups
            .iter()
            .zip(children)
            .map(|(group, input)| Group {
                input,
                ..group.clone()
            })
            .collect();
        Ok(Arc::new(Self::of(
            self.source.clone(),
            self.schema(),
            Arc::clone(&self.columns),
            groups,
            self.rows,
        )))
    });

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        let (group, partition) = crate::plan::partition(&self.partitions, partition)?;
        let stream = self.groups[group]
            .input
            .execute(partition, Arc::clone(&context))?;
        let schema = self.schema();
        let this = self.clone();
        let batches = stream.then(move |batch| {
            let adapted = batch.and_then(|batch| {
                let indices = &this.groups[group].indices;
                Ok(adapt(&this.schema(), &this.columns, indices, &batch)?)
            });
            // Cloned on the way to an error only.
            let failed = adapted
                .is_err()
                .then(|| (this.clone(), Arc::clone(&context)));
            async move {
                match (adapted, failed) {
                    (Err(error), Some((this, context))) => {
                        Err(this.located(&context, error).await.into())
                    }
                    (adapted, _) => adapted,
                }
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}
