//! The shape of definition files: what does not keep to it is told with its line and what would be
//! valid.

use unskew_core::definitions::shape::InputShape;
use unskew_core::definitions::{Definitions, OnlineStore, Problems, Settings, is_name};
use unskew_core::view::OnError;

/// The definitions, or what is wrong with their shape.
fn read(text: &str) -> Result<Definitions, Problems> {
    read_all(&[("f.yaml", text)])
}

fn read_all(files: &[(&str, &str)]) -> Result<Definitions, Problems> {
    let owned = |&(name, text): &(&str, &str)| (name.to_owned(), text.to_owned());
    let definitions = Definitions::read(&files.iter().map(owned).collect::<Vec<_>>());
    match definitions.problems.0.is_empty() {
        true => Ok(definitions),
        false => Err(definitions.problems),
    }
}

fn settings(text: &str) -> Result<Settings, Problems> {
    Settings::read(text, |name| (name == "HOST").then(|| "db:1".to_owned()))
}

fn assert_problems<T: std::fmt::Debug>(text: &str, found: Result<T, Problems>, expected: &[&str]) {
    let problems = found.expect_err(text).to_string();
    assert_eq!(problems.lines().collect::<Vec<_>>(), expected, "{text}");
}

#[test]
fn shapes() {
    let file = "entities, feature_services, feature_views, sources, transformations";
    let cases: &[(&str, &[&str])] = &[
        (
            "entities:\n  - nam: a\n",
            &[
                "f.yaml:2: `join_keys` is missing; wanted a list",
                "f.yaml:2: `name` is missing; wanted text",
                "f.yaml:2: unknown key `nam`; valid: description, join_keys, name, owner, tags",
            ],
        ),
        (
            "entities:\n  - name: a\n    join_keys: []\n",
            &["f.yaml:3: the list is empty; at least one item is needed"],
        ),
        (
            "entities: {}\n",
            &["f.yaml:1: found an empty mapping, wanted a list"],
        ),
        ("\nentities:\n", &["f.yaml:2: found nothing, wanted a list"]),
        (
            "- a\n",
            &[&format!(
                "f.yaml:1: found a list, wanted a mapping with {file}"
            )],
        ),
        (
            "a/b~: 1\n",
            &[&format!("f.yaml:1: unknown key `a/b~`; valid: {file}")],
        ),
        (
            "feature_views:\n  - name: a\n    ttl: -7d\n    online: yes\n    entities: a\n    features: [a]\n    tags: {a: 1}\n",
            &[
                "f.yaml:3: found `-7d`, wanted a duration: 30s, 15m, 6h, 7d, or 0",
                "f.yaml:4: found `yes`, wanted true or false",
                "f.yaml:5: found `a`, wanted a list",
                "f.yaml:6: found `a`, wanted a mapping with description, name, owner, tags, type",
                "f.yaml:7: found `1`, wanted text, in quotes",
            ],
        ),
        (
            "feature_views:\n  - {name: a, description: small, round}\n",
            &[
                "f.yaml:2: unknown key `round`; valid: alias_of, description, entities, features, \
             join_keys, name, online, owner, source, tags, transformation, ttl; a text that holds a \
             comma is written in quotes",
            ],
        ),
        (
            "transformations:\n  - name: a\n    kind: ondemand\n    component: x\n    on_error: ignore\n",
            &[
                "f.yaml:3: found `ondemand`, wanted on_demand or batch",
                "f.yaml:5: found `ignore`, wanted fail or null: what becomes of a row for which a \
             component fails",
            ],
        ),
        (
            "sources:\n  - name: a\n    path: p\n    timestamp_field: t\n    point_in_time: now\n    late_by: 3\n    columns: [a]\n",
            &[
                "f.yaml:5: found `now`, wanted event or known",
                "f.yaml:6: found `3`, wanted a duration: 30s, 15m, 6h, 7d, or 0",
                "f.yaml:7: found a list, wanted a mapping",
            ],
        ),
        (
            "feature_services:\n  - name: a\n    features: []\n  - name: b\n    features: a\n    full_feature_names: no\n",
            &[
                "f.yaml:3: the list is empty; at least one item is needed",
                "f.yaml:5: found `a`, wanted a list",
                "f.yaml:6: found `no`, wanted true or false",
            ],
        ),
    ];
    for (text, expected) in cases {
        assert_problems(text, read(text), expected);
    }
    assert_problems(
        "all files",
        read_all(&[
            ("b.yaml", "x: 1\n"),
            ("a.yaml", "y: 1\n"),
            ("c.yaml", "entities: [\n"),
        ]),
        &[
            &format!("a.yaml:1: unknown key `y`; valid: {file}"),
            &format!("b.yaml:1: unknown key `x`; valid: {file}"),
            "c.yaml:2: no valid YAML: while parsing a node, did not find expected node content",
        ],
    );
}

