//! From a service to its plan: lookups, steps in order, names.

use unskew_core::component::Kind;
use unskew_core::plan::{Binding, FeaturePlan, found};
use unskew_core::planner::{PlanError, plan_features, plan_service};
use unskew_core::project::Project;

use crate::repository::Repository;

fn features(project: &Project, features: &[&str]) -> Result<FeaturePlan, PlanError> {
    let features: Vec<String> = features.iter().map(|&feature| feature.to_owned()).collect();
    plan_features(project, None, &features, false)
}

fn names<'a>(fields: impl IntoIterator<Item = &'a unskew_core::types::Field>) -> String {
    let fields = fields
        .into_iter()
        .map(|field| format!("{}: {}", field.name, field.data_type));
    fields.collect::<Vec<_>>().join(", ")
}

fn outputs(plan: &FeaturePlan) -> Vec<&str> {
    plan.outputs
        .iter()
        .map(|output| output.name.as_str())
        .collect()
}

#[test]
fn the_plan_of_the_flights() {
    let plan = Repository::new().plan("delay_model");
    assert_eq!(
        outputs(&plan),
        [
            "mean_delay",
            "late_share",
            "latitude",
            "miles",
            "hour_of_day"
        ]
    );
    assert_eq!(
        names(&plan.join_keys),
        "origin: string, destination: string"
    );
    assert_eq!(names(&plan.request_fields), "minutes_ahead: int64");

    let lookups: Vec<_> = plan
        .lookups
        .iter()
        .map(|l| {
            (
                l.name.as_str(),
                l.view.name.as_str(),
                l.keys.as_slice(),
                names(l.used()),
            )
        })
        .collect();
    let both = "latitude: float64, longitude: float64".to_owned();
    assert_eq!(
        lookups,
        [
            (
                "origin_daily",
                "airport_daily",
                &[0][..],
                "mean_delay: float64, late_share: float32".to_owned()
            ),
            ("destination", "airport", &[1], both.clone()),
            ("origin", "airport", &[0], both),
        ]
    );
    let step = &plan.steps[0];
    let bindings: Vec<_> = step
        .inputs
        .iter()
        .map(|input| input.binding.clone())
        .collect();
    let feature = |lookup, feature| Binding::Feature { lookup, feature };
    let constant = |value: f64| unskew_core::json::Literal(value.into());
    assert_eq!(
        bindings,
        [
            feature(2, 0),
            feature(2, 1),
            feature(1, 0),
            feature(1, 1),
            feature(0, 0),
            Binding::Request(0),
            Binding::Constant(constant(15.0)),
            Binding::EventTimestamp,
        ]
    );
    assert_eq!(step.inputs[4].default, Some(constant(0.0)));
    assert_eq!(plan.outputs[2].binding, feature(1, 0));
    assert_eq!(
        plan.outputs[3].binding,
        Binding::Output { step: 0, output: 0 }
    );
    assert_eq!(plan.components().len(), 1);
}

#[test]
fn the_joined_batch_of_the_flights() {
    let plan = Repository::new().plan("delay_model");
    let layout = plan.layout();
    let columns: Vec<_> = layout
        .schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    let expected = "event_timestamp key:origin key:destination request:minutes_ahead \
        origin_daily:@found origin_daily:@event origin_daily:@created origin_daily:mean_delay origin_daily:late_share \
        destination:@found destination:@event destination:@created destination:latitude destination:longitude \
        origin:@found origin:@event origin:@created origin:latitude origin:longitude";
    assert_eq!(columns.join(" "), expected);
    assert_eq!(
        (layout.keys, layout.request, layout.lookups.as_slice()),
        (1, 3, &[4, 9, 14][..])
    );
    assert_eq!(columns[layout.feature(2, 1)], "origin:longitude");
    assert_eq!(
        [found::ROW, found::NOTHING, found::NOT_MATERIALIZED],
        [0, 1, 2]
    );
    let outputs = plan.output_schema();
    assert!(outputs.fields().iter().all(|field| field.is_nullable()));
    assert_eq!(outputs.fields().len(), 5);
}

