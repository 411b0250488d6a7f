//! The shape of definition files.

use unskew_core::definitions::{Definitions, Settings};

#[test]
fn explore() {
    for text in [
        "entities:\n  - nam: a\n",
        "entities:\n  - name: a\n    join_keys: []\n",
        "entities: {}\n",
        "entities:\n",
        "- a\n",
        "foo: 1\n",
        "feature_views:\n  - name: a\n    ttl: 7\n",
        "feature_views:\n  - name: a\n    ttl: 7w\n",
        "feature_views:\n  - name: a\n    ttl: -7d\n    online: yes\n    entities: a\n    features: [a]\n    tags: {a: 1}\n",
        "feature_views:\n  - name: 5\n    name: b\n",
        "feature_views:\n\t- name: b\n",
        "entities: []\n---\nsources: []\n",
        "a: [\n",
        "a: !tag b\n",
        "{[a]: b}: c\n",
        "transformations:\n  - name: a\n    kind: ondemand\n    component: x\n    on_error: ignore\n",
        "transformations:\n  - name: a\n    kind: batch\n    component: x\n    inputs: {a: 1, b: {fro: x}, c: [], d: {from: x, value: 1}, e: null}\n",
        "transformations:\n  - name: a\n    kind: batch\n    component: x\n    inputs: {a: {value: 9223372036854775808}, b: {value: 1e999}, c: {value: .inf}, d: {value: -1e400}}\n",
        "sources:\n  - name: a\n    path: p\n    timestamp_field: t\n    point_in_time: now\n    late_by: 3\n    columns: [a]\n",
        "feature_services:\n  - name: a\n    features: []\n  - name: b\n    features: a\n    full_feature_names: no\n",
    ] {
        println!(
            "--- {text}{}\n",
            Definitions::read(&[("f.yaml".into(), text.into())])
                .map(|_| ())
                .err()
                .map(|p| p.to_string())
                .unwrap_or_default()
        );
    }
    for text in [
        "",
        "project: 1\n",
        "project: my project\n",
        "project: a\nonline_store: {type: mysql}\n",
        "project: a\nonline_store: {type: redis}\n",
        "project: a\nonline_store: {type: redis, url: \"${REDIS_URL}\", path: x}\n",
        "project: a\nonline_store: {url: x}\n",
        "project: a\nonline_store: redis\n",
        "project: ${A}${UNSET}\nregistry: ${B\ndescription: ${UNSET}\n",
    ] {
        println!(
            "--- {text}{}\n",
            Settings::read(text, |n| (n == "A").then(|| "x".into()))
                .map(|_| ())
                .err()
                .map(|p| p.to_string())
                .unwrap_or_default()
        );
    }
}
