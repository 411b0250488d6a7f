//! Transformations: their components, and where the inputs of these come from.

use std::collections::{BTreeMap, BTreeSet};

use super::{Broken, Resolver, about};
use crate::component::{Description, Kind};
use crate::definitions::shape::{InputShape, TransformationShape};
use crate::definitions::{Located, Place, is_name};
use crate::digest::Digest;
use crate::json::Literal;
use crate::plan::EVENT_TIMESTAMP;
use crate::planner::{key_names, key_types};
use crate::project::{Defined, InputDefinition, Reference, Transformation};
use crate::text;
use crate::types::{DataType, Field, ScalarType};

/// A transformation whose component is known; of its inputs those whose bindings can be read.
struct Bound<'a> {
    shape: &'a TransformationShape,
    place: &'a Place,
    component: Digest,
    description: Description,
    /// One for each of the component's.
    inputs: Vec<Option<InputDefinition>>,
    is_sound: bool,
}

impl Bound<'_> {
    /// The transformation, if nothing is wrong with it.
    fn whole(&self) -> Option<Defined<Transformation>> {
        let inputs = self.inputs.iter().cloned().collect::<Option<_>>()?;
        self.is_sound.then(|| Defined {
            value: Transformation {
                name: self.shape.name.clone(),
                kind: self.shape.kind,
                component: self.component,
                description: self.description.clone(),
                on_error: self.shape.on_error.0,
                inputs,
            },
            about: about!(self.shape),
        })
    }
}

impl<'a> Resolver<'a> {
    /// The transformations of kind batch; the types of their columns are checked by each view.
    pub(super) fn batch_transformations(&mut self) -> BTreeMap<String, Defined<Transformation>> {
        let bound = self.bound(Kind::Batch);
        let named = |one: &Bound<'_>| Some((one.shape.name.clone(), one.whole()?));
        bound.iter().filter_map(named).collect()
    }

    /// The transformations of kind on_demand, whose inputs may be outputs of each other.
    pub(super) fn on_demand_transformations(&mut self) {
        let bound = self.bound(Kind::OnDemand);
        for one in &bound {
            if let Some(transformation) = one.whole() {
                let name = one.shape.name.clone();
                self.project.transformations.insert(name, transformation);
            }
        }
        let broken = self.broken();
        let mut wrong = Vec::new();
        for one in &bound {
            let before = self.problems.0.len();
            self.check_inputs(one, &broken);
            if self.problems.0.len() > before {
                wrong.push(&one.shape.name);
            }
        }
        self.cycles();
        // Whatever refers to one of these has no problem of its own.
        for name in wrong {
            self.project.transformations.remove(name);
        }
    }

    fn bound(&mut self, kind: Kind) -> Vec<Bound<'a>> {
        let all = self.definitions.transformations.iter();
        all.filter(|located| located.value.kind == kind)
            .filter_map(|located| self.bind(located))
            .collect()
    }

    fn bind(
        &mut self,
        Located {
            value: shape,
            place,
        }: &'a Located<TransformationShape>,
    ) -> Option<Bound<'a>> {
        let before = self.problems.0.len();
        let unknown = match self.surroundings.components.get(&shape.name) {
            Some(Ok((_, description))) if description.kind != shape.kind => {
                let message = format!(
                    "`{}` is declared {}, and its component is of kind {}",
                    shape.name, shape.kind, description.kind
                );
                self.problems.at(&place.at("kind"), message);
                return None;
            }
            Some(Ok((component, description))) => {
                self.output_names(shape.kind, description, &place.at("component"));
                return Some(Bound {
                    shape,
                    place,
                    component: *component,
                    description: description.clone(),
                    inputs: self.inputs(shape, place, description),
                    is_sound: self.problems.0.len() == before,
                });
            }
            Some(Err(message)) => message.as_str(),
            None => "the component was not loaded",
        };
        self.problems.at(&place.at("component"), unknown);
        None
    }

    fn output_names(&mut self, kind: Kind, description: &Description, place: &Place) {
        let mut outputs = description.outputs.iter();
        if kind == Kind::OnDemand && outputs.any(|field| field.name == EVENT_TIMESTAMP) {
            let message = format!(
                "the component has an output `{EVENT_TIMESTAMP}`, a reserved name; rename it there"
            );
            self.problems.at(place, message);
        }
    }

    /// One binding for each input of the component.
    fn inputs(
        &mut self,
        shape: &TransformationShape,
        place: &Place,
        description: &Description,
    ) -> Vec<Option<InputDefinition>> {
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
        let fields = description.inputs.iter();
        fields
            .map(|field| match shape.inputs.get(&field.name) {
                Some(input) => self.input(field, input, shape.kind, &list.at(&field.name)),
                None => {
                    let example = match shape.kind {
                        Kind::OnDemand => "VIEW:FEATURE",
                        Kind::Batch => "COLUMN",
                    };
                    let message = format!(
                        "input `{0}` ({1}) of the component has no binding; write where it comes \
                         from, such as `{0}: {example}`",
                        field.name, field.data_type
                    );
                    self.problems.at(&list, message);
                    None
                }
            })
            .collect()
    }

    fn input(
        &mut self,
        field: &Field,
        input: &InputShape,
        kind: Kind,
        at: &Place,
    ) -> Option<InputDefinition> {
        let (from, default) = match input {
            InputShape::Reference(reference) => (self.reference(reference, kind, at), None),
            InputShape::WithDefault(input) => {
                let default = input.default.clone().filter(|value| !value.is_null());
                let default = default.map(Literal);
                if let Some(default) = &default {
                    self.literal(default, field, &at.at("default"));
                }
                (self.reference(&input.from, kind, at), default)
            }
            InputShape::Constant(constant) => {
                let value = Literal(constant.value.clone());
                self.literal(&value, field, &at.at("value"));
                (Some(Reference::Constant(value)), None)
            }
        };
        from.map(|from| InputDefinition { from, default })
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
    fn check_inputs(&mut self, bound: &Bound<'_>, broken: &Broken<'_>) {
        let fields = bound.description.inputs.iter();
        for (field, input) in fields.zip(&bound.inputs) {
            let Some(input) = input else { continue };
            let at = bound.place.at("inputs").at(&field.name);
            match self.reference_type(&input.from, broken) {
                Err(message) => self.problems.at(&at, message),
                Ok(Some(found)) if !found.widens_to(field.data_type) => {
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
                Ok(_) => {}
            }
        }
    }

    /// The type of what a reference names, where that is known; an error if it names nothing.
    fn reference_type(
        &self,
        reference: &Reference,
        broken: &Broken<'_>,
    ) -> Result<Option<DataType>, String> {
        match reference {
            Reference::Member(owner, _) if broken.contains(owner) => Ok(None),
            Reference::Member(owner, member) => {
                self.member(owner, Some(member))?;
                let members = self.project.members(owner).unwrap_or_default();
                let found = members.iter().find(|field| field.name == *member);
                Ok(found.map(|field| field.data_type))
            }
            Reference::Key(key) => match key_types(&self.project, key).as_slice() {
                [] if self.knows_all_keys() => {
                    let valid = text::list(key_names(&self.project));
                    Err(format!("no join key `{key}`; there are: {valid}"))
                }
                [one] => Ok(Some(*one)),
                // Several types: the plan of each service decides.
                _ => Ok(None),
            },
            Reference::EventTimestamp => Ok(Some(DataType::Scalar(ScalarType::Timestamp))),
            Reference::Request(_) | Reference::Constant(_) | Reference::Column(_) => Ok(None),
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
            let mut seen = BTreeSet::new();
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
