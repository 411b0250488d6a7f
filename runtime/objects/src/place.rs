//! From a URL to the store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path as ObjectPath;
use object_store::{BackoffConfig, Error, ObjectStore, RetryConfig};
use unskew_core::view::STORE_SCHEMES;

use crate::error::{StoreProblem, cause};

/// Options of object stores, such as `aws_region` or `google_service_account`, by the names that
/// the `object_store` library gives them; in either case of letters.
pub type StoreOptions = BTreeMap<String, String>;

/// Where a path leads.
#[derive(Clone, Debug)]
pub enum Place {
    /// Into the file system.
    Local,
    /// Into an object store.
    Remote {
        /// The store: a bucket or a container.
        store: Arc<dyn ObjectStore>,
        /// What follows the bucket: an object, a folder, or a glob; empty for the bucket itself.
        path: ObjectPath,
        /// The whole.
        url: String,
    },
}

/// Where `path` leads; `options` come before what the environment says.
///
/// # Errors
/// It is a URL of no object store; or what is needed to reach the store is missing or wrong. The
/// store itself is not asked.
pub fn place(path: &str, options: &StoreOptions) -> Result<Place, StoreProblem> {
    let Some((scheme, rest)) = path.split_once("://") else {
        return Ok(Place::Local);
    };
    if !STORE_SCHEMES.contains(&scheme) {
        let scheme = scheme.to_owned();
        return Err(StoreProblem::UnknownScheme { scheme });
    }
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(StoreProblem::NoBucket);
    }
    let reason = |error: &dyn std::fmt::Display| StoreProblem::InvalidKey {
        reason: error.to_string(),
    };
    if key.starts_with('/') {
        return Err(reason(&"it has an empty part"));
    }
    // A key is what it is: a `%` in it is no beginning of an escape.
    let path_in_store = ObjectPath::parse(key).map_err(|error| reason(&error))?;
    Ok(Place::Remote {
        store: store(scheme, bucket, options)?,
        path: path_in_store,
        url: path.to_owned(),
    })
}

/// A store, by scheme, bucket and options.
type Key = (String, String, StoreOptions);

/// The stores that were needed so far. A store has a pool of connections and keeps credentials, so
/// there is one of each.
static STORES: Mutex<BTreeMap<Key, Arc<dyn ObjectStore>>> = Mutex::new(BTreeMap::new());

fn store(
    scheme: &str,
    bucket: &str,
    options: &StoreOptions,
) -> Result<Arc<dyn ObjectStore>, StoreProblem> {
    let key = (scheme.to_owned(), bucket.to_owned(), options.clone());
    // Nothing panics while it holds the lock, and a map would be whole all the same.
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(store) = stores.get(&key) {
        return Ok(Arc::clone(store));
    }
    let store = connect(scheme, bucket, options)?;
    stores.insert(key, Arc::clone(&store));
    Ok(store)
}

