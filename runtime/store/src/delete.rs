//! Taking the values of an entity off the online store.

use std::sync::Arc;

use arrow::array::ArrayRef;
use serde::Serialize;
use unskew_core::row::{self, Kind, encode_key};
use unskew_core::text;
use unskew_offline::{KeyHistory, Progress};
use unskew_online::{StoredRow, Wanted, expires_at};

use crate::error::StoreError;
use crate::feature_store::FeatureStore;
use crate::push::{PushView, Pusher};

/// Entities to be deleted.
#[derive(Clone, Debug)]
pub struct Delete {
    /// The view.
    pub view: String,
    /// Their join keys: a column for each of the view's, in its types and order, none null.
    pub keys: Vec<ArrayRef>,
    /// Whether to look for the files that hold rows of them, which may read much.
    pub history: bool,
    /// The clock, in microseconds since 1970.
    pub now: i64,
}

/// What was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Deleted {
    /// The view.
    pub view: String,
    /// How many entities had a value online.
    pub had_values: u64,
    /// From where their values may come back: rows of the source that are not deleted. `None` if
    /// that was not asked for.
    pub history: Option<KeyHistory>,
}

impl FeatureStore {
    /// Deletes entities online.
    ///
    /// # Errors
    /// As those of [`Pusher::delete`]; or nothing is applied.
    pub async fn delete(
        &self,
        delete: &Delete,
        progress: Arc<dyn Progress>,
    ) -> Result<Deleted, StoreError> {
        self.pusher().await?.delete(delete, progress).await
    }
}

impl Pusher {
    /// Deletes entities of a view online: from now on nothing is found for them, whatever older
    /// rows are written or written again. A row whose event timestamp lies after the deletion
    /// counts.
    ///
    /// A deletion is kept as long as a row of this moment would be: for good without a ttl. The
    /// source is not touched.
    ///
    /// # Errors
    /// There is no such view, or it is not served online; the keys are not its own; the store is
    /// unavailable, or history cannot be read.
    pub async fn delete(
        &self,
        delete: &Delete,
        progress: Arc<dyn Progress>,
    ) -> Result<Deleted, StoreError> {
        let Delete {
            view,
            keys,
            history,
            now,
        } = delete;
        let view = self.view(view)?;
        if !view.view.online {
            let view = view.view.name.clone();
            return Err(StoreError::NotOnline { view });
        }
        let entities = entities(view, keys)?;
        let had_values = self.bury(view, entities, *now).await?;
        let history = if *history {
            let (view, components) = (&view.view, &self.components);
            let found = self.offline.key_history(view, components, keys, progress);
            Some(found.await?)
        } else {
            None
        };
        Ok(Deleted {
            view: view.view.name.clone(),
            had_values,
            history,
        })
    }

    /// Writes deletions, and says how many entities had a value.
    async fn bury(
        &self,
        view: &PushView,
        entities: Vec<Vec<u8>>,
        now: i64,
    ) -> Result<u64, StoreError> {
        let wanted = Wanted {
            view: Arc::clone(&view.key),
            entities: entities.clone(),
        };
        let held = self.online.get(vec![wanted]).await?;
        let held = held.into_iter().next().map(|held| held.rows);
        let mut had_values = 0;
        let mut rows = Vec::with_capacity(entities.len());
        for (index, entity_key) in entities.into_iter().enumerate() {
            let row = held.as_ref().and_then(|held| held.get(index)?.as_ref());
            let mut event = now;
            // What cannot be read is replaced, too.
            if let Some(Ok(kind)) = row.map(|row| row::kind(row)) {
                had_values += u64::from(kind != Kind::Deleted);
                // A row of another machine's clock may lie after this one.
                if let Some(Ok((of_row, _))) = row.map(|row| row::timestamps(row)) {
                    event = event.max(of_row);
                }
            }
            rows.push(StoredRow {
                entity_key,
                value: row::deleted(event),
                expires_at: expires_at(event, now, view.view.ttl),
            });
        }
        self.online.put(&view.key, rows).await?;
        Ok(had_values)
    }
}

/// The encoded keys of the entities.
fn entities(view: &PushView, keys: &[ArrayRef]) -> Result<Vec<Vec<u8>>, StoreError> {
    let wanted = &view.view.keys;
    let refused = || StoreError::Keys {
        view: view.view.name.clone(),
        wanted: text::list(
            wanted
                .iter()
                .map(|key| format!("{} ({})", key.name, key.data_type)),
        ),
        found: text::list(keys.iter().map(|column| column.data_type())),
    };
    let fits = keys.len() == wanted.len()
        && keys
            .iter()
            .zip(wanted)
            .all(|(column, key)| column.data_type() == &key.data_type.arrow());
    let rows = keys.first().map_or(1, |column| column.len());
    if !fits || keys.iter().any(|column| column.len() != rows) {
        return Err(refused());
    }
    let encode = |row| {
        let mut entity = Vec::new();
        encode_key(keys, row, &mut entity)
            .then_some(entity)
            .ok_or_else(refused)
    };
    (0..rows).map(encode).collect()
}