#[test]
fn what_is_no_yaml_or_has_no_meaning_here() {
    let cases = [
        (
            "a: 1\nb: 2\na: 3\n",
            "f.yaml:3: no valid YAML: duplicated key in mapping, at `a: 3`",
        ),
        (
            "sources:\n\t- name: b\n",
            "f.yaml:2: no valid YAML: tabs disallowed within this context (block indentation), at \
             `- name: b`",
        ),
        (
            "sources: []\n---\nsources: []\n",
            "f.yaml:3: a second YAML document begins; write one document per file",
        ),
        (
            "entities: !tag b\n",
            "f.yaml:1: tags have no meaning here; leave it out",
        ),
        (
            "entities: []\n[a]: b\n",
            "f.yaml:2: a key must be plain text",
        ),
        (
            "a: *nothing\n",
            "f.yaml:1: no valid YAML: while parsing node, found unknown anchor, at `a: *nothing`",
        ),
    ];
    for (text, expected) in cases {
        assert_problems(text, read(text), &[expected]);
    }
}

#[test]
fn what_nests_or_repeats_without_end_is_an_error() {
    let deep = format!("a: {}", "[".repeat(100_000));
    assert!(read(&deep).is_err());
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        laughs += &format!("a{level}: &a{level} [{}]\n", vec![below; 10].join(", "));
    }
    assert!(read(&laughs).is_err());
}

#[test]
fn an_empty_file_defines_nothing() {
    for text in ["", "# nothing\n", "---\n", "{}\n", "null\n"] {
        assert!(read(text).unwrap().entities.is_empty(), "{text}");
    }
}

#[test]
fn files_are_merged_and_anchors_stand_for_what_they_name() {
    let first = "entities:\n  - &a {name: a, join_keys: [{name: k}], tags: {x: \"1\"}}\n";
    let second = "entities:\n  - name: b\n    join_keys: &keys [{name: k}]\n  - name: c\n    join_keys: *keys\n";
    let definitions = read_all(&[("1.yaml", first), ("2.yaml", second)]).unwrap();
    let names: Vec<_> = definitions
        .entities
        .iter()
        .map(|d| d.value.name.as_str())
        .collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(definitions.entities[2].value.join_keys[0].name, "k");
}

fn transformation(rest: &str) -> String {
    format!("transformations:\n  - {{name: a, kind: batch, component: x, {rest}}}\n")
}

#[test]
fn on_error_is_null_in_quotes_and_without() {
    for (rest, expected) in [
        ("", OnError::Fail),
        ("on_error: fail", OnError::Fail),
        ("on_error: null", OnError::Null),
        ("on_error: \"null\"", OnError::Null),
        ("on_error: ~", OnError::Null),
    ] {
        let definitions = read(&transformation(rest)).unwrap();
        assert_eq!(
            definitions.transformations[0].value.on_error.0, expected,
            "{rest}"
        );
    }
}

#[test]
fn durations_are_text_or_zero() {
    let ttl = |text: &str| {
        let definitions = read(&format!("feature_views:\n  - {{name: a, ttl: {text}}}\n"))?;
        Ok::<_, Problems>(
            definitions.feature_views[0]
                .value
                .ttl
                .as_ref()
                .map(|ttl| ttl.0.clone()),
        )
    };
    for (text, expected) in [
        ("0", Some("0")),
        ("7d", Some("7d")),
        ("\"0\"", Some("0")),
        ("null", None),
    ] {
        assert_eq!(ttl(text).unwrap().as_deref(), expected);
    }
    for text in ["7", "7w", "-1d", "1.5h", "\"\"", "true", "[]", "7 d"] {
        let problems = ttl(text).unwrap_err().to_string();
        assert!(
            problems.ends_with("wanted a duration: 30s, 15m, 6h, 7d, or 0"),
            "{problems}"
        );
    }
}

