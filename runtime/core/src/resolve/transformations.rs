//! Transformations: their components, and where the inputs of these come from.

use std::collections::BTreeMap;

use super::{Resolver, about};
use crate::component::{Description, Kind};
use crate::definitions::shape::{InputShape, TransformationShape};
use crate::definitions::{Located, Place, is_name};
use crate::json::Literal;
use crate::plan::EVENT_TIMESTAMP;
use crate::planner::{key_names, key_types};
use crate::project::{Defined, InputDefinition, Reference, Transformation};
use crate::text;
use crate::types::{DataType, Field, ScalarType};

impl<'a> Resolver<'a> {
    /// The transformations of kind batch; the types of their columns are checked by each view.
    pub(super) fn batch_transformations(&mut self) -> BTreeMap<String, Defined<Transformation>> {
        let of_kind = self
            .definitions
            .transformations
            .iter()
            .filter(|d| d.value.kind == Kind::Batch);
        of_kind
            .filter_map(|located| Some((located.value.name.clone(), self.transformation(located)?)))
            .collect()
    }

    /// The transformations of kind on_demand, whose inputs may be outputs of each other.
    pub(super) fn on_demand_transformations(&mut self) {
        let of_kind = || {
            self.definitions
                .transformations
                .iter()
                .filter(|d| d.value.kind == Kind::OnDemand)
        };
        for located in of_kind() {
            if let Some(transformation) = self.transformation(located) {
                self.project
                    .transformations
                    .insert(located.value.name.clone(), transformation);
            }
        }
        let mut wrong = Vec::new();
        for located in of_kind() {
            let before = self.problems.0.len();
            self.check_inputs(located);
            if self.problems.0.len() > before {
                wrong.push(&located.value.name);
            }
        }
        self.cycles();
        // Whatever refers to one of these has no problem of its own.
        for name in wrong {
            self.project.transformations.remove(name);
        }
    }

    fn transformation(
        &mut self,
        Located {
            value: shape,
            place,
        }: &'a Located<TransformationShape>,
    ) -> Option<Defined<Transformation>> {
        let before = self.problems.0.len();
        let (component, description) = match self.surroundings.components.get(&shape.name) {
            Some(Ok((digest, description))) => (*digest, description.clone()),
            Some(Err(message)) => {
                self.problems.at(&place.at("component"), message);
                return None;
            }
            None => {
                self.problems
                    .at(&place.at("component"), "the component was not loaded");
                return None;
            }
        };
        if description.kind != shape.kind {
            let message = format!(
                "`{}` is declared {}, and its component is of kind {}",
                shape.name, shape.kind, description.kind
            );
            self.problems.at(&place.at("kind"), message);
            return None;
        }
        if shape.kind == Kind::OnDemand {
            for field in &description.outputs {
                if field.name == EVENT_TIMESTAMP {
                    let message = format!("output `{EVENT_TIMESTAMP}` has a reserved name");
                    self.problems.at(&place.at("component"), message);
                }
            }
        }
        let inputs = self.inputs(shape, place, &description);
        (self.problems.0.len() == before).then(|| Defined {
            value: Transformation {
                name: shape.name.clone(),
                kind: shape.kind,
                component,
                description,
                on_error: shape.on_error.0,
                inputs,
            },
            about: about!(shape),
        })
    }

    /// One binding for each input of the component.
    fn inputs(
        &mut self,
        shape: &TransformationShape,
        place: &Place,
        description: &Description,
    ) -> Vec<InputDefinition> {
        let list = place.at("inputs");
        let names = || {
            text::list(
                description
                    .inputs
                    .iter()
                    .map(|f| format!("{} ({})", f.name, f.data_type)),
            )
        };
        for name in shape.inputs.keys() {
            if !description.inputs.iter().any(|field| field.name == *name) {
                let message = format!("the component has no input `{name}`; it has: {}", names());
                self.problems.at(&list.at(name), message);
            }
        }
        let mut inputs = Vec::new();
        for field in &description.inputs {
            let Some(input) = shape.inputs.get(&field.name) else {
                let message = format!(
                    "input `{}` ({}) of the component has no binding; write where it comes from, \
                     such as `{}: {}`",
                    field.name,
                    field.data_type,
                    field.name,
                    match shape.kind {
                        Kind::OnDemand => "VIEW:FEATURE",
                        Kind::Batch => "COLUMN",
                    }
                );
                self.problems.at(&list, message);
                continue;
            };
            let at = list.at(&field.name);
            let (from, default) = match input {
                InputShape::Reference(reference) => {
                    (self.reference(reference, shape.kind, &at), None)
                }
                InputShape::WithDefault(input) => {
                    let default = input
                        .default
                        .clone()
                        .filter(|value| !value.is_null())
                        .map(Literal);
                    if let Some(default) = &default {
                        self.literal(default, field, &at.at("default"));
                    }
                    (self.reference(&input.from, shape.kind, &at), default)
                }
                InputShape::Constant(constant) => {
                    let value = Literal(constant.value.clone());
                    self.literal(&value, field, &at.at("value"));
                    (Some(Reference::Constant(value)), None)
                }
            };
            if let Some(from) = from {
                inputs.push(InputDefinition { from, default });
            }
        }
        inputs
    }

    fn literal(&mut self, literal: &Literal, field: &Field, place: &Place) {
        match literal.column(field.data_type) {
            Err(error) => {
                let message = format!(
                    "{} is no {}, the type of input `{}`{}",
                    error.value, field.data_type, field.name, error.hint
                );
                self.problems.at(place, message);
            }
            Ok(_) if literal.0.is_null() && !field.nullable => {
                let message = format!(
                    "null is no value of input `{}`: it is not nullable",
                    field.name
                );
                self.problems.at(place, message);
            }
            Ok(_) => {}
        }
    }

