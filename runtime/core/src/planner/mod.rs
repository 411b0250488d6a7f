//! From a project and the features that are wanted to a [`FeaturePlan`].

mod error;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::component::Kind;
use crate::plan::{Binding, EVENT_TIMESTAMP, FeaturePlan, Input, Lookup, Output, SEMANTICS, Step};
use crate::project::{FeatureService, Project, Reference, Transformation};
use crate::text;
use crate::types::{DataType, Field};
use crate::view::View;

pub use error::PlanError;

/// The plan of a feature service.
///
/// # Errors
/// There is no such service, or its features cannot be had together.
pub fn plan_service(project: &Project, name: &str) -> Result<FeaturePlan, PlanError> {
    let service = project
        .services
        .get(name)
        .ok_or_else(|| PlanError::UnknownService {
            name: name.to_owned(),
            valid: text::list(project.services.keys()),
        })?;
    let service = &service.value;
    plan_features(
        project,
        Some(name),
        &service.features,
        service.full_feature_names,
    )
}

/// The plan of features named one by one: `VIEW`, `VIEW:FEATURE`, `TRANSFORMATION`,
/// `TRANSFORMATION:OUTPUT`.
///
/// # Errors
/// The features cannot be had together.
pub fn plan_features(
    project: &Project,
    service: Option<&str>,
    features: &[String],
    full_feature_names: bool,
) -> Result<FeaturePlan, PlanError> {
    let mut planner = Planner::new(project);
    let outputs = planner.outputs(features, full_feature_names)?;
    match planner
        .clashes(&outputs, full_feature_names)
        .into_iter()
        .next()
    {
        Some(clash) => Err(clash),
        None => Ok(planner.finish(service, outputs)),
    }
}

/// All that keeps the features of a service from being had together.
pub(crate) fn service_problems(project: &Project, service: &FeatureService) -> Vec<PlanError> {
    let mut planner = Planner::new(project);
    match planner.outputs(&service.features, service.full_feature_names) {
        Ok(outputs) => planner.clashes(&outputs, service.full_feature_names),
        Err(error) => vec![error],
    }
}

/// An output, and the reference that it comes from.
struct Wanted {
    from: String,
    output: Output,
}

struct Planner<'a> {
    project: &'a Project,
    join_keys: Vec<Field>,
    request_fields: Vec<(String, Field)>,
    lookups: Vec<Lookup>,
    steps: Vec<Step>,
    /// The transformations that are being planned, for cycles.
    open: Vec<&'a str>,
}

impl<'a> Planner<'a> {
    fn new(project: &'a Project) -> Self {
        Self {
            project,
            join_keys: Vec::new(),
            request_fields: Vec::new(),
            lookups: Vec::new(),
            steps: Vec::new(),
            open: Vec::new(),
        }
    }

    /// The outputs that `features` name; their lookups and steps are planned.
    fn outputs(&mut self, features: &[String], full_names: bool) -> Result<Vec<Wanted>, PlanError> {
        let project = self.project;
        let mut outputs = Vec::new();
        for reference in features {
            let (owner, member) = match reference.split_once(':') {
                Some((owner, member)) => (owner, Some(member)),
                None => (reference.as_str(), None),
            };
            let members = project
                .members(owner)
                .ok_or_else(|| self.unknown_view(owner))?;
            let members: Vec<&str> = match member {
                Some(member) => vec![member],
                None => members.iter().map(|field| field.name.as_str()).collect(),
            };
            for member in members {
                let (binding, data_type) = self.member(owner, member)?;
                let name = if full_names {
                    format!("{owner}__{member}")
                } else {
                    member.to_owned()
                };
                outputs.push(Wanted {
                    from: format!("{owner}:{member}"),
                    output: Output {
                        name,
                        data_type,
                        binding,
                    },
                });
            }
        }
        if outputs.is_empty() {
            return Err(PlanError::Empty);
        }
        Ok(outputs)
    }

    fn unknown_view(&self, name: &str) -> PlanError {
        let on_demand = self
            .project
            .transformations
            .values()
            .map(|defined| &defined.value);
        let on_demand = on_demand
            .filter(|t| t.kind == Kind::OnDemand)
            .map(|t| t.name.as_str());
        PlanError::UnknownView {
            name: name.to_owned(),
            valid: text::list(self.project.lookup_names().chain(on_demand)),
        }
    }

