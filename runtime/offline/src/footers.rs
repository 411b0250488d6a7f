//! Reading the footers of a source's files: columns and row counts.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::TimeUnit;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::execution::TaskContext;
use datafusion::execution::object_store::ObjectStoreUrl;
use futures::{StreamExt, TryStreamExt};

use crate::error::OfflineError;
use crate::files::{SourceFile, source_files};
use crate::schema::FileSchema;

/// INT96 is read as microseconds, by the reader of footers and by that of columns: as nanoseconds,
/// which Arrow would take, an instant after 2262 has no place.
pub(crate) const COERCE_INT96: (TimeUnit, &str) = (TimeUnit::Microsecond, "us");

/// How many footers are read at once.
const AT_ONCE: usize = 32;

/// The files that `path`, of the source `name`, names, with what their footers say, in the order of
/// their paths.
///
/// # Errors
/// No file matches, or a footer cannot be read; the error names the file.
pub(crate) async fn footers(
    context: &TaskContext,
    root: &Path,
    name: &str,
    path: &str,
) -> Result<Vec<FileSchema>, OfflineError> {
    let (root, name, path) = (root.to_owned(), name.to_owned(), path.to_owned());
    let files = move || source_files(&root, &name, &path);
    let files = tokio::task::spawn_blocking(files).await??;
    futures::stream::iter(files)
        .map(|file| footer(context, file))
        .buffered(AT_ONCE)
        .try_collect()
        .await
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
    let environment = context.runtime_env();
    let store = environment.object_store(ObjectStoreUrl::local_filesystem())?;
    let cache = environment.cache_manager.get_file_metadata_cache();
    let reader = DFParquetMetadata::new(&store, &file.meta)
        .with_file_metadata_cache(Some(cache))
        .with_page_index_policy(Some(parquet::file::metadata::PageIndexPolicy::Skip))
        .with_coerce_int96(Some(COERCE_INT96.0));
    // Each is answered from the cache after the first.
    let metadata = reader.fetch_metadata().await;
    let metadata = metadata.map_err(|error| unreadable(reason(&error)))?;
    let schema = reader.fetch_schema().await;
    let schema = schema.map_err(|error| unreadable(reason(&error)))?;
    let rows = metadata.file_metadata().num_rows();
    let schema = Arc::new(schema);
    Ok(FileSchema {
        rows: u64::try_from(rows).map_err(|_| unreadable(format!("it says it has {rows} rows")))?,
        schema,
        file,
    })
}

/// What an error of DataFusion says, without its prefixes.
pub(crate) fn reason(error: &datafusion::error::DataFusionError) -> String {
    error.find_root().to_string()
}
