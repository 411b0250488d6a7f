//! Bloom filters: whether a row group may have one of few keys.

use arrow::datatypes::DataType as ArrowType;
use parquet::basic::Type as PhysicalType;
use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::ParquetMetaData;

use super::File;
use super::prune::KeyValues;

/// Few keys, in the form in which a bloom filter holds them.
pub(super) enum Probe<'a> {
    Int32(&'a [i64]),
    Int64(&'a [i64]),
    Bytes(&'a [Vec<u8>]),
}

impl<'a> Probe<'a> {
    /// The keys, for a filter of leaf `leaf`, which is column `column`; `None` if it holds them in
    /// another form, or if they are too many.
    pub(super) fn of(
        file: &File,
        column: usize,
        metadata: &ParquetMetaData,
        leaf: usize,
        values: &'a KeyValues,
    ) -> Option<Self> {
        let data_type = file.plain_type(column)?;
        let schema = metadata.file_metadata().schema_descr();
        let physical = schema.column(leaf).physical_type();
        match (values, physical, data_type) {
            (
                KeyValues::Integers(values),
                PhysicalType::INT32,
                ArrowType::Int8 | ArrowType::Int16 | ArrowType::Int32,
            ) => values.distinct.as_deref().map(Self::Int32),
            (KeyValues::Integers(values), PhysicalType::INT64, ArrowType::Int64) => {
                values.distinct.as_deref().map(Self::Int64)
            }
            (
                KeyValues::Bytes(values),
                PhysicalType::BYTE_ARRAY,
                ArrowType::Utf8
                | ArrowType::LargeUtf8
                | ArrowType::Utf8View
                | ArrowType::Binary
                | ArrowType::LargeBinary
                | ArrowType::BinaryView,
            ) => values.distinct.as_deref().map(Self::Bytes),
            _ => None,
        }
    }

    /// Whether the filter may hold one of the keys.
    pub(super) fn meets(&self, filter: &Sbbf) -> bool {
        match self {
            Self::Int32(keys) => keys
                .iter()
                .filter_map(|&key| i32::try_from(key).ok())
                .any(|key| filter.check(&key)),
            Self::Int64(keys) => keys.iter().any(|key| filter.check(key)),
            Self::Bytes(keys) => keys.iter().any(|key| filter.check(key.as_slice())),
        }
    }
}
