//! Bearer tokens, and the file that says who may do what.
//!
//! A token is 256 random bits, so the file keeps its SHA-256 and no more: nobody can try that many,
//! and a slow hash, as passwords need one, would cost each request milliseconds.
//!
//! ```json
//! {"tokens": [{"name": "ranker", "hash": "sha256:…", "rights": ["read"],
//!              "project": "shop", "expires": "2027-01-01T00:00:00Z"}]}
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use unskew_core::digest::Digest;
use unskew_core::{text, time};

/// What a token may be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// To ask for features.
    Read,
    /// To push rows, and to delete an entity's values.
    Write,
    /// To make the server reload.
    Admin,
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Admin];

    const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Right {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|right| right.name() == name);
        found.ok_or_else(|| {
            format!(
                "`{name}` is no right; the rights are: {}",
                text::list(Self::ALL)
            )
        })
    }
}

/// What the file says of a token: everything but the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenEntry {
    /// Who has it, for people and for the log.
    pub name: String,
    /// The SHA-256 of the token's text.
    pub hash: Digest,
    /// What it may be used for; none of the rights includes another.
    pub rights: BTreeSet<Right>,
    /// The project for which it is; `None`: any that has this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The instant from which it is no longer valid, in microseconds since 1970; in the file as
    /// RFC 3339. `None`: it is valid until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "instant")]
    pub expires: Option<i64>,
}

/// An instant as RFC 3339.
mod instant {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use unskew_core::time;

    #[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
    pub(super) fn serialize<S: Serializer>(at: &Option<i64>, to: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(micros) => to.collect_str(&time::format(*micros)),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        let parsed = text.map(|text| time::parse(&text).map_err(de::Error::custom));
        parsed.transpose()
    }
}

/// A token that was just made: shown once, and kept nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct NewToken(String);

/// What a token begins with, so that people and scanners of leaked secrets know one.
const PREFIX: &str = "unskew_";
/// The random bytes of a token.
const RANDOM: usize = 32;

impl NewToken {
    /// Makes a token of 256 random bits.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn generate() -> Result<Self, TokensError> {
        let mut random = [0; RANDOM];
        getrandom::fill(&mut random).map_err(|error| TokensError::Random(error.to_string()))?;
        Ok(Self(format!("{PREFIX}{}", text::hex(&random))))
    }

    /// The text that a client sends.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn hash(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }
}

/// It is a secret, and logs show what is printed for debugging.
impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewToken(…)")
    }
}

/// Why tokens cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokensError {
    /// The file.
    #[error("cannot {action} the tokens file `{}`: {source}", file.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// Which file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// What the file says.
    #[error(
        "the tokens file `{}` is not as it must be: {reason}; `unskew token new` writes such files",
        file.display()
    )]
    Form {
        /// Which file.
        file: PathBuf,
        /// What is wrong, with its line.
        reason: String,
    },
    /// A name that is taken.
    #[error("there is a token `{name}` already; choose another name, or remove it first")]
    Taken {
        /// The name.
        name: String,
    },
    /// A name that nobody has.
    #[error("there is no token `{name}`; there are: {}", text::list(valid))]
    Unknown {
        /// The name.
        name: String,
        /// The names that there are.
        valid: Vec<String>,
    },
    /// No random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
}

/// The tokens of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// One entry for each token.
    pub tokens: Vec<TokenEntry>,
}