    /// The binding of a feature or an output, which is planned if it was not yet. Features are
    /// bound by their index in the view until `finish`.
    fn member(&mut self, owner: &str, member: &str) -> Result<(Binding, DataType), PlanError> {
        let project = self.project;
        let unknown = |fields: &[Field]| PlanError::UnknownFeature {
            view: owner.to_owned(),
            feature: member.to_owned(),
            valid: text::list(fields.iter().map(|field| &field.name)),
        };
        if let Some((view, keys)) = project.lookup(owner) {
            let feature = view
                .features
                .iter()
                .position(|field| field.name == member)
                .ok_or_else(|| unknown(&view.features))?;
            let data_type = view.features[feature].data_type;
            let lookup = self.lookup(owner, view, &keys)?;
            let features = &mut self.lookups[lookup].features;
            if let Err(at) = features.binary_search(&feature) {
                features.insert(at, feature);
            }
            return Ok((Binding::Feature { lookup, feature }, data_type));
        }
        let transformation = project
            .transformations
            .get(owner)
            .map(|defined| &defined.value)
            .filter(|transformation| transformation.kind == Kind::OnDemand)
            .ok_or_else(|| self.unknown_view(owner))?;
        let output = transformation
            .output(member)
            .ok_or_else(|| unknown(&transformation.description.outputs))?;
        let step = self.step(transformation)?;
        let data_type = transformation.description.outputs[output].data_type;
        Ok((Binding::Output { step, output }, data_type))
    }

    /// The index of the lookup of `view` under the name `owner` and the join keys `keys`.
    fn lookup(&mut self, owner: &str, view: &Arc<View>, keys: &[&str]) -> Result<usize, PlanError> {
        if let Some(index) = self.lookups.iter().position(|lookup| lookup.name == owner) {
            return Ok(index);
        }
        let keys = keys
            .iter()
            .zip(&view.keys)
            .map(|(name, key)| self.join_key(name, DataType::Scalar(key.data_type)))
            .collect::<Result<_, _>>()?;
        self.lookups.push(Lookup {
            name: owner.to_owned(),
            view: Arc::clone(view),
            keys,
            features: Vec::new(),
        });
        Ok(self.lookups.len() - 1)
    }

    fn step(&mut self, transformation: &'a Transformation) -> Result<usize, PlanError> {
        let name = transformation.name.as_str();
        if let Some(step) = self.steps.iter().position(|step| step.name == name) {
            return Ok(step);
        }
        if let Some(start) = self.open.iter().position(|open| *open == name) {
            let mut cycle = self.open[start..].to_vec();
            cycle.push(name);
            return Err(PlanError::Cycle(cycle.join(" → ")));
        }
        self.open.push(name);
        let fields = &transformation.description.inputs;
        let inputs = fields
            .iter()
            .zip(&transformation.inputs)
            .map(|(field, input)| {
                let binding = match &input.from {
                    Reference::Member(owner, member) => self.member(owner, member)?.0,
                    Reference::Key(key) => Binding::Key(self.bound_key(key, name, field)?),
                    Reference::Request(request) => {
                        Binding::Request(self.request_field(request, name, field)?)
                    }
                    Reference::Constant(value) => Binding::Constant(value.clone()),
                    Reference::EventTimestamp => Binding::EventTimestamp,
                    // `apply` refuses it for an on-demand transformation.
                    Reference::Column(column) => return Err(self.unknown_view(column)),
                };
                Ok(Input {
                    binding,
                    default: input.default.clone(),
                })
            })
            .collect::<Result<_, PlanError>>()?;
        self.open.pop();
        self.steps.push(Step {
            name: name.to_owned(),
            component: transformation.component,
            description: transformation.description.clone(),
            inputs,
            on_error: transformation.on_error,
        });
        Ok(self.steps.len() - 1)
    }

    /// The index of the join key `key`, to which the input `field` is bound.
    fn bound_key(
        &mut self,
        key: &str,
        transformation: &str,
        field: &Field,
    ) -> Result<usize, PlanError> {
        let index = self.key(key)?;
        let found = self.join_keys[index].data_type;
        if found.widens_to(field.data_type) {
            return Ok(index);
        }
        Err(PlanError::KeyType {
            transformation: transformation.to_owned(),
            input: field.name.clone(),
            wanted: field.data_type,
            key: key.to_owned(),
            found,
        })
    }

    /// The index of the join key `name`, whose type a view or an entity gives.
    fn key(&mut self, name: &str) -> Result<usize, PlanError> {
        if let Some(index) = self.join_keys.iter().position(|key| key.name == name) {
            return Ok(index);
        }
        let types = key_types(self.project, name);
        match types.as_slice() {
            [] => Err(PlanError::UnknownFeature {
                view: "key".to_owned(),
                feature: name.to_owned(),
                valid: text::list(key_names(self.project)),
            }),
            [one] => self.join_key(name, *one),
            [first, second, ..] => Err(PlanError::Ambiguous {
                name: name.to_owned(),
                first: format!("a join key of type {first}"),
                second: format!("one of type {second}"),
            }),
        }
    }

    fn join_key(&mut self, name: &str, data_type: DataType) -> Result<usize, PlanError> {
        if let Some(index) = self.join_keys.iter().position(|key| key.name == name) {
            let known = self.join_keys[index].data_type;
            return if known == data_type {
                Ok(index)
            } else {
                Err(PlanError::Ambiguous {
                    name: name.to_owned(),
                    first: format!("a join key of type {known}"),
                    second: format!("one of type {data_type}"),
                })
            };
        }
        self.join_keys.push(Field::new(name, data_type));
        Ok(self.join_keys.len() - 1)
    }

