//! How the columns of Parquet files are compressed.

use std::str::FromStr;

use parquet::basic::{Compression as Codec, ZstdLevel};

/// How the columns of a Parquet file are compressed; `zstd` unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression(Codec);

impl Compression {
    pub(super) fn codec(self) -> Codec {
        self.0
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self(Codec::ZSTD(ZstdLevel::default()))
    }
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let level = || {
            let level = text.strip_prefix("zstd(")?.strip_suffix(')')?;
            ZstdLevel::try_new(level.parse().ok()?).ok()
        };
        Ok(Self(match text {
            "zstd" => return Ok(Self::default()),
            "snappy" => Codec::SNAPPY,
            "gzip" => Codec::GZIP(Default::default()),
            "lz4" => Codec::LZ4_RAW,
            "brotli" => Codec::BROTLI(Default::default()),
            "none" => Codec::UNCOMPRESSED,
            _ => Codec::ZSTD(level().ok_or_else(|| {
                format!(
                    "`{text}` is no compression; there are zstd, zstd(1) to zstd(22), snappy, \
                     gzip, lz4, brotli and none"
                )
            })?),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressions_are_read_by_their_names() {
        let level = |level| Codec::ZSTD(ZstdLevel::try_new(level).unwrap());
        for (text, codec) in [
            ("zstd", Codec::ZSTD(ZstdLevel::default())),
            ("zstd(1)", level(1)),
            ("zstd(22)", level(22)),
            ("snappy", Codec::SNAPPY),
            ("lz4", Codec::LZ4_RAW),
            ("none", Codec::UNCOMPRESSED),
        ] {
            assert_eq!(
                text.parse::<Compression>().map(Compression::codec),
                Ok(codec),
                "{text}"
            );
        }
        for text in ["", "zip", "zstd(23)", "zstd(x)", "zstd(1", "snappy(1)"] {
            let error = text.parse::<Compression>().unwrap_err();
            assert!(
                error.contains(&format!("`{text}` is no compression")),
                "{error}"
            );
            assert!(error.contains("gzip, lz4, brotli and none"), "{error}");
        }
    }
}
