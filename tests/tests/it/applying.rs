//! `plan` and `apply`: everything that is wrong, what changes, and two at once.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use unskew_core::types::{ScalarType, UTC};
use unskew_store::{ChangeKind, StoreError};
use unskew_tests::{Online, Repository, component};

const DEFINITIONS: &str = "entities:
  - {name: thing, join_keys: [{name: id}]}
sources:
  - {name: history, path: data/history.parquet, timestamp_field: at}
feature_views:
  - {name: things, entities: [thing], source: history, features: [{name: value}]}
feature_services:
  - {name: model, features: [things]}
";

fn repository() -> Repository {
    let repository = Repository::new(Online::Embedded, DEFINITIONS);
    let fields = vec![
        Field::new("id", DataType::Int64, false),
        Field::new("at", ScalarType::Timestamp.arrow(), false),
        Field::new("value", DataType::Float64, false),
    ];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1])),
        Arc::new(TimestampMicrosecondArray::from(vec![0]).with_timezone(UTC)),
        Arc::new(Float64Array::from(vec![0.5])),
    ];
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    repository.write("data/history.parquet", &batch);
    repository
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_changes_nothing_and_a_second_apply_neither() {
    let repository = repository();
    let store = repository.store();
    let planned = store.plan(&()).await.unwrap();
    assert!(planned.any());
    assert!(matches!(
        store.applied().await,
        Err(StoreError::NothingApplied)
    ));
    let applied = store.apply(&()).await.unwrap();
    assert_eq!((applied.state, &applied.objects), (1, &planned.objects));
    assert_eq!(applied.materialize, ["things"]);
    let again = store.apply(&()).await.unwrap();
    assert!(!again.any() && again.state == 1 && again.materialize.is_empty());

    // Types that were left out are resolved.
    let applied = store.applied().await.unwrap();
    let view = &applied.project().views["things"].value.view;
    assert_eq!(view.keys[0].data_type, ScalarType::Int64);
    assert_eq!(view.features[0].data_type.to_string(), "float64");

    repository.define(
        &DEFINITIONS
            .replace("name: model", "name: other")
            .replace("at}", "at, owner: me}"),
    );
    let changed = store.apply(&()).await.unwrap();
    let kind = |name: &str| {
        changed
            .objects
            .iter()
            .find(|c| c.name == name)
            .unwrap()
            .change
    };
    assert_eq!(kind("model"), ChangeKind::Deleted);
    assert_eq!(kind("other"), ChangeKind::Created);
    assert_eq!(kind("history"), ChangeKind::Updated);
    assert_eq!(kind("thing"), ChangeKind::Unchanged);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_wrong_is_shown_with_its_line_and_nothing_is_applied() {
    let repository = repository();
    repository.define(
        "entities:
  - {name: thing, join_keys: [{name: id, type: float64}]}
sources:
  - {name: history, path: data/history.parquet, timestamp_field: when}
  - {name: nothing, path: data/nothing-*.parquet, timestamp_field: at}
feature_views:
  - {name: things, entities: [thin], source: history, features: [{name: value}]}
  - {name: alias, alias_of: nobody}
transformations:
  - {name: missing, kind: on_demand, component: transforms/missing}
feature_services:
  - {name: model, features: [nowhere]}
",
    );
    let error = repository.store().apply(&()).await.unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().collect();
    for (line, found, valid) in [
        (2, "float64", "string"),
        (4, "`when`", "at"),
        (5, "nothing-", ""),
        (7, "`thin`", "thing"),
        (8, "`nobody`", "things"),
        (10, "transforms/missing", ".wasm"),
        (12, "`nowhere`", "things"),
    ] {
        let place = format!("features/test.yaml:{line}: ");
        let problem = lines.iter().find(|l| l.starts_with(&place));
        let problem = problem.unwrap_or_else(|| panic!("nothing at line {line}: {error}"));
        assert!(
            problem.contains(found) && problem.contains(valid),
            "{problem}"
        );
    }
    assert!(matches!(
        repository.store().applied().await,
        Err(StoreError::NothingApplied)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_applies_at_once_the_second_sees_the_first() {
    let repository = repository();
    repository.store().apply(&()).await.unwrap();
    let tasks: Vec<_> = (0..6)
        .map(|writer| {
            // Each writer is another process with the same registry and other definitions.
            let folder = repository.path(format!("writer{writer}"));
            std::fs::create_dir_all(folder.join("features")).unwrap();
            let definitions = DEFINITIONS
                .replace("data/", "../data/")
                .replace("model", &format!("m{writer}"));
            std::fs::write(folder.join("features/test.yaml"), definitions).unwrap();
            std::fs::write(
                folder.join("unskew.yaml"),
                "project: test\nregistry: ../.unskew/registry\n",
            )
            .unwrap();
            let store = unskew_store::FeatureStore::open(&folder).unwrap();
            tokio::spawn(async move { store.apply(&()).await.unwrap() })
        })
        .collect();
    let mut states = Vec::new();
    for task in tasks {
        let changes = task.await.unwrap();
        // Each sees exactly one service of another, or the first one's, go.
        let services: Vec<_> = changes
            .objects
            .iter()
            .filter(|c| c.kind == "feature service")
            .collect();
        assert_eq!(services.len(), 2, "{services:?}");
        assert_eq!(
            services
                .iter()
                .filter(|c| c.change == ChangeKind::Deleted)
                .count(),
            1
        );
        states.push(changes.state);
    }
    states.sort_unstable();
    assert_eq!(states, [2, 3, 4, 5, 6, 7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_apply_puts_a_lost_component_back() {
    let repository = repository();
    std::fs::copy(component("route"), repository.path("route.wasm")).unwrap();
    let transformation = "transformations:
  - name: route
    kind: on_demand
    component: route.wasm
    inputs:
      from_latitude: things:value
      from_longitude: things:value
      to_latitude: things:value
      to_longitude: things:value
      mean_delay: things:value
      minutes_ahead: request:minutes_ahead
      late_after: {value: 15.0}
      at: event_timestamp
feature_services:
  - {name: model, features: [route, things]}
";
    let views = DEFINITIONS.split("feature_services").next().unwrap();
    repository.define(&format!("{views}{transformation}"));
    let store = repository.store();
    store.apply(&()).await.unwrap();
    let components = repository.path(".unskew/registry/components");
    let file = std::fs::read_dir(components).unwrap().next().unwrap();
    let file = file.unwrap().path();
    let damage: [&dyn Fn(); 2] = [&|| std::fs::write(&file, b"").unwrap(), &|| {
        std::fs::remove_file(&file).unwrap()
    }];
    for damage in damage {
        damage();
        let Err(error) = store.applied().await else {
            panic!("a damaged component was loaded")
        };
        assert!(error.to_string().contains("apply again"), "{error}");
        let again = store.apply(&()).await.unwrap();
        assert!(!again.any() && again.state == 1);
        assert_eq!(store.applied().await.unwrap().components().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_author_forgets_is_named() {
    let repository = repository();
    std::fs::copy(component("route"), repository.path("route.wasm")).unwrap();
    let transformation = "transformations:
  - name: route
    kind: on_demand
    component: route.wasm
    inputs:
      from_latitude: things:value
      from_longitude: things:valu
      to_latitude: request:minutes_ahead
      to_longitude: {value: north}
      mean_delay: event_timestamp
      minutes_ahead: request:minutes_ahead
      late_aftr: {value: 15.0}
      at: event_timestamp
feature_services:
  - {name: model, features: [route, things]}
";
    let definitions = DEFINITIONS
        .split("feature_services")
        .next()
        .unwrap()
        .to_owned()
        + transformation;
    repository.define(&definitions);
    let error = repository.store().apply(&()).await.unwrap_err().to_string();
    for part in [
        "`late_after`",
        "`late_aftr`",
        "`valu`",
        "north",
        "timestamp",
    ] {
        assert!(error.contains(part), "no {part} in:\n{error}");
    }
}