/// What is known of a token that a client shows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Shown<'a> {
    /// None of the tokens.
    Unknown,
    /// A token that was valid once.
    Expired(&'a TokenEntry),
    /// A token that is valid.
    Valid(&'a TokenEntry),
}

impl Tokens {
    /// Reads a file of tokens.
    ///
    /// # Errors
    /// It cannot be read, is no JSON of this form, or names a token twice.
    pub fn read(file: &Path) -> Result<Self, TokensError> {
        Self::parse(file, &read_bytes(file)?)
    }

    pub(crate) fn parse(file: &Path, bytes: &[u8]) -> Result<Self, TokensError> {
        let wrong = |reason: String| TokensError::Form {
            file: file.to_owned(),
            reason,
        };
        let tokens: Self =
            serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        let (mut names, mut hashes) = (BTreeSet::new(), BTreeSet::new());
        for entry in &tokens.tokens {
            let name = &entry.name;
            if name.is_empty() {
                return Err(wrong("a token has an empty name".to_owned()));
            }
            if entry.rights.is_empty() {
                let rights = text::list(Right::ALL);
                return Err(wrong(format!(
                    "token `{name}` has no rights; there are: {rights}"
                )));
            }
            if !names.insert(name) {
                return Err(wrong(format!("there are two tokens `{name}`")));
            }
            if !hashes.insert(entry.hash) {
                return Err(wrong(format!("token `{name}` has the hash of another")));
            }
        }
        Ok(tokens)
    }

    /// Writes the tokens into `file`, which only its owner may read if it is new; otherwise it keeps
    /// its permissions. It has its new content at once or, after an error, its old.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, file: &Path) -> Result<(), TokensError> {
        let failed = |source| TokensError::File {
            action: "write",
            file: file.to_owned(),
            source,
        };
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        bytes.push(b'\n');
        let mut written = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        written.write_all(&bytes).map_err(failed)?;
        if let Ok(before) = std::fs::metadata(file) {
            let permissions = before.permissions();
            written
                .as_file()
                .set_permissions(permissions)
                .map_err(failed)?;
        }
        written.as_file().sync_all().map_err(failed)?;
        written.persist(file).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// Its name is taken.
    pub fn add(&mut self, entry: TokenEntry) -> Result<(), TokensError> {
        if self.tokens.iter().any(|it| it.name == entry.name) {
            return Err(TokensError::Taken { name: entry.name });
        }
        self.tokens.push(entry);
        Ok(())
    }

    /// Takes the entry called `name` out.
    ///
    /// # Errors
    /// There is none.
    pub fn remove(&mut self, name: &str) -> Result<TokenEntry, TokensError> {
        match self.tokens.iter().position(|entry| entry.name == name) {
            Some(index) => Ok(self.tokens.remove(index)),
            None => Err(TokensError::Unknown {
                name: name.to_owned(),
                valid: self.tokens.iter().map(|it| it.name.clone()).collect(),
            }),
        }
    }

    /// What is known of the token `shown` at the instant `now`.
    ///
    /// Takes the same time whichever token it is: all are compared, and each to its end.
    pub(crate) fn find(&self, shown: &[u8], now: i64) -> Shown<'_> {
        let hash = Digest::of(shown);
        let mut found = u64::MAX;
        for (index, entry) in (0_u64..).zip(&self.tokens) {
            let same: Choice = entry.hash.bytes().ct_eq(hash.bytes());
            found.conditional_assign(&index, same);
        }
        let entry = usize::try_from(found)
            .ok()
            .and_then(|at| self.tokens.get(at));
        match entry {
            None => Shown::Unknown,
            Some(entry) if entry.is_expired(now) => Shown::Expired(entry),
            Some(entry) => Shown::Valid(entry),
        }
    }
}

pub(super) fn read_bytes(file: &Path) -> Result<Vec<u8>, TokensError> {
    std::fs::read(file).map_err(|source| TokensError::File {
        action: "read",
        file: file.to_owned(),
        source,
    })
}

