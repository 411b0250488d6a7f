//! Keys in, joined batch out.

use std::hash::BuildHasher;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray, UInt8Array};
use arrow::datatypes::{DataType as ArrowType, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;
use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use unskew_core::plan::{FeaturePlan, Layout, found};
use unskew_core::row::{self, DecodedRows, Decoder};
use unskew_core::time;
use unskew_core::types::{DataType, UTC};

use crate::error::OnlineError;
use crate::key::ViewKey;
use crate::store::{Held, OnlineStore, Wanted};

/// Up to so many rows a comparison of all is quicker than a hash.
const FEW: usize = 8;
/// About how long an entity key is.
const KEY: usize = 16;

/// All of a plan that does not depend on the request: which views to ask for, under which keys.
#[derive(Clone, Debug)]
pub struct Joiner {
    layout: Layout,
    /// Each view once, however many lookups use it.
    views: Vec<Arc<ViewKey>>,
    lookups: Vec<Lookup>,
}

/// For each row the place of its entity among those that are asked of the view, if its key is not
/// null.
type Places = Vec<Option<usize>>;

#[derive(Clone, Debug)]
struct Lookup {
    name: String,
    /// Index into the views.
    view: usize,
    /// Indices into the plan's join keys.
    keys: Vec<usize>,
    /// The Arrow types of those keys in the view.
    key_types: Vec<ArrowType>,
    /// The types of the view's features.
    schema: Vec<DataType>,
    /// The features that are used, as indices into the view's.
    features: Vec<usize>,
}

impl Joiner {
    /// What `plan` looks up in the online store of `project`.
    pub fn new(plan: &FeaturePlan, project: &str) -> Self {
        let mut views: Vec<Arc<ViewKey>> = Vec::new();
        let lookups = plan
            .lookups
            .iter()
            .map(|lookup| {
                let key = ViewKey::of(project, &lookup.view);
                let view = views.iter().position(|view| **view == key);
                Lookup {
                    name: lookup.name.clone(),
                    view: view.unwrap_or_else(|| {
                        views.push(Arc::new(key));
                        views.len() - 1
                    }),
                    keys: lookup.keys.clone(),
                    key_types: lookup
                        .view
                        .keys
                        .iter()
                        .map(|key| key.data_type.arrow())
                        .collect(),
                    schema: lookup.view.feature_types(),
                    features: lookup.features.clone(),
                }
            })
            .collect();
        Self {
            layout: plan.layout(),
            views,
            lookups,
        }
    }

    /// The same, whose joined batches have the very schema of `layout`, which is the plan's: who
    /// compares the schema of a batch with it need not compare names then.
    #[must_use]
    pub fn with_layout(mut self, layout: &Layout) -> Self {
        self.layout = layout.clone();
        self
    }

    /// The views that the plan looks up, each once.
    pub fn views(&self) -> &[Arc<ViewKey>] {
        &self.views
    }

    /// The joined batch of the rows whose join keys are `keys` and whose request fields are
    /// `request`, both in the plan's order and of its types, one row for each instant of `as_of`.
    ///
    /// Each row of a view is fetched once, all in one round trip. A row with a null join key finds
    /// nothing. A view of which nothing was materialized is not looked into at all, so that an
    /// emptied store is never taken for a filled one.
    ///
    /// # Errors
    /// The store is unavailable, a stored row is damaged, the columns are not those of the plan,
    /// or the rows take more than 2 GiB.
    pub async fn join(
        &self,
        store: &dyn OnlineStore,
        as_of: &TimestampMicrosecondArray,
        keys: &[ArrayRef],
        request: &[ArrayRef],
    ) -> Result<RecordBatch, OnlineError> {
        self.join_observed(store, as_of, keys, request, || ()).await
    }

    /// As [`Joiner::join`], and says when the rows have come from the store, before they are
    /// decoded.
    ///
    /// # Errors
    /// As [`Joiner::join`].
    pub async fn join_observed(
        &self,
        store: &dyn OnlineStore,
        as_of: &TimestampMicrosecondArray,
        keys: &[ArrayRef],
        request: &[ArrayRef],
        fetched: impl FnOnce() + Send,
    ) -> Result<RecordBatch, OnlineError> {
        self.check(as_of, keys, request)?;
        let rows = as_of.len();
        let (wanted, places) = self.wanted(keys, rows)?;
        let held = if rows == 0 {
            Vec::new()
        } else {
            store.get(wanted).await?
        };
        fetched();
        let instants = as_of.clone().with_timezone(UTC);
        let mut columns: Vec<ArrayRef> = vec![Arc::new(instants)];
        columns.extend(keys.iter().map(Arc::clone));
        columns.extend(request.iter().map(Arc::clone));
        for (lookup, places) in self.lookups.iter().zip(&places) {
            let (found, decoded) = self.decode(lookup, places, held.get(lookup.view), keys)?;
            columns.push(Arc::new(found));
            columns.push(Arc::new(decoded.events));
            columns.push(Arc::new(decoded.created));
            columns.extend(decoded.features);
        }
        RecordBatch::try_new(Arc::clone(&self.layout.schema), columns)
            .map_err(|error| OnlineError::Columns(error.to_string()))
    }

    /// Refuses columns that are not those of the plan.
    fn check(
        &self,
        as_of: &TimestampMicrosecondArray,
        keys: &[ArrayRef],
        request: &[ArrayRef],
    ) -> Result<(), OnlineError> {
        let of = |from: usize, to: usize| &self.layout.schema.fields()[from..to];
        let end = self
            .layout
            .lookups
            .first()
            .copied()
            .unwrap_or(self.layout.schema.fields().len());
        let expected = [
            (of(self.layout.keys, self.layout.request), keys),
            (of(self.layout.request, end), request),
        ];
        for (fields, columns) in expected {
            if fields.len() != columns.len() {
                return Err(OnlineError::Columns(format!(
                    "{} columns were given for {}",
                    columns.len(),
                    unskew_core::text::list(fields.iter().map(|field| field.name())),
                )));
            }
            for (field, column) in fields.iter().zip(columns) {
                if field.data_type() != column.data_type() {
                    return Err(OnlineError::Columns(format!(
                        "`{}` is of type {}, not {}",
                        field.name(),
                        column.data_type(),
                        field.data_type(),
                    )));
                }
                if column.len() != as_of.len() {
                    return Err(OnlineError::Columns(format!(
                        "`{}` has {} rows, but there are {} instants",
                        field.name(),
                        column.len(),
                        as_of.len(),
                    )));
                }
            }
        }
        Ok(())
    }

    /// What to ask for, each entity of a view once, and for each lookup where its rows find theirs.
    fn wanted(
        &self,
        keys: &[ArrayRef],
        rows: usize,
    ) -> Result<(Vec<Wanted>, Vec<Places>), OnlineError> {
        let mut wanted: Vec<Wanted> = self
            .views
            .iter()
            .map(|view| Wanted {
                view: Arc::clone(view),
                entities: Vec::new(),
            })
            .collect();
        let hasher = DefaultHashBuilder::default();
        let mut seen: Vec<HashTable<usize>> = vec![HashTable::new(); wanted.len()];
        let mut places = Vec::with_capacity(self.lookups.len());
        for lookup in &self.lookups {
            let columns = lookup.columns(keys)?;
            let (seen, entities) = (&mut seen[lookup.view], &mut wanted[lookup.view].entities);
            let place = |row| {
                let mut entity = Vec::with_capacity(KEY);
                if !row::encode_key(&columns, row, &mut entity) {
                    return None;
                }
                if rows <= FEW {
                    let known = entities.iter().position(|known| *known == entity);
                    return known.or_else(|| {
                        entities.push(entity);
                        Some(entities.len() - 1)
                    });
                }
                let hash = |entity: &Vec<u8>| hasher.hash_one(entity);
                let is = |&place: &usize| entities[place] == entity;
                match seen.entry(hash(&entity), is, |&place| hash(&entities[place])) {
                    Entry::Occupied(place) => Some(*place.get()),
                    Entry::Vacant(free) => {
                        let place = entities.len();
                        free.insert(place);
                        entities.push(entity);
                        Some(place)
                    }
                }
            };
            places.push((0..rows).map(place).collect());
        }
        Ok((wanted, places))
    }

    fn decode(
        &self,
        lookup: &Lookup,
        places: &[Option<usize>],
        held: Option<&Held>,
        keys: &[ArrayRef],
    ) -> Result<(UInt8Array, DecodedRows), OnlineError> {
        // An Arrow column of strings holds less than 2 GiB.
        const LIMIT: usize = i32::MAX as usize;
        let materialized = held
            .and_then(|held| held.state.as_ref())
            .is_some_and(|state| state.is_materialized());
        let mut decoder = Decoder::new(&lookup.schema, &lookup.features, places.len());
        let mut bytes = 0_usize;
        let mut statuses = Vec::with_capacity(places.len());
        for (row, place) in places.iter().enumerate() {
            let stored = held
                .filter(|_| materialized)
                .zip(*place)
                .and_then(|(held, place)| held.rows.get(place)?.as_ref());
            bytes = bytes.saturating_add(stored.map_or(0, |stored| stored.len()));
            if bytes > LIMIT {
                return Err(OnlineError::TooLarge {
                    view: lookup.name.clone(),
                    what: "a batch",
                    bytes,
                    limit: LIMIT,
                });
            }
            let is_row = decoder
                .push(stored.map(|stored| stored.as_ref()))
                .map_err(|source| OnlineError::DamagedRow {
                    view: self.views[lookup.view].view.clone(),
                    key: lookup.shown(keys, row),
                    source,
                })?;
            statuses.push(match is_row {
                _ if !materialized => found::NOT_MATERIALIZED,
                true => found::ROW,
                // A deletion is kept as a row that is none.
                false => found::NOTHING,
            });
        }
        Ok((UInt8Array::from(statuses), decoder.finish()))
    }
}

impl Lookup {
    /// The columns of the view's join keys.
    fn columns(&self, keys: &[ArrayRef]) -> Result<Vec<ArrayRef>, OnlineError> {
        self.keys
            .iter()
            .zip(&self.key_types)
            .map(|(&index, expected)| match keys.get(index) {
                Some(column) if column.data_type() == expected => Ok(Arc::clone(column)),
                Some(column) => Err(OnlineError::Columns(format!(
                    "view `{}` has a join key of type {expected}, not {}",
                    self.name,
                    column.data_type(),
                ))),
                None => Err(OnlineError::Columns(format!(
                    "view `{}` wants join key {index} of {}",
                    self.name,
                    keys.len(),
                ))),
            })
            .collect()
    }

    /// The entity key of a row, for a person.
    fn shown(&self, keys: &[ArrayRef], row: usize) -> String {
        unskew_core::text::list(self.keys.iter().filter_map(|&index| {
            let column = keys.get(index)?;
            let text = match column.as_primitive_opt::<TimestampMicrosecondType>() {
                // Arrow shows no instant of a named zone without that zone's database.
                Some(instants) => time::format(instants.value(row)),
                None => array_value_to_string(column, row).ok()?,
            };
            Some(format!("`{text}`"))
        }))
    }
}
