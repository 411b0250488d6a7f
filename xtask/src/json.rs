//! JSON for a reader.

/// JSON with each member of an object on its own line; lists stay on theirs.
pub(crate) fn indented(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    // Whether each value around this place is an object.
    let mut objects = Vec::new();
    let mut quoted = false;
    let mut escaped = false;
    for c in json.chars() {
        if quoted {
            text.push(c);
            quoted = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            continue;
        }
        match c {
            '"' => {
                quoted = true;
                text.push(c);
            }
            '{' | '[' => {
                objects.push(c == '{');
                text.push(c);
                if c == '{' {
                    line(&mut text, objects.len());
                }
            }
            '}' | ']' => {
                objects.pop();
                if c == '}' {
                    line(&mut text, objects.len());
                }
                text.push(c);
            }
            ',' => {
                text.push(c);
                if objects.last() == Some(&true) {
                    line(&mut text, objects.len());
                } else {
                    text.push(' ');
                }
            }
            ':' => text.push_str(": "),
            c if c.is_whitespace() => {}
            c => text.push(c),
        }
    }
    text
}

fn line(text: &mut String, depth: usize) {
    text.push('\n');
    text.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use super::indented;

    #[test]
    fn members_have_lines_and_lists_do_not() {
        let json = r#"{"a":[1, 2,null],"b":{"c":"x:\",[{\\"},"d": true}"#;
        let lines = [
            "{",
            r#"  "a": [1, 2, null],"#,
            r#"  "b": {"#,
            r#"    "c": "x:\",[{\\""#,
            "  },",
            r#"  "d": true"#,
            "}",
        ];
        assert_eq!(indented(json), lines.join("\n"));
    }
}