impl TokenEntry {
    /// Whether it is no longer valid at the instant `now`.
    pub fn is_expired(&self, now: i64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// When it ends, for a message.
    pub(crate) fn end(&self) -> String {
        self.expires.map_or_else(String::new, time::format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, token: &NewToken) -> TokenEntry {
        TokenEntry {
            name: name.to_owned(),
            hash: token.hash(),
            rights: BTreeSet::from([Right::Read]),
            project: None,
            expires: None,
        }
    }

    #[test]
    fn tokens_differ_and_are_found_by_their_text_alone() {
        let (one, other) = (NewToken::generate().unwrap(), NewToken::generate().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.text().len(), PREFIX.len() + 2 * RANDOM);
        let mut tokens = Tokens::default();
        tokens.add(entry("one", &one)).unwrap();
        tokens.add(entry("other", &other)).unwrap();
        for (token, name) in [(&one, "one"), (&other, "other")] {
            let Shown::Valid(found) = tokens.find(token.text().as_bytes(), 0) else {
                panic!("not found");
            };
            assert_eq!(found.name, name);
        }
        let hash = one.hash().to_string();
        for text in ["", "x", &one.text()[1..], &one.text().to_uppercase(), &hash] {
            assert_eq!(tokens.find(text.as_bytes(), 0), Shown::Unknown, "{text}");
        }
        assert!(!format!("{one:?}").contains(one.text()));
    }

    #[test]
    fn a_token_ends_at_its_instant() {
        let token = NewToken::generate().unwrap();
        let mut tokens = Tokens::default();
        let entry = TokenEntry {
            expires: Some(10),
            ..entry("brief", &token)
        };
        tokens.add(entry).unwrap();
        let at = |now| tokens.find(token.text().as_bytes(), now);
        assert!(matches!(at(9), Shown::Valid(_)));
        assert!(matches!(at(10), Shown::Expired(_)));
    }

    #[test]
    fn a_file_reads_back_is_its_owners_and_holds_no_token() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens.json");
        let token = NewToken::generate().unwrap();
        let mut tokens = Tokens::default();
        let entry = TokenEntry {
            rights: BTreeSet::from(Right::ALL),
            project: Some("shop".to_owned()),
            expires: Some(983_448_000_000_000),
            ..entry("all", &token)
        };
        tokens.add(entry.clone()).unwrap();
        tokens.write(&file).unwrap();
        assert_eq!(Tokens::read(&file).unwrap(), tokens);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("2001-03-01T12:00:00Z") && !text.contains(token.text()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            // The server may be another user.
            let shared = std::fs::Permissions::from_mode(0o644);
            std::fs::set_permissions(&file, shared).unwrap();
            tokens.write(&file).unwrap();
            let mode = std::fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o644);
        }
        assert!(matches!(tokens.add(entry), Err(TokensError::Taken { .. })));
        assert_eq!(tokens.remove("all").unwrap().name, "all");
        let error = tokens.remove("all").unwrap_err().to_string();
        assert!(error.contains("there is no token `all`"), "{error}");
    }

    #[test]
    fn files_of_another_form_are_refused_with_what_is_wrong() {
        let hash = format!("sha256:{}", "0".repeat(64));
        let of = |entry: &str| format!(r#"{{"tokens": [{entry}]}}"#);
        let good = format!(r#"{{"name": "a", "hash": "{hash}", "rights": ["read"]}}"#);
        let file = Path::new("tokens.json");
        assert!(Tokens::parse(file, of(&good).as_bytes()).is_ok());
        for (text, part) in [
            (String::new(), "EOF"),
            ("[]".to_owned(), "expected struct Tokens"),
            (r#"{"token": []}"#.to_owned(), "unknown field `token`"),
            (of(&good.replace("read", "raed")), "unknown variant `raed`"),
            (
                of(&good.replace("[\"read\"]", "[]")),
                "token `a` has no rights",
            ),
            (of(&good.replace("sha256:", "")), "is no digest"),
            (of(&good.replace("\"a\"", "\"\"")), "empty name"),
            (of(&format!("{good}, {good}")), "two tokens `a`"),
            (
                of(&format!("{good}, {}", good.replace("\"a\"", "\"b\""))),
                "token `b` has the hash of another",
            ),
            (
                of(&good.replace("\"rights\"", "\"expires\": \"soon\", \"rights\"")),
                "soon",
            ),
            (
                of(&good.replace("\"rights\"", "\"right\": 1, \"rights\"")),
                "unknown field `right`",
            ),
        ] {
            let error = Tokens::parse(file, text.as_bytes())
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("tokens.json") && error.contains(part),
                "{text}: {error}"
            );
        }
    }
}