    fn request_field(
        &mut self,
        name: &str,
        transformation: &str,
        field: &Field,
    ) -> Result<usize, PlanError> {
        if let Some(index) = self.request_fields.iter().position(|(_, f)| f.name == name) {
            let (other, known) = &self.request_fields[index];
            return if known.data_type == field.data_type {
                Ok(index)
            } else {
                Err(PlanError::Ambiguous {
                    name: name.to_owned(),
                    first: format!("a request field of type {} for `{other}`", known.data_type),
                    second: format!("one of type {} for `{transformation}`", field.data_type),
                })
            };
        }
        let mut request = Field::new(name, field.data_type);
        request.description.clone_from(&field.description);
        self.request_fields
            .push((transformation.to_owned(), request));
        Ok(self.request_fields.len() - 1)
    }

    /// The names that stand for two things.
    fn clashes(&self, outputs: &[Wanted], full_names: bool) -> Vec<PlanError> {
        let is_key = |name: &str| self.join_keys.iter().any(|key| key.name == name);
        let is_request = |name: &str| self.request_fields.iter().any(|(_, f)| f.name == name);
        let both = self.join_keys.iter().filter(|key| is_request(&key.name));
        let mut clashes: Vec<PlanError> = both
            .map(|key| PlanError::Ambiguous {
                name: key.name.clone(),
                first: "a join key".to_owned(),
                second: "a request field".to_owned(),
            })
            .collect();
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for Wanted { from, output } in outputs {
            let other = match output.name.as_str() {
                name if is_key(name) => Some("a join key"),
                name if is_request(name) => Some("a request field"),
                EVENT_TIMESTAMP => Some("the reserved event timestamp"),
                _ => None,
            };
            if let Some(other) = other {
                clashes.push(PlanError::OutputIsInput {
                    name: output.name.clone(),
                    from: from.clone(),
                    other,
                });
            }
            let Some(first) = seen.insert(&output.name, from) else {
                continue;
            };
            let (name, first, second) = (output.name.clone(), first.to_owned(), from.clone());
            clashes.push(if first == second {
                PlanError::Repeated(first)
            } else if full_names {
                PlanError::DuplicateFullName {
                    name,
                    first,
                    second,
                }
            } else {
                PlanError::DuplicateOutput {
                    name,
                    first,
                    second,
                }
            });
        }
        clashes
    }

    fn finish(mut self, service: Option<&str>, outputs: Vec<Wanted>) -> FeaturePlan {
        // Only now it is known which features each lookup uses: bind by position among those.
        let mut outputs: Vec<Output> = outputs.into_iter().map(|wanted| wanted.output).collect();
        let inputs = self.steps.iter_mut().flat_map(|step| &mut step.inputs);
        let bindings = inputs.map(|input| &mut input.binding);
        for binding in bindings.chain(outputs.iter_mut().map(|output| &mut output.binding)) {
            if let Binding::Feature { lookup, feature } = binding
                && let Ok(position) = self.lookups[*lookup].features.binary_search(feature)
            {
                *feature = position;
            }
        }
        let request_fields = self.request_fields.into_iter();
        FeaturePlan {
            semantics: SEMANTICS,
            service: service.map(str::to_owned),
            join_keys: self.join_keys,
            request_fields: request_fields.map(|(_, field)| field).collect(),
            lookups: self.lookups,
            steps: self.steps,
            outputs,
        }
    }
}

/// The types that join keys called `name` have in views, aliases and entities; each once.
pub(crate) fn key_types(project: &Project, name: &str) -> Vec<DataType> {
    let lookups = project
        .lookup_names()
        .filter_map(|lookup| project.lookup(lookup));
    let of_views = lookups.flat_map(|(view, names)| {
        names
            .into_iter()
            .zip(&view.keys)
            .filter(|(n, _)| *n == name)
            .map(|(_, key)| key.data_type)
    });
    let entities = project
        .entities
        .values()
        .flat_map(|defined| &defined.value.join_keys);
    let of_entities = entities
        .filter(|key| key.name == name)
        .map(|key| key.data_type);
    let mut types: Vec<DataType> = of_views.chain(of_entities).map(DataType::Scalar).collect();
    types.sort();
    types.dedup();
    types
}

/// The names of all join keys of views, aliases and entities.
pub(crate) fn key_names(project: &Project) -> std::collections::BTreeSet<&str> {
    let lookups = project
        .lookup_names()
        .filter_map(|lookup| project.lookup(lookup));
    let entities = project
        .entities
        .values()
        .flat_map(|defined| &defined.value.join_keys);
    lookups
        .flat_map(|(_, names)| names)
        .chain(entities.map(|key| key.name.as_str()))
        .collect()
}
