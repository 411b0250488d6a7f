//! Feature views: their keys, features and batch transformations, with types.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::Schema;

use super::{Resolver, about, no_column};
use crate::component::Kind;
use crate::definitions::shape::{FeatureShape, FeatureViewShape};
use crate::definitions::{Located, Place};
use crate::project::{Defined, FeatureView, Transformation};
use crate::text;
use crate::time::Span;
use crate::types::{DataType, Field, ScalarType};
use crate::view::{FOLDER_COLUMN, JoinKey, Source, View};

pub(super) type Batch = BTreeMap<String, Defined<Transformation>>;

/// Where a view's columns come from: the source's files, or the batch component's outputs first.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    pub(super) source: &'a Source,
    pub(super) schema: Option<&'a Schema>,
    pub(super) batch: Option<&'a Transformation>,
}

impl Origin<'_> {
    /// The type of the column `name`, or why there is none; `None` where it cannot be known.
    pub(super) fn column(&self, name: &str) -> Option<Result<DataType, String>> {
        if let Some(output) = self.output(name) {
            return Some(Ok(output.data_type));
        }
        let schema = self.schema?;
        let column = self.source.file_column(name);
        Some(match schema.field_with_name(column) {
            Err(_) => Err(no_column(column, &self.source.name, schema)),
            Ok(field) => DataType::of_arrow(field.data_type()).ok_or_else(|| {
                format!(
                    "column `{column}` of source `{}` is {}, which no type of a \
                     feature holds; write it to the file as another type, or leave it out",
                    self.source.name,
                    field.data_type()
                )
            }),
        })
    }

    /// Whether the column `name` is text that is read as whatever type a definition says.
    pub(super) fn is_of_any_type(&self, name: &str) -> bool {
        let schema = self.schema.filter(|_| self.output(name).is_none());
        let field = schema.and_then(|s| s.field_with_name(self.source.file_column(name)).ok());
        field.is_some_and(|field| field.metadata().contains_key(FOLDER_COLUMN))
    }

    /// The output called `name`, if there is a batch component that gives it.
    pub(super) fn output(&self, name: &str) -> Option<&Field> {
        let batch = self.batch?;
        batch
            .output(name)
            .and_then(|output| batch.description.outputs.get(output))
    }

    /// What a message calls that from which the column `name` comes.
    pub(super) fn name_of(&self, name: &str) -> String {
        match self.batch {
            Some(batch) if batch.output(name).is_some() => {
                format!("transformation `{}`", batch.name)
            }
            _ => format!("source `{}`", self.source.name),
        }
    }
}

impl<'a> Resolver<'a> {
    pub(super) fn views(&mut self, batch: &Batch) {
        for located in &self.definitions.feature_views {
            if located.value.alias_of.is_none()
                && let Some(view) = self.view(located, batch)
            {
                self.project.views.insert(located.value.name.clone(), view);
            }
        }
    }

    /// The view, or `None` if anything is wrong with it or with what it names; all that can be
    /// checked is checked then too.
    fn view(
        &mut self,
        Located {
            value: shape,
            place,
        }: &'a Located<FeatureViewShape>,
        batch: &Batch,
    ) -> Option<Defined<FeatureView>> {
        let before = self.problems.0.len();
        if shape.join_keys.is_some() {
            let message =
                "`join_keys` belongs to an alias; a view has the join keys of its entities";
            self.problems.at(&place.at("join_keys"), message);
        }
        let entities = self.view_entities(shape, place);
        let source = self.view_source(shape, place);
        let transformation = self.view_transformation(shape, place, batch);
        let ttl = self.view_ttl(shape, place);
        let keys = entities.and_then(|entities| self.view_keys(&entities, place));
        let origin = source.as_ref().zip(transformation);
        let origin = origin.map(|(source, batch)| Origin {
            source,
            schema: self.schema(&source.name),
            batch,
        });
        let known_keys = keys.as_deref().unwrap_or_default();
        let features = self.view_features(shape, place, known_keys, origin);
        let mut batch = None;
        if let Some(origin) = origin {
            self.view_key_columns(known_keys, &origin, place);
            batch = origin
                .batch
                .map(|transformation| self.view_batch(transformation, &origin, place));
        }
        transformation?;
        let view = View {
            name: shape.name.clone(),
            source: source?,
            keys: keys?,
            features,
            ttl,
            online: shape.online.unwrap_or(true),
            batch,
        };
        // A feature whose type cannot be known has no problem of its own.
        let is_whole = view.features.len() == shape.features.iter().flatten().count();
        (is_whole && self.problems.0.len() == before).then(|| Defined {
            value: FeatureView {
                entities: shape.entities.clone().unwrap_or_default(),
                view: Arc::new(view),
            },
            about: about!(shape, shape.features.iter().flatten()),
        })
    }