#[test]
fn inputs_have_three_forms() {
    let inputs = |text: &str| read(&transformation(&format!("inputs: {{x: {text}}}")));
    let input = |text: &str| inputs(text).unwrap().transformations[0].value.inputs["x"].clone();
    assert!(matches!(input("v:f"), InputShape::Reference(text) if text == "v:f"));
    assert!(
        matches!(input("{from: v, default: 0}"), InputShape::WithDefault(w) if w.default == Some(0.into()))
    );
    assert!(
        matches!(input("{from: v, default: null}"), InputShape::WithDefault(w) if w.default.is_none())
    );
    assert!(matches!(input("{from: v}"), InputShape::WithDefault(_)));
    for (text, value) in [
        ("15.0", serde_json::json!(15.0)),
        ("-0.0", serde_json::json!(-0.0)),
        ("9223372036854775807", serde_json::json!(i64::MAX)),
        (
            "9223372036854775808.0",
            serde_json::json!(9_223_372_036_854_775_808.0),
        ),
        ("[1, null]", serde_json::json!([1, null])),
        (".nan", serde_json::json!("NaN")),
        ("-.inf", serde_json::json!("-Infinity")),
        ("null", serde_json::json!(null)),
        ("\"1\"", serde_json::json!("1")),
        ("2001-03-01", serde_json::json!("2001-03-01")),
    ] {
        let InputShape::Constant(constant) = input(&format!("{{value: {text}}}")) else {
            panic!("{text} is no constant");
        };
        assert_eq!(constant.value.to_string(), value.to_string());
    }
    for (text, found) in [
        ("1", "`1`"),
        ("{fro: x}", "a mapping with fro"),
        ("[]", "a list"),
        ("null", "nothing"),
        ("{from: x, value: 1}", "a mapping with from, value"),
    ] {
        let problems = inputs(text).unwrap_err().to_string();
        let expected =
            format!("f.yaml:2: found {found}, wanted where an input comes from: VIEW:FEATURE, ");
        assert!(problems.starts_with(&expected), "{problems}");
    }
    for (text, found) in [
        (
            "9223372036854775808",
            "`9223372036854775808` is beyond the integers, which end at 9223372036854775807; a float is written 9223372036854775808.0",
        ),
        (
            "1e999",
            "`1e999` is beyond the floats; infinity is written .inf",
        ),
        (
            "-1e999",
            "`-1e999` is beyond the floats; infinity is written .inf",
        ),
    ] {
        let text = format!("{{value: {text}}}");
        assert_problems(&text, inputs(&text), &[&format!("f.yaml:2: {found}")]);
    }
}

#[test]
fn the_project_file() {
    let found = settings("project: a").unwrap();
    assert_eq!(
        (found.project.as_str(), found.registry.as_str()),
        ("a", ".unskew/registry")
    );
    let embedded = |path: &str| OnlineStore::Embedded {
        path: path.to_owned(),
    };
    let redis = |url: &str| OnlineStore::Redis {
        url: url.to_owned(),
    };
    for (text, expected) in [
        ("", embedded(".unskew/online")),
        ("online_store: {path: x}", embedded("x")),
        ("online_store: {type: embedded}", embedded(".unskew/online")),
        (
            "online_store: {type: redis, url: \"redis://${HOST}/0\"}",
            redis("redis://db:1/0"),
        ),
        (
            "online_store: {type: redis, url: \"redis://${HOST}${HOST}$\"}",
            redis("redis://db:1db:1$"),
        ),
        (
            "online_store: {type: redis, connection_string: \"a:1,b:2,ssl=true\", \
             redis_type: redis_sentinel, sentinel_master: main}",
            redis("a:1,b:2,ssl=true,redis_type=redis_sentinel,sentinel_master=main"),
        ),
    ] {
        assert_eq!(
            settings(&format!("project: a\n{text}"))
                .unwrap()
                .online_store,
            expected
        );
    }
    for (written, registry) in [
        ("applied", "applied"),
        ("s3://bucket/a b", "s3://bucket/a b"),
        ("gs://bucket", "gs://bucket"),
        ("\"az://${HOST}/a\"", "az://db:1/a"),
    ] {
        let found = settings(&format!("project: a\nregistry: {written}"));
        assert_eq!(found.unwrap().registry, registry);
    }
    let issue = crate::repository::SETTINGS;
    assert_eq!(settings(issue).unwrap().project, "flights");
}

