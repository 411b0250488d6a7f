//! Whether an answer has the form that its path promises; `None` where a part of it is missing.

use serde_json::Value;

use super::http::Path;

/// Whether it is what was asked for.
pub(super) fn is_answer(path: Path, answer: &Value) -> Option<bool> {
    match path {
        Path::Online => online(answer),
        Path::GetOnlineFeatures => get_online_features(answer),
        Path::Delete => deleted(answer),
        Path::Push | Path::WriteToOnlineStore => pushed(path, answer),
        Path::Nothing => Some(false),
    }
}

/// As many values as statuses, and both as rows.
fn online(answer: &Value) -> Option<bool> {
    answer["plan"].as_str()?;
    let rows = answer["as_of"].as_array()?.len();
    let (features, statuses) = (
        answer["features"].as_object()?,
        answer["statuses"].as_object()?,
    );
    let mut is_right = features.keys().eq(statuses.keys());
    for (name, values) in features {
        let (values, statuses) = (values.as_array()?, statuses.get(name)?.as_array()?);
        is_right &= values.len() == rows && statuses.len() == rows;
        is_right &= are_present(values, statuses);
    }
    Some(is_right)
}

/// Only what is present has a value, and whatever is present has one.
fn are_present(values: &[Value], statuses: &[Value]) -> bool {
    let mut both = values.iter().zip(statuses);
    both.all(|(value, status)| value.is_null() != (status == "PRESENT"))
}

fn get_online_features(answer: &Value) -> Option<bool> {
    let names = answer["metadata"]["feature_names"].as_array()?;
    let results = answer["results"].as_array()?;
    let mut is_right = names.len() == results.len();
    let mut rows = None;
    for result in results {
        let [values, statuses, events] = ["values", "statuses", "event_timestamps"]
            .map(|member| result[member].as_array().map(Vec::as_slice));
        let (values, statuses, events) = (values?, statuses?, events?);
        let rows = *rows.get_or_insert(values.len());
        is_right &= [values.len(), statuses.len(), events.len()] == [rows; 3];
    }
    Some(is_right)
}

fn deleted(answer: &Value) -> Option<bool> {
    answer["view"].as_str()?;
    answer["had_values"].as_u64()?;
    let history = &answer["history"];
    Some(history.is_null() || history.is_object())
}

/// No row is counted twice.
fn pushed(path: Path, answer: &Value) -> Option<bool> {
    answer["source"].as_str()?;
    let rows = answer["rows"].as_u64()?;
    let (files, online_only) = (answer["files"].as_array()?, answer["online_only"].as_u64()?);
    let mut is_right = online_only == 0 || (online_only == rows && files.is_empty());
    is_right &= path != Path::WriteToOnlineStore || online_only == rows;
    for view in answer["views"].as_array()? {
        view["view"].as_str()?;
        let mut counted = 0;
        for count in ["written", "kept", "without_key", "not_yet"] {
            counted += view[count].as_u64()?;
        }
        is_right &= counted <= rows && view["rows"].as_u64()? == rows;
    }
    Some(is_right)
}

/// Whether it is a problem, in the form that whoever asks the path reads.
pub(super) fn is_problem(path: Path, status: u16, problem: &Value) -> Option<bool> {
    if !path.is_of_feast() {
        problem["error"]["code"].as_str()?;
        problem["error"]["message"].as_str()?;
    } else if status == 422 && problem.is_object() {
        problem["detail"][0]["msg"].as_str()?;
    } else {
        let exception: Value = serde_json::from_str(problem.as_str()?).ok()?;
        exception["class"].as_str()?;
        exception["message"].as_str()?;
    }
    Some(true)
}