    /// In microseconds; `None`: no limit.
    fn view_ttl(&mut self, shape: &FeatureViewShape, place: &Place) -> Option<i64> {
        match Span::parse(&shape.ttl.as_ref()?.0) {
            Ok(ttl) => Some(ttl.0).filter(|ttl| *ttl > 0),
            Err(message) => {
                self.problems.at(&place.at("ttl"), message);
                None
            }
        }
    }

    /// Join keys are columns of the source, or outputs of the batch transformation, of their types.
    fn view_key_columns(&mut self, keys: &[JoinKey], origin: &Origin<'_>, place: &Place) {
        let at = place.at("entities");
        let is_integer = |data_type| {
            let integers = [ScalarType::Int32, ScalarType::Int64].map(DataType::Scalar);
            integers.contains(&data_type)
        };
        for key in keys {
            let wanted = DataType::Scalar(key.data_type);
            match origin.column(&key.name) {
                Some(Err(message)) => {
                    let message = format!("join key `{}`: {message}", key.name);
                    self.problems.at(&at, message);
                }
                Some(Ok(found)) if found.widens_to(wanted) || origin.is_of_any_type(&key.name) => {}
                // Value by value, an integer of a file that is too great for its key is an error. A
                // component's author has the type in hand, and an error there would come late.
                Some(Ok(found))
                    if origin.output(&key.name).is_none()
                        && is_integer(found)
                        && is_integer(wanted) => {}
                Some(Ok(found)) => {
                    let message = format!(
                        "join key `{}` is {wanted}, and in {} it is {found}",
                        key.name,
                        origin.name_of(&key.name)
                    );
                    self.problems.at(&at, message);
                }
                None => {}
            }
        }
    }

    fn view_entities(&mut self, shape: &FeatureViewShape, place: &Place) -> Option<Vec<String>> {
        let Some(entities) = &shape.entities else {
            let message = "`entities` is missing; write `entities: []` for one row for everybody";
            self.problems.at(place, message);
            return None;
        };
        let omitted = &self.definitions.omitted.entities;
        let mut seen = BTreeSet::new();
        let mut known = true;
        for (index, name) in entities.iter().enumerate() {
            let at = place.at("entities").at(index);
            // What was left out has its own problem.
            if omitted.contains(name) {
                known = false;
            } else if !self
                .definitions
                .entities
                .iter()
                .any(|d| d.value.name == *name)
            {
                if !omitted.is_nameless {
                    let valid = text::list(self.definitions.entities.iter().map(|d| &d.value.name));
                    self.problems
                        .at(&at, format!("no entity `{name}`; there are: {valid}"));
                }
                known = false;
            } else if !seen.insert(name) {
                self.problems
                    .at(&at, format!("entity `{name}` occurs twice"));
                known = false;
            }
        }
        known.then(|| entities.clone())
    }

    fn view_keys(&mut self, entities: &[String], place: &Place) -> Option<Vec<JoinKey>> {
        let mut keys: Vec<JoinKey> = Vec::new();
        for entity in entities {
            // An entity that could not be resolved has its own problem.
            for key in &self.project.entities.get(entity)?.value.join_keys {
                if keys.iter().any(|other| other.name == key.name) {
                    let message =
                        format!("two entities have a join key `{}`; rename one", key.name);
                    self.problems.at(&place.at("entities"), message);
                    return None;
                }
                keys.push(key.clone());
            }
        }
        Some(keys)
    }

    fn view_source(&mut self, shape: &FeatureViewShape, place: &Place) -> Option<Source> {
        let valid = text::list(self.definitions.sources.iter().map(|d| &d.value.name));
        let Some(name) = &shape.source else {
            self.problems
                .at(place, format!("`source` is missing; there are: {valid}"));
            return None;
        };
        let source = self.source(name).cloned();
        let omitted = &self.definitions.omitted.sources;
        if source.is_none() && !omitted.contains(name) && !omitted.is_nameless {
            self.problems.at(
                &place.at("source"),
                format!("no source `{name}`; there are: {valid}"),
            );
        }
        source
    }