#[test]
fn what_is_wrong_with_the_project_file() {
    let cases: &[(&str, &[&str])] = &[
        ("", &["`project` is missing; wanted text"]),
        ("project: 1", &["found `1`, wanted text, in quotes"]),
        (
            "project: my project",
            &[
                "`my project` is no project name; a name is a letter or `_`, then letters, digits and \
             `_`, at most 100",
            ],
        ),
        (
            "{project: a, online_store: {type: mysql}}",
            &["found `mysql`, wanted embedded or redis"],
        ),
        (
            "{project: a, online_store: redis}",
            &[
                "found `redis`, wanted a mapping with connection_string, path, redis_type, sentinel_master, type, url",
            ],
        ),
        (
            "{project: a, online_store: {type: redis}}",
            &["a redis store needs a `url`, such as redis://127.0.0.1:6379/0"],
        ),
        (
            "{project: a, online_store: {type: redis, url: \"${REDIS_URL}\", path: x}}",
            &[
                "`path` belongs to type embedded; a redis store has a `url`",
                "the environment variable `REDIS_URL` is not set",
            ],
        ),
        (
            "{project: a, online_store: {type: redis, url: \"redis://a\", connection_string: \"a:1\"}}",
            &["a redis store has a `url` or a `connection_string`, not both"],
        ),
        (
            "{project: a, online_store: {type: redis, url: \"redis://a\", redis_type: redis}}",
            &["`redis_type` goes with a `connection_string`; a `url` says it itself"],
        ),
        (
            "{project: a, online_store: {type: redis, connection_string: hunter2, sentinel_master: \"a,b\"}}",
            &[
                "`sentinel_master` is one name, without `,` and `=`",
                "write HOST:PORT, more of them after commas, and then options such as \
                 password=PASSWORD,ssl=true,db=0",
            ],
        ),
        (
            "{project: a, online_store: {url: x}}",
            &["`url` belongs to type redis; an embedded store has a `path`"],
        ),
        (
            "{project: \"${HOST\"}",
            &["`${` without `}`; write ${NAME}"],
        ),
        (
            "{project: my project, registry: [], online_store: {url: x, typ: redis}}",
            &[
                "`my project` is no project name; a name is a letter or `_`, then letters, digits and \
             `_`, at most 100",
                "`url` belongs to type redis; an embedded store has a `path`",
                "found a list, wanted text",
                "unknown key `typ`; valid: connection_string, path, redis_type, sentinel_master, type, url",
            ],
        ),
        (
            "{project: \"${NAME}\", registry: \"s3://${NAME}\", online_store: {type: \"${NAME}\", path: \"${HOST}://x\"}}",
            &["the environment variable `NAME` is not set"],
        ),
        (
            "{project: a, registry: \"hdfs://bucket/registry\", online_store: {path: \"gs://bucket\"}}",
            &[
                "`gs://`: an embedded store lies in a folder of this machine; write its path",
                "`hdfs://`: there is no such object store; a registry lies at a path, or at a URL \
             that begins with s3://, s3a://, gs://, az://, abfs://, abfss://",
            ],
        ),
        (
            "{project: a, registry: \"gs:///registry\"}",
            &["`gs:///registry` names no bucket; write gs://BUCKET/PATH"],
        ),
        (
            "{project: !name a, registry: 9223372036854775808, online_store: {type: redis, url: !url x}}",
            &[
                "`9223372036854775808` is beyond the integers, which end at 9223372036854775807; a \
             float is written 9223372036854775808.0",
                "tags have no meaning here; leave it out",
            ],
        ),
        (
            "{project: a, entities: []}",
            &[
                "unknown key `entities`; valid: description, online_store, owner, project, registry, tags",
            ],
        ),
    ];
    for (text, expected) in cases {
        let expected: Vec<_> = expected
            .iter()
            .map(|e| format!("unskew.yaml:1: {e}"))
            .collect();
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        assert_problems(text, settings(text), &expected);
    }
}

#[test]
fn names() {
    for name in ["a", "_", "A_1", &"x".repeat(100)] {
        assert!(is_name(name), "{name}");
    }
    for name in ["", "1a", "a-b", "a b", "é", "a:b", "a.b", &"x".repeat(101)] {
        assert!(!is_name(name), "{name}");
    }
}

#[test]
fn a_redis_url_is_one_and_no_message_holds_its_password() {
    let file = |url: &str| format!("project: a\nonline_store:\n  type: redis\n  url: \"{url}\"\n");
    for url in [
        "redis://127.0.0.1:6379/0",
        "REDIS://me:secret@db",
        "rediss://db",
        "redis+unix:///run/redis.sock",
        "unix:///run/redis.sock",
        "valkey://db",
        "rediss+cluster://a:1,b:2",
        "redis+sentinel://a,b/main/0",
        "a:6379,b:6379,password=secret,redis_type=redis_cluster",
    ] {
        assert!(settings(&file(url)).is_ok(), "{url}");
    }
    let form = "write redis://HOST:PORT/DATABASE";
    for (url, found) in [
        ("http://x", "`http://x` is no Redis URL"),
        (
            "http://me:sec@ret?#@x/y?z=secret",
            "`http://…@x/y` is no Redis URL",
        ),
        ("://x", "`://x` is no Redis URL"),
        ("redis+x://db", "`redis+x://db` is no Redis URL"),
        ("rediss+unix:///db", "`rediss+unix:///db` is no Redis URL"),
        ("me:secret@db:6379", "a Redis URL has a scheme"),
        ("", "a Redis URL has a scheme"),
    ] {
        let expected = format!("unskew.yaml:4: {found}; {form}");
        assert_problems(url, settings(&file(url)), &[&expected]);
    }
}
