use std::collections::BTreeMap;

use arrow::array::Array;
use prost_types::FileDescriptorSet;
use tonic::Code;
use unskew_core::types::{DataType, ScalarType};
use unskew_feast_proto::types::value::Val;
use unskew_feast_proto::types::{
    DoubleList, Int64List, RepeatedValue, StringList, StringSet, Value, ZonedTimestamp,
};

use super::{SERVICES, value};
use crate::error::Problem;
use crate::testing::{Random, types};

fn of(val: Val) -> Value {
    Value { val: Some(val) }
}

const NULL: Value = Value { val: None };

#[test]
fn every_column_comes_back_from_its_values_but_for_fractions_of_seconds() {
    let mut random = Random(11);
    for (name, data_type) in types() {
        let column = random.column(data_type, 200);
        // Instants of Feast's are seconds: what was rounded once is not rounded again.
        let values = value::values(&column).unwrap();
        let once = value::column(&values, data_type).unwrap();
        assert_eq!(once.data_type(), column.data_type(), "{name}");
        assert_eq!(once.nulls(), column.nulls(), "{name}");
        let (DataType::Scalar(scalar) | DataType::List(scalar)) = data_type;
        if scalar == ScalarType::Timestamp {
            let twice = value::column(&value::values(&once).unwrap(), data_type).unwrap();
            assert_eq!(&twice, &once, "{name}");
        } else {
            let bits = |column: &dyn Array| {
                (0..column.len())
                    .map(|row| unskew_core::json::display(column, row))
                    .collect::<Vec<_>>()
            };
            assert_eq!(bits(&once), bits(&column), "{name}");
        }
    }
}

#[test]
fn numbers_become_those_of_a_key_where_nothing_is_lost() {
    let int32 = DataType::Scalar(ScalarType::Int32);
    let good = [of(Val::Int64Val(7)), NULL, of(Val::Int64Val(-7))];
    let column = value::column(&good, int32).unwrap();
    assert_eq!(column.data_type(), &ScalarType::Int32.arrow());
    assert!(column.is_null(1));
    let whole = [of(Val::DoubleVal(7.0))];
    assert!(value::column(&whole, int32).is_ok());
    for (values, row) in [
        (vec![of(Val::Int64Val(1)), of(Val::Int64Val(1 << 40))], 1),
        (vec![of(Val::DoubleVal(0.5))], 0),
        (vec![of(Val::StringVal("7".to_owned()))], 0),
        (vec![of(Val::Int32Val(1)), of(Val::Int64Val(1))], 1),
        (vec![NULL, of(Val::UuidVal("7".to_owned()))], 1),
        (vec![of(Val::Int64ListVal(Int64List { val: vec![1] }))], 0),
    ] {
        assert_eq!(
            value::column(&values, int32).unwrap_err().row,
            row,
            "{values:?}"
        );
    }
    let instant = DataType::Scalar(ScalarType::Timestamp);
    for seconds in [i64::MAX, i64::MIN] {
        let far = [of(Val::UnixTimestampVal(seconds))];
        assert!(value::column(&far, instant).is_err(), "{seconds}");
    }
}

#[test]
fn lists_name_the_row_at_fault_and_take_nulls_in_their_own_form() {
    let list = DataType::List(ScalarType::Float64);
    let doubles = |val: Vec<f64>| of(Val::DoubleListVal(DoubleList { val }));
    let with_null = of(Val::ListVal(RepeatedValue {
        val: vec![of(Val::DoubleVal(0.5)), NULL],
    }));
    let empty = of(Val::StringListVal(StringList { val: Vec::new() }));
    let good = [doubles(vec![0.1, 0.2]), NULL, with_null, empty];
    let column = value::column(&good, list).unwrap();
    assert_eq!(unskew_core::json::display(&column, 2), "[0.5,null]");
    assert_eq!(unskew_core::json::display(&column, 3), "[]");
    assert!(column.is_null(1));
    let texts = of(Val::StringListVal(StringList {
        val: vec!["x".to_owned()],
    }));
    let set = of(Val::StringSetVal(StringSet { val: Vec::new() }));
    for bad in [texts, set, of(Val::DoubleVal(0.1))] {
        let values = [doubles(vec![0.1]), bad];
        let error = value::column(&values, list).unwrap_err();
        assert_eq!((error.row, error.wanted), (1, list), "{error}");
    }
}

#[test]
fn a_row_has_the_types_of_its_values() {
    let row = value::row(&BTreeMap::from([
        ("a".to_owned(), of(Val::Int32Val(1))),
        ("b".to_owned(), of(Val::UnixTimestampVal(2))),
        ("c".to_owned(), NULL),
        (
            "d".to_owned(),
            of(Val::Int64ListVal(Int64List { val: vec![1, 2] })),
        ),
    ]))
    .unwrap();
    assert_eq!(row.num_rows(), 1);
    let found: Vec<_> = row
        .columns()
        .iter()
        .map(|c| c.data_type().clone())
        .collect();
    let expected = [
        DataType::Scalar(ScalarType::Int32),
        DataType::Scalar(ScalarType::Timestamp),
        DataType::Scalar(ScalarType::String),
        DataType::List(ScalarType::Int64),
    ];
    assert_eq!(found, expected.map(DataType::arrow));
    let zoned = of(Val::ZonedTimestampVal(ZonedTimestamp::default()));
    assert!(value::row(&BTreeMap::from([("a".to_owned(), zoned)])).is_err());
    assert!(value::row_of_texts(&BTreeMap::new()).is_err());
}

#[test]
fn problems_have_the_code_of_their_status() {
    let late = Problem::Late { seconds: 1 };
    let overloaded = Problem::Overloaded {
        what: "it".to_owned(),
    };
    for (problem, code) in [
        (Problem::FeaturesOrService(true), Code::InvalidArgument),
        (Problem::NoPath("x".to_owned()), Code::NotFound),
        (Problem::BodyTooLarge { limit: 1 }, Code::ResourceExhausted),
        (Problem::Token("none".to_owned()), Code::Unauthenticated),
        (late, Code::DeadlineExceeded),
        (overloaded, Code::Unavailable),
        (Problem::Internal("x".to_owned()), Code::Internal),
    ] {
        let status = problem.grpc_status();
        assert_eq!(status.code(), code, "{problem}");
        assert_eq!(status.message(), problem.to_string());
    }
}

#[test]
fn reflection_knows_the_services() {
    use prost::Message as _;
    let files = FileDescriptorSet::decode(unskew_feast_proto::DESCRIPTORS).unwrap();
    let services = files.file.iter().flat_map(|file| {
        let package = file.package().to_owned();
        file.service.iter().map(move |service| match &*package {
            "" => service.name().to_owned(),
            package => format!("{package}.{}", service.name()),
        })
    });
    let services: Vec<String> = services.collect();
    for service in SERVICES {
        assert!(
            services.iter().any(|known| known == service),
            "{services:?}"
        );
    }
}