#[test]
fn features_are_looked_up_once_however_often_they_are_used() {
    let project = Repository::new().project();
    // In the order of the plan's outputs; in a lookup, in that of the view.
    let plan = features(
        &project,
        &["origin:longitude", "origin:latitude", "route:miles"],
    )
    .unwrap();
    assert_eq!(outputs(&plan), ["longitude", "latitude", "miles"]);
    let origin = &plan.lookups[0];
    assert_eq!(origin.features, [0, 1]);
    assert_eq!(
        plan.outputs[0].binding,
        Binding::Feature {
            lookup: 0,
            feature: 1
        }
    );
    // One feature only: its index is among those that are used.
    let plan = features(&project, &["origin:longitude"]).unwrap();
    assert_eq!(plan.lookups[0].features, [1]);
    assert_eq!(
        plan.outputs[0].binding,
        Binding::Feature {
            lookup: 0,
            feature: 0
        }
    );
    assert_eq!(plan.service, None);
    assert_eq!(names(&plan.join_keys), "origin: string");
}

#[test]
fn names_are_full_where_that_is_asked_for() {
    let plan = Repository::new()
        .with("full_feature_names: false", "full_feature_names: true")
        .with("[origin_daily, ", "[origin_daily, origin, ")
        .plan("delay_model");
    let expected = [
        "origin_daily__mean_delay",
        "origin_daily__late_share",
        "origin__latitude",
        "origin__longitude",
        "destination__latitude",
        "route__miles",
        "route__hour_of_day",
    ];
    assert_eq!(outputs(&plan), expected);
}

/// Transformations on request fields, join keys and each other: `name: input, …`.
fn transformations(definitions: &[(&str, &str, &str)]) -> Repository {
    let text = definitions.iter().map(|(name, _, bindings)| {
        format!("  - {{name: {name}, kind: on_demand, component: x, inputs: {{{bindings}}}}}\n")
    });
    let text = format!("transformations:\n{}", text.collect::<String>());
    let mut repository = Repository::new().and(&text);
    for (name, inputs, _) in definitions {
        repository.component(name, Kind::OnDemand, inputs, &format!("{name}_out: int64"));
    }
    repository
}

#[test]
fn steps_come_after_those_whose_outputs_they_take() {
    let x = "x: int64";
    let project = transformations(&[
        ("a", "x: int64, y: int64", "x: \"b:b_out\", y: \"c:c_out\""),
        ("b", x, "x: \"c:c_out\""),
        ("c", x, "x: \"request:n\""),
        ("d", x, "x: \"request:n\""),
    ])
    .project();
    let plan = features(&project, &["d", "a", "c"]).unwrap();
    let steps: Vec<_> = plan.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(steps, ["d", "c", "b", "a"]);
    assert_eq!(outputs(&plan), ["d_out", "a_out", "c_out"]);
    assert_eq!(
        plan.steps[3].inputs[0].binding,
        Binding::Output { step: 2, output: 0 }
    );
    assert_eq!(
        plan.steps[3].inputs[1].binding,
        Binding::Output { step: 1, output: 0 }
    );
    assert_eq!(plan.request_fields.len(), 1);
    assert!(plan.lookups.is_empty());
}

#[test]
fn a_join_key_may_be_an_input_with_or_without_its_view() {
    let project = transformations(&[("a", "x: string", "x: \"key:origin\"")]).project();
    for wanted in [
        &["a"][..],
        &["a", "origin:latitude"],
        &["origin:latitude", "a"],
    ] {
        let plan = features(&project, wanted).unwrap();
        assert_eq!(names(&plan.join_keys), "origin: string");
        assert_eq!(plan.steps[0].inputs[0].binding, Binding::Key(0));
    }
}