/// Makes a store. Nothing is sent yet.
fn connect(
    scheme: &str,
    bucket: &str,
    options: &StoreOptions,
) -> Result<Arc<dyn ObjectStore>, StoreProblem> {
    let options: Vec<(String, &String)> = options
        .iter()
        .map(|(option, value)| (option.to_ascii_lowercase(), value))
        .collect();
    for (option, _) in &options {
        let is_known = option.parse::<AmazonS3ConfigKey>().is_ok()
            || option.parse::<GoogleConfigKey>().is_ok()
            || option.parse::<AzureConfigKey>().is_ok();
        if !is_known {
            let option = option.clone();
            return Err(StoreProblem::UnknownOption { option });
        }
    }
    // Long enough for a store that asks to slow down, short enough for a person who waits.
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(3),
            base: 2.0,
        },
        max_retries: 5,
        retry_timeout: Duration::from_secs(15),
    };
    let setup = |error: Error| StoreProblem::Setup {
        reason: cause(&error),
    };
    // Options of the other stores are no business of this one.
    Ok(match scheme {
        "s3" | "s3a" => {
            let mut builder = AmazonS3Builder::from_env().with_retry(retry);
            for (option, value) in options {
                if let Ok(key) = option.parse() {
                    builder = builder.with_config(key, value);
                }
            }
            Arc::new(builder.with_bucket_name(bucket).build().map_err(setup)?)
        }
        "gs" => {
            let mut builder = GoogleCloudStorageBuilder::from_env().with_retry(retry);
            for (option, value) in options {
                if let Ok(key) = option.parse() {
                    builder = builder.with_config(key, value);
                }
            }
            Arc::new(builder.with_bucket_name(bucket).build().map_err(setup)?)
        }
        _ => {
            let mut builder = MicrosoftAzureBuilder::from_env().with_retry(retry);
            for (option, value) in options {
                if let Ok(key) = option.parse() {
                    builder = builder.with_config(key, value);
                }
            }
            // The account may stand before the bucket: CONTAINER@ACCOUNT.dfs.core.windows.net.
            let url = format!("{scheme}://{bucket}/");
            Arc::new(builder.with_url(url).build().map_err(setup)?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str) -> Result<Place, String> {
        place(path, &options(&[])).map_err(|error| error.to_string())
    }

    fn options(options: &[(&str, &str)]) -> StoreOptions {
        options
            .iter()
            .map(|&(option, value)| (option.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn a_path_is_local_and_a_url_is_not() {
        for path in ["data/a.parquet", "/a", "s3:/a", ""] {
            assert!(matches!(at(path), Ok(Place::Local)), "{path}");
        }
        for scheme in ["s3", "s3a", "gs"] {
            let path = format!("{scheme}://bucket.of/a b/100%25 ü/[x]*?#.parquet");
            // Without a key, Google's client looks for one in the home folder.
            let given = options(&[("google_skip_signature", "true")]);
            match place(&path, &given).unwrap() {
                Place::Remote { path: key, url, .. } => {
                    assert_eq!(key.as_ref(), "a b/100%25 ü/[x]*?#.parquet");
                    assert_eq!(url, path);
                }
                local => panic!("{local:?}"),
            }
        }
        let given = options(&[("AZURE_STORAGE_ACCOUNT_NAME", "me")]);
        for url in [
            "az://c/x",
            "abfs://c/x",
            "abfss://c@me.dfs.core.windows.net/x",
        ] {
            match place(url, &given) {
                Ok(Place::Remote { path, .. }) => assert_eq!(path.as_ref(), "x", "{url}"),
                other => panic!("{url}: {other:?}"),
            }
        }
    }

    #[test]
    fn one_store_for_each_bucket_and_its_options() {
        let store_of = |url: &str, given: &StoreOptions| match place(url, given) {
            Ok(Place::Remote { store, .. }) => store,
            other => panic!("{other:?}"),
        };
        let (none, some) = (options(&[]), options(&[("aws_region", "eu-central-1")]));
        let first = store_of("s3://one/a", &none);
        assert!(Arc::ptr_eq(&first, &store_of("s3://one/b", &none)));
        assert!(!Arc::ptr_eq(&first, &store_of("s3://two/a", &none)));
        assert!(!Arc::ptr_eq(&first, &store_of("s3://one/a", &some)));
    }

    #[test]
    fn what_is_no_place_is_told() {
        for (path, expected) in [
            (
                "hdfs://a/b",
                "s3://, s3a://, gs://, az://, abfs://, abfss://",
            ),
            ("file:///a", "`file://`"),
            ("s3://", "names no bucket"),
            ("s3:///a", "names no bucket"),
            ("s3://a//b", "empty part"),
            ("s3://a/b//c", "empty"),
            ("s3://a/../c", ".."),
            ("az://c/x", "Account must be specified"),
        ] {
            let error = at(path).unwrap_err();
            assert!(error.contains(expected), "{path}: {error}");
        }
        let wrong = options(&[("aws_regoin", "x")]);
        let error = place("s3://unknown/a", &wrong).unwrap_err();
        assert!(error.to_string().contains("`aws_regoin`"), "{error}");
    }
}
