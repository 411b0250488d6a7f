//! `unskew describe`: everything about one definition.

use anyhow::bail;
use serde_json::{Value, json};
use unskew_core::component::Kind as TransformationKind;
use unskew_core::plan::{Binding, FeaturePlan};
use unskew_core::planner::plan_service;
use unskew_core::project::{About, Alias, Defined, Project, Reference, Transformation};
use unskew_core::text;
use unskew_core::types::Field;
use unskew_core::view::View;
use unskew_store::FeatureStore;

use crate::Outcome;
use crate::arguments::{self, Kind};
use crate::commands::list::{States, join_keys, named_keys, span};
use crate::commands::transform::fields;
use crate::document::{Document, Rows};
use crate::output::Output;
use crate::repository;

/// Describes one definition.
pub(crate) async fn run(
    arguments: &arguments::Describe,
    output: &Output,
) -> anyhow::Result<Outcome> {
    let store = repository::open()?;
    let (project, name) = (&store.state().await?.project, arguments.name.as_str());
    let description = match arguments.kind {
        Kind::Entities => entity(project, name)?,
        Kind::Sources => source(project, name)?,
        Kind::FeatureViews => view(&store, project, name).await?,
        Kind::Transformations => transformation(project, name)?,
        Kind::FeatureServices => service(project, name)?,
    };
    output.print(&description, Document::text)?;
    Ok(Outcome::Done)
}

fn unknown<'a, T>(
    what: &str,
    name: &str,
    names: impl IntoIterator<Item = &'a String>,
) -> anyhow::Result<T> {
    bail!(
        "no {what} `{name}` is applied; there are: {}",
        text::list(names)
    )
}

/// The beginning of every description.
fn begin(kind: &str, name: &str, about: &About) -> Document {
    let mut document = Document::default();
    document.value("kind", kind);
    document.value("name", name);
    document.value("description", about.description.as_deref());
    document.value("owner", about.owner.as_deref());
    document.value("tags", json!(about.tags));
    document
}

fn entity(project: &Project, name: &str) -> anyhow::Result<Document> {
    let Some(defined) = project.entities.get(name) else {
        return unknown("entity", name, project.entities.keys());
    };
    let mut document = begin("entity", name, &defined.about);
    let mut keys = Rows::new(["name", "type", "description"]);
    for key in &defined.value.join_keys {
        let about = defined.about.members.get(&key.name);
        let description = about.and_then(|about| about.description.as_deref());
        keys.row([json!(key.name), json!(key.data_type), json!(description)]);
    }
    document.rows("join_keys", keys);
    let views = project.views.values();
    let views = views.filter(|view| view.value.entities.iter().any(|entity| entity == name));
    document.value(
        "feature_views",
        views
            .map(|view| view.value.view.name.as_str())
            .collect::<Value>(),
    );
    Ok(document)
}

fn source(project: &Project, name: &str) -> anyhow::Result<Document> {
    let Some(defined) = project.sources.get(name) else {
        return unknown("source", name, project.sources.keys());
    };
    let source = &defined.value;
    let mut document = begin("source", name, &defined.about);
    document.value("path", source.path.as_str());
    document.value("timestamp_field", source.timestamp_field.as_str());
    document.value(
        "created_timestamp_column",
        source.created_timestamp_column.as_deref(),
    );
    document.value("point_in_time", json!(source.point_in_time));
    document.value(
        "late_by",
        span((source.late_by > 0).then_some(source.late_by)),
    );
    document.value("columns", json!(source.columns));
    document.value(
        "partition",
        source.partition.as_ref().map(|partition| {
            json!({
                "column": partition.column,
                "of": source.timestamp_field,
                "slack": span(Some(partition.slack)),
            })
        }),
    );
    let views = project.views.values().map(|view| &view.value.view);
    let views = views.filter(|view| view.source.name == name);
    document.value(
        "feature_views",
        views.map(|view| view.name.as_str()).collect::<Value>(),
    );
    Ok(document)
}

/// A view, or an alias with the view behind it.
async fn view(store: &FeatureStore, project: &Project, name: &str) -> anyhow::Result<Document> {
    let states = States::of(store).await?;
    let mut document = if let Some(defined) = project.views.get(name) {
        let mut document = begin("feature view", name, &defined.about);
        document.value("entities", json!(defined.value.entities));
        document.value("join_keys", join_keys(&defined.value.view.keys));
        add_view(&mut document, &defined.value.view);
        document
    } else if let Some(defined) = project.aliases.get(name) {
        alias(project, defined)
    } else {
        return unknown(
            "feature view",
            name,
            project.views.keys().chain(project.aliases.keys()),
        );
    };
    let Some((view, _)) = project.lookup(name) else {
        return Ok(document);
    };
    document.value("digest", view.digest().to_string());
    document.value("watermark", states.watermark(&view.name));
    document.value("gaps", states.gaps(&view.name));
    document.value("unfinished", states.unfinished(&view.name));
    document.value("online_store", states.unavailable.clone());
    let aliases = project.aliases.values().map(|alias| &alias.value);
    let aliases = aliases.filter(|alias| alias.alias_of == name);
    document.value(
        "aliases",
        aliases.map(|alias| alias.name.as_str()).collect::<Value>(),
    );
    document.value("feature_services", users(project, name));
    document.rows("features", fields(&view.features));
    Ok(document)
}

fn alias(project: &Project, defined: &Defined<Alias>) -> Document {
    let alias = &defined.value;
    let mut document = begin("feature view", &alias.name, &defined.about);
    document.value("alias_of", alias.alias_of.as_str());
    if let Some((view, keys)) = project.lookup(&alias.name) {
        document.value("join_keys", named_keys(keys, &view.keys));
        add_view(&mut document, view);
    }
    document
}

