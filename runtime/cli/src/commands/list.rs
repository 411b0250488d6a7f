//! `unskew list`: what is applied, and how far each view is materialized.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use unskew_core::planner::plan_service;
use unskew_core::project::Project;
use unskew_core::time::Span;
use unskew_core::view::JoinKey;
use unskew_store::{FeatureStore, StoreError, ViewStatus};

use crate::Outcome;
use crate::arguments::{self, Kind};
use crate::commands::materialize::{gap, instant};
use crate::document::{Document, Rows};
use crate::output::Output;
use crate::repository;

/// Lists one kind, or all.
pub(crate) async fn run(arguments: &arguments::List, output: &Output) -> anyhow::Result<Outcome> {
    let store = repository::open()?;
    let project = &store.state().await?.project;
    let mut list = Document::default();
    let kinds = Kind::ALL.into_iter();
    for kind in kinds.filter(|kind| arguments.kind.is_none_or(|only| only == *kind)) {
        match kind {
            Kind::Entities => list.rows("entities", entities(project)),
            Kind::Sources => list.rows("sources", sources(project)),
            Kind::FeatureViews => {
                let states = States::of(&store).await?;
                list.rows("feature_views", views(project, &states));
                list.value("online_store", states.unavailable);
            }
            Kind::Transformations => list.rows("transformations", transformations(project)),
            Kind::FeatureServices => list.rows("feature_services", services(project)),
        }
    }
    output.print(&list, Document::text)?;
    Ok(Outcome::Done)
}

/// How far the views are materialized, as far as the online store can say.
pub(crate) struct States {
    views: BTreeMap<String, ViewStatus>,
    /// Why it cannot; null if it can.
    pub(crate) unavailable: Value,
}

impl States {
    /// Asks the online store. That it is down is no error: definitions can be listed without it.
    pub(crate) async fn of(store: &FeatureStore) -> anyhow::Result<Self> {
        match store.status().await {
            Ok(views) => Ok(Self {
                views: views
                    .into_iter()
                    .map(|view| (view.view.clone(), view))
                    .collect(),
                unavailable: Value::Null,
            }),
            Err(StoreError::Online(error)) => Ok(Self {
                views: BTreeMap::new(),
                unavailable: error.to_string().into(),
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// The watermark of a view; null if it was never materialized, or nobody can say.
    pub(crate) fn watermark(&self, view: &str) -> Value {
        instant(self.views.get(view).and_then(|status| status.watermark))
    }

    /// What of a view is not materialized, although something later is.
    pub(crate) fn gaps(&self, view: &str) -> Value {
        let gaps = self.views.get(view).map(|status| status.gaps.as_slice());
        gaps.unwrap_or_default().iter().map(|&it| gap(it)).collect()
    }

    /// Up to where a materialization of a view goes that has begun and not ended, or was cut off.
    pub(crate) fn unfinished(&self, view: &str) -> Value {
        instant(self.views.get(view).and_then(|status| status.unfinished))
    }
}

/// Name and type of each join key.
pub(crate) fn join_keys(keys: &[JoinKey]) -> Value {
    named_keys(keys.iter().map(|key| key.name.as_str()), keys)
}

/// Join keys under other names.
pub(crate) fn named_keys<'a>(names: impl IntoIterator<Item = &'a str>, keys: &[JoinKey]) -> Value {
    let keys = names.into_iter().zip(keys);
    keys.map(|(name, key)| json!({"name": name, "type": key.data_type}))
        .collect()
}

/// A ttl, in the form of a definition.
pub(crate) fn span(ttl: Option<i64>) -> Value {
    ttl.map_or(Value::Null, |ttl| Span(ttl).to_string().into())
}

fn entities(project: &Project) -> Rows {
    let mut rows = Rows::new(["name", "join_keys", "description"]);
    for defined in project.entities.values() {
        let entity = &defined.value;
        rows.row([
            json!(entity.name),
            join_keys(&entity.join_keys),
            json!(defined.about.description),
        ]);
    }
    rows
}

fn sources(project: &Project) -> Rows {
    let mut rows = Rows::new([
        "name",
        "path",
        "timestamp_field",
        "created_timestamp_column",
        "point_in_time",
        "description",
    ]);
    for defined in project.sources.values() {
        let source = &defined.value;
        rows.row([
            json!(source.name),
            json!(source.path),
            json!(source.timestamp_field),
            json!(source.created_timestamp_column),
            json!(source.point_in_time),
            json!(defined.about.description),
        ]);
    }
    rows
}

fn views(project: &Project, states: &States) -> Rows {
    let mut rows = Rows::new([
        "name",
        "alias_of",
        "join_keys",
        "features",
        "ttl",
        "online",
        "watermark",
        "gaps",
        "unfinished",
        "digest",
    ]);
    for defined in project.views.values() {
        let view = &defined.value.view;
        rows.row([
            json!(view.name),
            Value::Null,
            join_keys(&view.keys),
            json!(view.features.len()),
            span(view.ttl),
            json!(view.online),
            states.watermark(&view.name),
            states.gaps(&view.name),
            states.unfinished(&view.name),
            json!(view.digest().to_string()),
        ]);
    }
    for defined in project.aliases.values() {
        let alias = &defined.value;
        let Some((view, keys)) = project.lookup(&alias.name) else {
            continue;
        };
        rows.row([
            json!(alias.name),
            json!(alias.alias_of),
            named_keys(keys, &view.keys),
            json!(view.features.len()),
            span(view.ttl),
            json!(view.online),
            states.watermark(&view.name),
            states.gaps(&view.name),
            states.unfinished(&view.name),
            json!(view.digest().to_string()),
        ]);
    }
    rows
}

fn transformations(project: &Project) -> Rows {
    let mut rows = Rows::new(["name", "kind", "component", "version", "outputs", "digest"]);
    for defined in project.transformations.values() {
        let transformation = &defined.value;
        let description = &transformation.description;
        let outputs = description.outputs.iter().map(|field| field.name.as_str());
        rows.row([
            json!(transformation.name),
            json!(transformation.kind),
            json!(description.component),
            json!(description.version),
            outputs.collect(),
            json!(transformation.component.to_string()),
        ]);
    }
    rows
}

fn services(project: &Project) -> Rows {
    let mut rows = Rows::new(["name", "features", "plan", "description"]);
    for defined in project.services.values() {
        let service = &defined.value;
        // What was applied has a plan; where a newer version refuses it, `describe` says why.
        let plan = plan_service(project, &service.name).ok();
        rows.row([
            json!(service.name),
            json!(service.features),
            json!(plan.map(|plan| plan.digest().to_string())),
            json!(defined.about.description),
        ]);
    }
    rows
}
