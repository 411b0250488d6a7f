//! Taking the values of an entity off the online store.

use std::collections::BTreeMap;
use std::iter;
use std::sync::Arc;

use arrow::array::ArrayRef;
use serde::Serialize;
use unskew_core::row::{self, Kind, encode_key};
use unskew_core::text;
use unskew_core::view::View;
use unskew_offline::{KeyHistory, Progress};
use unskew_online::{OnlineError, StoredRow, ViewKey, ViewState, Wanted, expires_at};

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
    /// How many entities had a value online, under the view as it is defined now or as it was.
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
    /// The same goes for what the view was in former states of the registry, since a service may be
    /// answered by one of them still, unless its join keys were others. It does not go for what the
    /// view will be: a view that is defined anew is materialized from all its history.
    ///
    /// A deletion is kept as long as a row of this moment would be: for good without a ttl. The
    /// source is not touched.
    ///
    /// # Errors
    /// There is no such view, or it is not served online; the keys are not its own; the store or
    /// the registry is unavailable; or, when all is deleted, history cannot be read.
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
            let found = found.await.map_err(|source| StoreError::DeletedAlone {
                view: view.name.clone(),
                source: Box::new(source.into()),
            });
            Some(found?)
        } else {
            None
        };
        Ok(Deleted {
            view: view.view.name.clone(),
            had_values,
            history,
        })
    }

    /// Writes deletions for the view and for what it was, and says how many entities had a value.
    async fn bury(
        &self,
        view: &PushView,
        entities: Vec<Vec<u8>>,
        now: i64,
    ) -> Result<u64, StoreError> {
        let former = self.former(&view.view).await?.into_iter();
        let former = former.map(|(key, ttl)| (Arc::new(key), ttl));
        let newest = (Arc::clone(&view.key), view.view.ttl);
        let views: Vec<(Arc<ViewKey>, Option<i64>)> = iter::once(newest).chain(former).collect();
        let wanted = views.iter().map(|(key, _)| Wanted {
            view: Arc::clone(key),
            entities: entities.clone(),
        });
        let all = self.online.get(wanted.collect()).await?;
        let mut had_value = vec![false; entities.len()];
        for (index, ((key, ttl), held)) in views.iter().zip(all).enumerate() {
            let is_materialized = held.state.as_ref().is_some_and(ViewState::is_materialized);
            // What is not materialized is not served; the newest will be.
            if index > 0 && !is_materialized {
                continue;
            }
            let mut rows = Vec::with_capacity(entities.len());
            for ((entity_key, row), had_value) in entities.iter().zip(held.rows).zip(&mut had_value)
            {
                let mut event = now;
                // What a damaged row says of itself is not believed: a deletion of the year 200,000
                // would bury all rows to come.
                if let Some(row) = row.as_deref().filter(|row| row::check(row).is_ok())
                    && let (Ok(kind), Ok((of_row, _))) = (row::kind(row), row::timestamps(row))
                {
                    *had_value |= kind != Kind::Deleted;
                    // A row of another machine's clock may lie after this one.
                    event = event.max(of_row);
                }
                rows.push(StoredRow {
                    entity_key: entity_key.clone(),
                    value: row::deleted(event),
                    expires_at: expires_at(event, now, *ttl),
                });
            }
            if self.online.put(key, rows).await?.kept > 0 {
                self.check_buried(key, &entities).await?;
            }
        }
        Ok(had_value.into_iter().filter(|had| *had).count() as u64)
    }

    /// Looks for damaged rows that are greater than a deletion, and so were kept.
    async fn check_buried(
        &self,
        view: &Arc<ViewKey>,
        entities: &[Vec<u8>],
    ) -> Result<(), StoreError> {
        let wanted = Wanted {
            view: Arc::clone(view),
            entities: entities.to_vec(),
        };
        let held = self.online.get(vec![wanted]).await?;
        let rows = held.iter().flat_map(|held| &held.rows);
        for (entity, row) in entities.iter().zip(rows) {
            if let Some(Err(source)) = row.as_deref().map(row::check) {
                return Err(OnlineError::DamagedRow {
                    view: view.view.clone(),
                    key: text::hex(entity),
                    source,
                }
                .into());
            }
        }
        Ok(())
    }

    /// What a view of the same join keys was in former states of the registry, with its ttl.
    async fn former(&self, view: &View) -> Result<BTreeMap<ViewKey, Option<i64>>, StoreError> {
        let projects = || self.store.former_projects(self.number);
        let projects = self.former.get_or_try_init(projects).await?;
        let newest = view.digest();
        let views = projects.iter().filter_map(|project| {
            let former = &project.views.get(&view.name)?.value.view;
            (former.keys == view.keys && former.digest() != newest)
                .then(|| (ViewKey::of(&project.name, former), former.ttl))
        });
        Ok(views.collect())
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