fn add_view(document: &mut Document, view: &View) {
    document.value("source", view.source.name.as_str());
    document.value("source_path", view.source.path.as_str());
    document.value("point_in_time", json!(view.source.point_in_time));
    document.value(
        "transformation",
        view.batch.as_ref().map(|batch| batch.name.as_str()),
    );
    document.value("ttl", span(view.ttl));
    document.value("online", view.online);
}

/// The feature services that use a view, an alias or a transformation, be it through another
/// transformation.
fn users(project: &Project, name: &str) -> Value {
    let uses = |plan: &FeaturePlan| {
        let batch = |view: &View| view.batch.as_ref().is_some_and(|batch| batch.name == name);
        plan.lookups
            .iter()
            .any(|lookup| lookup.name == name || lookup.view.name == name || batch(&lookup.view))
            || plan.steps.iter().any(|step| step.name == name)
    };
    let services = project.services.keys();
    services
        .filter(|service| plan_service(project, service).is_ok_and(|plan| uses(&plan)))
        .map(String::as_str)
        .collect()
}

fn transformation(project: &Project, name: &str) -> anyhow::Result<Document> {
    let Some(defined) = project.transformations.get(name) else {
        return unknown("transformation", name, project.transformations.keys());
    };
    let transformation = &defined.value;
    let description = &transformation.description;
    let mut document = begin("transformation", name, &defined.about);
    document.value("transformation_kind", json!(transformation.kind));
    document.value("component", description.component.as_str());
    document.value("version", description.version.as_str());
    document.value("function", description.function.as_str());
    document.value("documentation", description.documentation.as_str());
    document.value("digest", transformation.component.to_string());
    document.value("on_error", json!(transformation.on_error));
    match transformation.kind {
        TransformationKind::OnDemand => document.value("feature_services", users(project, name)),
        TransformationKind::Batch => {
            let views = project.views.values().map(|view| &view.value.view);
            let views =
                views.filter(|view| view.batch.as_ref().is_some_and(|batch| batch.name == name));
            document.value(
                "feature_views",
                views.map(|view| view.name.as_str()).collect::<Value>(),
            );
        }
    }
    document.rows("inputs", inputs(transformation));
    document.rows("outputs", fields(&description.outputs));
    Ok(document)
}

/// Each input with where it comes from.
fn inputs(transformation: &Transformation) -> Rows {
    let mut rows = Rows::new(["name", "type", "nullable", "from", "default", "description"]);
    let inputs = transformation
        .description
        .inputs
        .iter()
        .zip(&transformation.inputs);
    for (field, input) in inputs {
        rows.row([
            json!(field.name),
            json!(field.data_type),
            json!(field.nullable),
            json!(origin(&input.from)),
            json!(input.default),
            json!(field.description),
        ]);
    }
    rows
}

/// A reference in the form of a definition.
fn origin(reference: &Reference) -> String {
    match reference {
        Reference::Member(name, member) => format!("{name}:{member}"),
        Reference::Key(key) => format!("key:{key}"),
        Reference::Request(field) => format!("request:{field}"),
        Reference::Column(column) => column.clone(),
        Reference::Constant(value) => format!("value {}", value.0),
        Reference::EventTimestamp => "event_timestamp".to_owned(),
    }
}

fn service(project: &Project, name: &str) -> anyhow::Result<Document> {
    let Some(defined) = project.services.get(name) else {
        return unknown("feature service", name, project.services.keys());
    };
    let plan = plan_service(project, name)?;
    let mut document = begin("feature service", name, &defined.about);
    document.value("full_feature_names", defined.value.full_feature_names);
    document.value("plan", plan.digest().to_string());
    document.rows("entities", named(&plan.join_keys));
    document.rows("request", named(&plan.request_fields));
    let mut features = Rows::new(["name", "type", "from", "description"]);
    for output in &plan.outputs {
        let (from, description) = provenance(&plan, &output.binding);
        features.row([
            json!(output.name),
            json!(output.data_type),
            json!(from),
            json!(description),
        ]);
    }
    document.rows("features", features);
    let mut views = Rows::new(["name", "view", "ttl", "digest"]);
    for lookup in &plan.lookups {
        views.row([
            json!(lookup.name),
            json!(lookup.view.name),
            span(lookup.view.ttl),
            json!(lookup.view.digest().to_string()),
        ]);
    }
    document.rows("feature_views", views);
    let mut steps = Rows::new(["name", "component", "version", "digest"]);
    for step in &plan.steps {
        steps.row([
            json!(step.name),
            json!(step.description.component),
            json!(step.description.version),
            json!(step.component.to_string()),
        ]);
    }
    document.rows("transformations", steps);
    Ok(document)
}

/// Columns that entity rows must have.
fn named(fields: &[Field]) -> Rows {
    let mut rows = Rows::new(["name", "type"]);
    for field in fields {
        rows.row([json!(field.name), json!(field.data_type)]);
    }
    rows
}

/// `VIEW:FEATURE` or `TRANSFORMATION:OUTPUT`, and what its author says about it.
fn provenance(plan: &FeaturePlan, binding: &Binding) -> (String, String) {
    let member = match *binding {
        Binding::Feature { lookup, feature } => plan.lookups.get(lookup).and_then(|lookup| {
            let field = lookup.used().nth(feature)?;
            Some((&lookup.name, field))
        }),
        Binding::Output { step, output } => plan.steps.get(step).and_then(|step| {
            let field = step.description.outputs.get(output)?;
            Some((&step.name, field))
        }),
        _ => None,
    };
    member.map_or_else(Default::default, |(name, field)| {
        (format!("{name}:{}", field.name), field.description.clone())
    })
}
