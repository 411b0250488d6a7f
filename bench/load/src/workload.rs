//! The requests: their bodies, and whether an answer to one is right.

use std::io::Write as _;

use clap::ValueEnum;
use serde_json::Value as Json;

use crate::table::{self, Value};

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// `POST /online`.
    Unskew,
    /// The same requests; an answer of a fixed length.
    Bare,
    /// `POST /get-online-features`.
    Feast,
}

/// What is asked for in each request.
pub struct Workload {
    /// How the server is spoken to.
    pub dialect: Dialect,
    /// The feature service.
    pub service: String,
    /// The features that an answer has to have.
    pub features: Vec<String>,
    /// Whether a request field goes with each entity.
    pub amounts: bool,
    /// The `Host` of the requests.
    pub host: String,
}

impl Workload {
    /// Writes the request for some entities, head and body.
    pub fn write(&self, entities: &[u64], body: &mut Vec<u8>, out: &mut Vec<u8>) {
        body.clear();
        out.clear();
        let path = match self.dialect {
            Dialect::Unskew | Dialect::Bare => "/online",
            Dialect::Feast => "/get-online-features",
        };
        let ids = |body: &mut Vec<u8>| {
            list(body, entities, |body, entity| {
                let _ = write!(body, "{entity}");
            });
        };
        let amounts = |body: &mut Vec<u8>| {
            list(body, entities, |body, entity| {
                let _ = write!(body, "{:?}", table::amount(entity));
            });
        };
        // Writing to a Vec cannot fail.
        let _ = write!(
            body,
            r#"{{"feature_service":"{}","entities":{{"customer_id":"#,
            self.service
        );
        ids(body);
        match (self.amounts, self.dialect) {
            (false, _) => body.extend(b"}}"),
            (true, Dialect::Feast) => {
                body.extend(br#","amount":"#);
                amounts(body);
                body.extend(b"}}");
            }
            (true, _) => {
                body.extend(br#"},"request":{"amount":"#);
                amounts(body);
                body.extend(b"}}");
            }
        }
        let _ = write!(
            out,
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            self.host,
            body.len()
        );
        out.extend_from_slice(body);
    }

    /// Checks an answer to a request for some entities.
    ///
    /// # Errors
    /// Says what of it is wrong.
    pub fn check(&self, entities: &[u64], body: &[u8]) -> Result<(), String> {
        let answer: Json = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        match self.dialect {
            Dialect::Bare => Ok(()),
            Dialect::Unskew => self.each(entities, |feature| {
                let values = answer["features"].get(feature)?;
                Some((values, answer["statuses"].get(feature)?))
            }),
            Dialect::Feast => {
                let names = answer["metadata"]["feature_names"].as_array();
                let names = names.ok_or_else(|| format!("no feature names in {}", start(body)))?;
                self.each(entities, |feature| {
                    let index = names.iter().position(|name| name == feature)?;
                    let result = answer["results"].get(index)?;
                    Some((result.get("values")?, result.get("statuses")?))
                })
            }
        }
        .map_err(|error| format!("{error}: {}", start(body)))
    }

    fn each<'a>(
        &self,
        entities: &[u64],
        column: impl Fn(&str) -> Option<(&'a Json, &'a Json)>,
    ) -> Result<(), String> {
        for feature in &self.features {
            let (values, statuses) =
                column(feature).ok_or_else(|| format!("there is no feature {feature}"))?;
            let (values, statuses) = (values.as_array(), statuses.as_array());
            let (Some(values), Some(statuses)) = (values, statuses) else {
                return Err(format!("{feature} has no lists"));
            };
            if values.len() != entities.len() || statuses.len() != entities.len() {
                return Err(format!("{feature} has {} values", values.len()));
            }
            for ((&entity, value), status) in entities.iter().zip(values).zip(statuses) {
                let wanted = table::value(feature, entity)
                    .ok_or_else(|| format!("nobody knows what {feature} is"))?;
                let same = match wanted {
                    Value::Float(wanted) => value.as_f64() == Some(wanted),
                    Value::Integer(wanted) => value.as_i64() == Some(wanted),
                };
                if !same || status != "PRESENT" {
                    return Err(format!(
                        "{feature} of {entity} is {value}, {status}; wanted {wanted:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}

fn list(out: &mut Vec<u8>, entities: &[u64], write: impl Fn(&mut Vec<u8>, u64)) {
    for (index, &entity) in entities.iter().enumerate() {
        out.push(if index == 0 { b'[' } else { b',' });
        write(out, entity);
    }
    out.push(b']');
}

/// The beginning of an answer, for a message.
fn start(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(dialect: Dialect) -> Workload {
        Workload {
            dialect,
            service: "s".to_owned(),
            features: vec!["f0".to_owned(), "i0".to_owned()],
            amounts: true,
            host: "h".to_owned(),
        }
    }

    #[test]
    fn bodies_are_json_of_each_dialect() {
        let (mut body, mut out) = (Vec::new(), Vec::new());
        workload(Dialect::Unskew).write(&[1, 2], &mut body, &mut out);
        assert_eq!(
            String::from_utf8_lossy(&body),
            r#"{"feature_service":"s","entities":{"customer_id":[1,2]},"request":{"amount":[0.25,0.5]}}"#
        );
        assert!(out.ends_with(&body) && out.starts_with(b"POST /online HTTP/1.1\r\n"));
        workload(Dialect::Feast).write(&[4], &mut body, &mut out);
        assert_eq!(
            String::from_utf8_lossy(&body),
            r#"{"feature_service":"s","entities":{"customer_id":[4],"amount":[1.0]}}"#
        );
    }

    #[test]
    fn a_wrong_value_is_seen() {
        let right = r#"{"features":{"f0":[31.0],"i0":[91]},"statuses":{"f0":["PRESENT"],"i0":["PRESENT"]}}"#;
        let workload = workload(Dialect::Unskew);
        assert_eq!(workload.check(&[7], right.as_bytes()), Ok(()));
        for (from, to) in [
            ("31.0", "31.5"),
            ("91", "null"),
            (r#""PRESENT"],"#, r#""NOT_FOUND"],"#),
            (r#""i0":[91]"#, r#""i0":[91,92]"#),
        ] {
            let wrong = right.replacen(from, to, 1);
            assert!(workload.check(&[7], wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_answer_of_feast_is_read_by_names() {
        let right = r#"{"metadata":{"feature_names":["customer_id","i0","f0"]},"results":[
            {"values":[7],"statuses":["PRESENT"]},
            {"values":[91],"statuses":["PRESENT"]},
            {"values":[31.0],"statuses":["PRESENT"]}]}"#;
        let workload = workload(Dialect::Feast);
        assert_eq!(workload.check(&[7], right.as_bytes()), Ok(()));
        assert!(workload.check(&[8], right.as_bytes()).is_err());
    }
}
