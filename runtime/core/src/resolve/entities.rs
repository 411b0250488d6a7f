//! Entities: their join keys, whose types are declared or found in a view's source.

use std::collections::BTreeMap;

use super::views::{Batch, Origin};
use super::{Resolver, about};
use crate::definitions::shape::{EntityShape, FeatureViewShape, JoinKeyShape};
use crate::definitions::{Located, Place};
use crate::project::{Defined, Entity};
use crate::text;
use crate::types::{DataType, ScalarType};
use crate::view::JoinKey;

/// What is known of the type of a join key.
#[derive(Clone, Default)]
struct KeyType {
    known: Option<ScalarType>,
    /// Whether its definition is wrong, so that nothing gives it a type.
    is_wrong: bool,
    /// Why it is not known, where that has a problem of its own.
    has_problem: bool,
    /// The first source that has it, with a type that no join key has.
    unfit: Option<(String, DataType)>,
}

impl KeyType {
    /// Of a join key whose definition is wrong.
    fn wrong() -> Self {
        Self {
            is_wrong: true,
            has_problem: true,
            ..Self::default()
        }
    }
}

/// By entity and join key.
type KeyTypes<'a> = BTreeMap<(&'a str, &'a str), KeyType>;

impl<'a> Resolver<'a> {
    pub(super) fn entities(&mut self, batch: &Batch) {
        let mut types = self.declared_keys();
        for located in &self.definitions.feature_views {
            if located.value.alias_of.is_none() {
                self.infer_keys(located, batch, &mut types);
            }
        }
        for located in &self.definitions.entities {
            if let Some(join_keys) = self.entity_keys(located, &types) {
                let shape = &located.value;
                let entity = Entity {
                    name: shape.name.clone(),
                    join_keys,
                };
                let defined = Defined {
                    value: entity,
                    about: about!(shape, &shape.join_keys),
                };
                self.project.entities.insert(shape.name.clone(), defined);
            }
        }
    }

    fn entity_keys(
        &mut self,
        Located {
            value: shape,
            place,
        }: &Located<EntityShape>,
        types: &KeyTypes<'_>,
    ) -> Option<Vec<JoinKey>> {
        let mut join_keys = Vec::new();
        for (index, key) in shape.join_keys.iter().enumerate() {
            let found = types.get(&(shape.name.as_str(), key.name.as_str()))?;
            let name = key.name.clone();
            let valid = text::list(ScalarType::JOIN_KEYS);
            let message = match (found.known, &found.unfit) {
                (Some(data_type), _) => {
                    join_keys.push(JoinKey { name, data_type });
                    continue;
                }
                (None, _) if found.has_problem => continue,
                // The view that gives it a type may be one that was left out.
                (None, None) if self.definitions.omitted.views.any() => continue,
                (None, Some((source, unfit))) => format!(
                    "join key `{name}` is {unfit} in {source}, which no join key can be; types are \
                     {valid}"
                ),
                (None, None) => format!(
                    "join key `{name}` has no `type`, and no view's source gives it one; types are \
                     {valid}"
                ),
            };
            self.problems.at(&place.at("join_keys").at(index), message);
        }
        (join_keys.len() == shape.join_keys.len()).then_some(join_keys)
    }

    /// The declared types of join keys.
    fn declared_keys(&mut self) -> KeyTypes<'a> {
        let mut types = KeyTypes::new();
        for Located {
            value: shape,
            place,
        } in &self.definitions.entities
        {
            for (index, key) in shape.join_keys.iter().enumerate() {
                let place = place.at("join_keys").at(index);
                self.column_name(&key.name, "join key", &place.at("name"));
                let declared = match self.key_type(key, &place) {
                    None if key.data_type.is_some() => KeyType::wrong(),
                    known => KeyType {
                        known,
                        ..KeyType::default()
                    },
                };
                let names = (shape.name.as_str(), key.name.as_str());
                if types.insert(names, declared).is_some() {
                    let message = format!("join key `{}` occurs twice", key.name);
                    self.problems.at(&place, message);
                    types.insert(names, KeyType::wrong());
                }
            }
        }
        types
    }

    fn key_type(&mut self, key: &JoinKeyShape, place: &Place) -> Option<ScalarType> {
        let text = key.data_type.as_ref()?;
        match text.parse() {
            Ok(DataType::Scalar(scalar)) if ScalarType::JOIN_KEYS.contains(&scalar) => Some(scalar),
            _ => {
                let message = format!(
                    "a join key cannot be `{text}`; types are {}",
                    text::list(ScalarType::JOIN_KEYS)
                );
                self.problems.at(&place.at("type"), message);
                None
            }
        }
    }

    /// Gives join keys without a declared type that of the view's source.
    fn infer_keys(
        &mut self,
        Located {
            value: shape,
            place,
        }: &Located<FeatureViewShape>,
        batch: &Batch,
        types: &mut KeyTypes<'_>,
    ) {
        let source = shape.source.as_ref();
        let source = source.and_then(|name| self.source(name)).cloned();
        let omitted = &self.definitions.omitted.transformations;
        let transformation = shape.transformation.as_ref();
        let transformation =
            transformation.map(|name| batch.get(name).filter(|_| !omitted.contains(name)));
        // Where one of these is not known, which is a problem of its own, nor are the columns.
        let origin = match (&source, transformation) {
            (Some(_), Some(None)) | (None, _) => None,
            (Some(source), transformation) => Some(Origin {
                source,
                schema: self.schema(&source.name),
                batch: transformation.flatten().map(|defined| &defined.value),
            }),
        };
        for ((entity, key), found) in types {
            let is_of_view = shape.entities.iter().flatten().any(|name| name == entity);
            if !is_of_view || found.known.is_some() || found.is_wrong {
                continue;
            }
            let Some(origin) = origin else {
                found.has_problem = true;
                continue;
            };
            match origin.column(key) {
                Some(Ok(DataType::Scalar(scalar))) if ScalarType::JOIN_KEYS.contains(&scalar) => {
                    found.known = Some(scalar);
                }
                Some(Ok(unfit)) => found.unfit = Some((origin.name_of(key), unfit)),
                // The view names a column that is not there, or the source could not be read.
                Some(Err(message)) => {
                    found.has_problem = true;
                    let message = format!("join key `{key}`: {message}");
                    self.problems.at(&place.at("entities"), message);
                }
                None => found.has_problem = true,
            }
        }
    }
}