    fn reference(&mut self, text: &str, kind: Kind, place: &Place) -> Option<Reference> {
        let reference = match (text.split_once(':'), kind) {
            _ if text == EVENT_TIMESTAMP => Some(Reference::EventTimestamp),
            (None, Kind::Batch) if !text.is_empty() => Some(Reference::Column(text.to_owned())),
            (Some(("key", name)), Kind::OnDemand) => Some(Reference::Key(name.to_owned())),
            (Some(("request", name)), Kind::OnDemand) if is_name(name) => {
                if name == EVENT_TIMESTAMP {
                    let message = "a request field cannot be called `event_timestamp`; bind the input \
                                   to `event_timestamp` itself";
                    self.problems.at(place, message);
                    return None;
                }
                Some(Reference::Request(name.to_owned()))
            }
            (Some((owner, member)), Kind::OnDemand) if is_name(owner) && is_name(member) => {
                Some(Reference::Member(owner.to_owned(), member.to_owned()))
            }
            _ => None,
        };
        if reference.is_none() {
            let valid = match kind {
                Kind::OnDemand => {
                    "VIEW:FEATURE, TRANSFORMATION:OUTPUT, key:JOIN_KEY, request:FIELD, \
                     event_timestamp, {value: CONSTANT}"
                }
                Kind::Batch => "a column of the source, event_timestamp, {value: CONSTANT}",
            };
            let message = format!(
                "`{text}` says not where the input of a transformation of kind {kind} comes from; \
                 valid: {valid}"
            );
            self.problems.at(place, message);
        }
        reference
    }

    /// The references of an on-demand transformation exist, and are of the inputs' types.
    fn check_inputs(
        &mut self,
        Located {
            value: shape,
            place,
        }: &Located<TransformationShape>,
    ) {
        let Some(defined) = self.project.transformations.get(&shape.name) else {
            return;
        };
        let transformation = defined.value.clone();
        let broken = self.broken();
        for (field, input) in transformation
            .description
            .inputs
            .iter()
            .zip(&transformation.inputs)
        {
            let at = place.at("inputs").at(&field.name);
            let found = match &input.from {
                Reference::Member(owner, _) if broken.contains(owner.as_str()) => continue,
                Reference::Member(owner, member) => match self.member(owner, Some(member)) {
                    Err(message) => {
                        self.problems.at(&at, message);
                        continue;
                    }
                    Ok(()) => {
                        let members = self.project.members(owner).unwrap_or_default();
                        let found = members.iter().find(|field| field.name == *member);
                        match found {
                            Some(field) => field.data_type,
                            None => continue,
                        }
                    }
                },
                Reference::Key(key) => match key_types(&self.project, key).as_slice() {
                    [] if broken.is_empty() => {
                        let valid = text::list(key_names(&self.project));
                        self.problems
                            .at(&at, format!("no join key `{key}`; there are: {valid}"));
                        continue;
                    }
                    [one] => *one,
                    // Several types: the plan of each service decides.
                    _ => continue,
                },
                Reference::EventTimestamp => DataType::Scalar(ScalarType::Timestamp),
                Reference::Request(_) | Reference::Constant(_) | Reference::Column(_) => continue,
            };
            if !found.widens_to(field.data_type) {
                let bound = match &input.from {
                    Reference::Member(owner, member) => format!("{owner}:{member}"),
                    Reference::Key(key) => format!("key:{key}"),
                    _ => EVENT_TIMESTAMP.to_owned(),
                };
                let message = format!(
                    "input `{}` of the component is {}, and `{bound}` is {found}",
                    field.name, field.data_type
                );
                self.problems.at(&at, message);
            }
        }
    }

    /// Reports each cycle of transformations once, at its first by name.
    fn cycles(&mut self) {
        let edges = |name: &str| -> Vec<String> {
            let transformation = self.project.transformations.get(name);
            let inputs = transformation
                .into_iter()
                .flat_map(|defined| &defined.value.inputs);
            inputs
                .filter_map(|input| match &input.from {
                    Reference::Member(owner, _)
                        if self.project.transformations.contains_key(owner) =>
                    {
                        Some(owner.clone())
                    }
                    _ => None,
                })
                .collect()
        };
        let mut found = Vec::new();
        for start in self.project.transformations.keys() {
            // A path back to `start` through names that are not before it.
            let mut paths = vec![vec![start.clone()]];
            let mut seen = std::collections::BTreeSet::new();
            while let Some(path) = paths.pop() {
                let Some(last) = path.last() else { continue };
                for next in edges(last) {
                    if next == *start {
                        found.push(path.clone());
                        paths.clear();
                        break;
                    }
                    if next > *start && seen.insert(next.clone()) {
                        paths.push(path.iter().cloned().chain([next]).collect());
                    }
                }
            }
        }
        for path in found {
            let located = self
                .definitions
                .transformations
                .iter()
                .find(|d| d.value.name == path[0]);
            if let Some(Located { place, .. }) = located {
                let cycle = path
                    .iter()
                    .chain(path.first())
                    .map(String::as_str)
                    .collect::<Vec<_>>();
                let message = format!("a cycle of transformations: {}", cycle.join(" → "));
                self.problems.at(&place.at("inputs"), message);
            }
        }
    }
}