    /// The batch transformation of a view: `Some(None)` if it has none, `None` if it is wrong.
    fn view_transformation<'b>(
        &mut self,
        shape: &FeatureViewShape,
        place: &Place,
        batch: &'b Batch,
    ) -> Option<Option<&'b Transformation>> {
        let Some(name) = &shape.transformation else {
            return Some(None);
        };
        let omitted = &self.definitions.omitted.transformations;
        // What was left out has its own problem.
        if omitted.contains(name) {
            return None;
        }
        if let Some(transformation) = batch.get(name) {
            return Some(Some(&transformation.value));
        }
        let defined = self
            .definitions
            .transformations
            .iter()
            .find(|d| d.value.name == *name);
        let of_kind = self
            .definitions
            .transformations
            .iter()
            .filter(|d| d.value.kind == Kind::Batch);
        let valid = text::list(of_kind.map(|d| &d.value.name));
        match defined.map(|d| d.value.kind) {
            None if omitted.is_nameless => {}
            None => {
                let message =
                    format!("no transformation `{name}`; of kind batch there are: {valid}");
                self.problems.at(&place.at("transformation"), message);
            }
            Some(Kind::OnDemand) => {
                let message = format!(
                    "transformation `{name}` is of kind on_demand; a view takes one of kind batch: \
                     {valid}"
                );
                self.problems.at(&place.at("transformation"), message);
            }
            // It could not be resolved, which is a problem of its own.
            Some(Kind::Batch) => {}
        }
        None
    }

    /// The features that could be resolved; the others have their problems.
    fn view_features(
        &mut self,
        shape: &FeatureViewShape,
        place: &Place,
        keys: &[JoinKey],
        origin: Option<Origin<'_>>,
    ) -> Vec<Field> {
        let list = place.at("features");
        let shapes = shape.features.as_deref().unwrap_or_default();
        if shapes.is_empty() {
            let message = "a view needs `features`; at least one";
            self.problems.at(place, message);
        }
        let mut names = BTreeSet::new();
        let mut features = Vec::with_capacity(shapes.len());
        for (index, feature) in shapes.iter().enumerate() {
            let at = list.at(index);
            self.column_name(&feature.name, "feature", &at.at("name"));
            if !names.insert(&feature.name) {
                let message = format!("feature `{}` occurs twice", feature.name);
                self.problems.at(&at, message);
            }
            if keys.iter().any(|key| key.name == feature.name) {
                let message = format!(
                    "`{}` is a join key of this view, and cannot be its feature too",
                    feature.name
                );
                self.problems.at(&at, message);
            }
            if let Some(data_type) = self.feature_type(feature, &at, origin) {
                features.push(Field {
                    description: feature.description.clone().unwrap_or_default(),
                    ..Field::new(&feature.name, data_type)
                });
            }
        }
        features
    }

    /// The declared type of a feature, or else that of its column or output.
    fn feature_type(
        &mut self,
        feature: &FeatureShape,
        at: &Place,
        origin: Option<Origin<'_>>,
    ) -> Option<DataType> {
        let declared = feature.data_type.as_ref().map(|text| text.parse());
        let declared: Option<DataType> = declared.transpose().unwrap_or_else(|error| {
            self.problems.at(&at.at("type"), error);
            None
        });
        let origin = origin?;
        if let Some(batch) = origin.batch
            && batch.output(&feature.name).is_none()
        {
            let message = format!(
                "transformation `{}` has no output `{}`; it has: {}",
                batch.name,
                feature.name,
                text::list(batch.description.outputs.iter().map(|field| &field.name))
            );
            self.problems.at(at, message);
            return None;
        }
        // Where the source could not be read, which is a problem of its own, the declared type is
        // all there is.
        let Some(column) = origin.column(&feature.name) else {
            return declared;
        };
        let found = column
            .map_err(|message| self.problems.at(at, message))
            .ok()?;
        match declared {
            Some(declared)
                if !found.widens_to(declared) && !origin.is_of_any_type(&feature.name) =>
            {
                let message = format!(
                    "feature `{}` is declared {declared}, and in {} it is {found}",
                    feature.name,
                    origin.name_of(&feature.name)
                );
                self.problems.at(&at.at("type"), message);
                None
            }
            Some(declared) => Some(declared),
            None => Some(found),
        }
    }
}
