//! Reading the footers of a source's files: columns, row groups and their statistics.

use std::sync::Arc;

use arrow::datatypes::TimeUnit;
use datafusion::datasource::physical_plan::parquet::Int96Coercer;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::object_store::ObjectStoreUrl;
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::parquet_to_arrow_schema;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};

use crate::error::OfflineError;
use crate::files::SourceFile;
use crate::schema::FileSchema;

/// INT96 is read as microseconds: as nanoseconds, which Arrow would take, an instant after 2262 has
/// no place.
const INT96: TimeUnit = TimeUnit::Microsecond;

/// How many footers are read at once.
const AT_ONCE: usize = 32;

/// The files with what their footers say, in their order.
///
/// # Errors
/// A footer cannot be read; the error names the file.
pub(crate) async fn footers(
    context: &TaskContext,
    files: Vec<SourceFile>,
) -> Result<Vec<FileSchema>, OfflineError> {
    let mut files: Vec<FileSchema> = futures::stream::iter(files)
        .map(|file| footer(context, file))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    // The same schema is the same object, so that who goes through many files sees it at once.
    for index in 1..files.len() {
        let (before, after) = files.split_at_mut(index);
        if let (Some(before), Some(file)) = (before.last(), after.first_mut())
            && before.schema == file.schema
        {
            file.schema = Arc::clone(&before.schema);
        }
    }
    Ok(files)
}

/// What the footer of `file` says.
///
/// # Errors
/// It cannot be read; the error names the file.
pub(crate) async fn footer(
    context: &TaskContext,
    file: SourceFile,
) -> Result<FileSchema, OfflineError> {
    let unreadable = |reason: String| OfflineError::UnreadableFile {
        file: file.path.clone(),
        reason,
    };
    let store = match &file.store {
        Some(store) => Arc::clone(store),
        None => context
            .runtime_env()
            .object_store(ObjectStoreUrl::local_filesystem())?,
    };
    // Without DataFusion's cache: it would know objects of two buckets by one name.
    let metadata = DFParquetMetadata::new(&store, &file.meta)
        .with_page_index_policy(Some(PageIndexPolicy::Skip))
        .fetch_metadata()
        .await
        .map_err(|error| unreadable(reason(&error)))?;
    let rows = metadata.file_metadata().num_rows();
    let rows =
        u64::try_from(rows).map_err(|_| unreadable(format!("it says it has {rows} rows")))?;
    let metadata =
        columns(metadata).map_err(|error| unreadable(parquet_reason(&error.to_string())))?;
    Ok(FileSchema {
        rows,
        schema: Arc::clone(metadata.schema()),
        metadata,
        file,
    })
}

/// The footer with the columns as the reader will give them.
pub(crate) fn columns(metadata: Arc<ParquetMetaData>) -> Result<ArrowReaderMetadata, ParquetError> {
    let file = metadata.file_metadata();
    let schema = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata())?;
    let coerced = Int96Coercer::new(file.schema_descr(), &schema, &INT96).coerce();
    let schema = Arc::new(coerced.unwrap_or(schema));
    ArrowReaderMetadata::try_new(metadata, ArrowReaderOptions::new().with_schema(schema))
}

/// What an error of DataFusion says, without its prefixes.
pub(crate) fn reason(error: &DataFusionError) -> String {
    parquet_reason(&error.find_root().to_string())
}

/// What an error of the Parquet reader says, without the prefixes that it has once or twice.
pub(crate) fn parquet_reason(text: &str) -> String {
    let mut text = text;
    while let Some(rest) = text.strip_prefix("Parquet error: ") {
        text = rest;
    }
    text.to_owned()
}