#[test]
fn what_cannot_be_had_together() {
    let project = transformations(&[
        ("a", "x: int64", "x: \"request:n\""),
        ("b", "x: string", "x: \"request:n\""),
        ("c", "x: string", "x: \"request:origin\""),
        ("d", "x: int64", "x: \"request:d_out\""),
        ("e", "x: int64", "x: \"key:customer_id\""),
    ])
    // Two views whose keys bear one name and have two types.
    .with("{iata: destination}", "{iata: customer_id}")
    .project();
    for (wanted, expected) in [
        (
            &["x"][..],
            "no view, alias or on-demand transformation `x`; there are: airport, airport_daily, \
             last_order, destination, origin, origin_daily, a, b, c, d, e, route",
        ),
        (
            &["clean_orders"],
            "no view, alias or on-demand transformation `clean_orders`; there are: airport, \
             airport_daily, last_order, destination, origin, origin_daily, a, b, c, d, e, route",
        ),
        (
            &["origin:x"],
            "`origin` has no `x`; it has: latitude, longitude",
        ),
        (
            &["route:x"],
            "`route` has no `x`; it has: miles, hour_of_day",
        ),
        (
            &[],
            "no features are named; write VIEW:FEATURE, or VIEW for all of a view's",
        ),
        (
            &["origin:latitude", "origin:latitude"],
            "`origin:latitude` is named twice; once is enough",
        ),
        (
            &["origin:latitude", "airport"],
            "two outputs are called `latitude` (origin:latitude and airport:latitude); with \
             `full_feature_names: true` they are called VIEW__FEATURE",
        ),
        (
            &["a", "b"],
            "`n` is a request field of type int64 for `a` and one of type string for `b`; one name \
             stands for one thing within a service",
        ),
        (
            &["c", "origin:latitude"],
            "`origin` is a join key and a request field; one name stands for one thing within a \
             service",
        ),
        (
            &["d"],
            "output `d_out` (d:d_out) is called like a request field; rename one of them, or set \
             `full_feature_names: true`",
        ),
        (
            &["last_order", "destination:latitude"],
            "`customer_id` is a join key of type int64 and one of type string; one name stands for \
             one thing within a service",
        ),
        (
            &["e"],
            "`customer_id` is a join key of type int64 and one of type string; one name stands for \
             one thing within a service",
        ),
        (
            &["destination:latitude", "e"],
            "input `x` of `e` is int64, and join key `customer_id`, to which it is bound, is string \
             here",
        ),
    ] {
        assert_eq!(
            features(&project, wanted).unwrap_err().to_string(),
            expected
        );
    }
    assert!(features(&project, &["last_order", "e"]).is_ok());
    let error = plan_service(&project, "x").unwrap_err().to_string();
    assert_eq!(
        error,
        "no feature service `x`; there are: delay_model, orders"
    );
}

#[test]
fn full_names_can_meet_too() {
    let views = "feature_views:\n  - {name: a, alias_of: airport}\n  - {name: a__b, alias_of: v}\n  \
                 - {name: v, entities: [airport], source: airports, features: [{name: latitude}]}\n";
    let views = views.replace("a__b, alias_of: v", "a__latitude, alias_of: v");
    let mut project = Repository::new().and(&views).project();
    // No YAML gives a view such a feature and such an alias by chance; here by hand.
    let view = project.views.get_mut("v").unwrap();
    let mut changed = (*view.value.view).clone();
    changed.features[0].name = "b".to_owned();
    view.value.view = changed.into();
    let view = project.views.get_mut("airport").unwrap();
    let mut changed = (*view.value.view).clone();
    changed.features[0].name = "latitude__b".to_owned();
    view.value.view = changed.into();
    let wanted = ["a:latitude__b", "a__latitude:b"].map(str::to_owned);
    let error = plan_features(&project, None, &wanted, true)
        .unwrap_err()
        .to_string();
    let expected = "two outputs are called `a__latitude__b` (a:latitude__b and a__latitude:b); \
                    rename one of the views";
    assert_eq!(error, expected);
}

#[test]
fn a_cycle_in_a_registry_is_an_error_too() {
    let x = "x: int64";
    let mut project =
        transformations(&[("a", x, "x: \"b:b_out\""), ("b", x, "x: \"request:n\"")]).project();
    let back = unskew_core::project::Reference::Member("a".to_owned(), "a_out".to_owned());
    project.transformations.get_mut("b").unwrap().value.inputs[0].from = back;
    let error = features(&project, &["b"]).unwrap_err().to_string();
    assert_eq!(error, "a cycle of transformations: b → a → b");
}

#[test]
fn a_plan_reads_back_from_its_json() {
    for service in ["delay_model", "orders"] {
        let plan = Repository::new().plan(service);
        let back: FeaturePlan =
            serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
        assert_eq!(back, plan);
        assert_eq!(back.digest(), plan.digest());
    }
}
