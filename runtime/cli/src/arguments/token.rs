//! What can be typed after `unskew token`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use unskew_core::time;
use unskew_server::Right;

/// Arguments of `token`.
#[derive(Debug, Args)]
pub(crate) struct Token {
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

/// What to do with the tokens of a server.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token, show it once, and add its hash to the file
    New(NewToken),
    /// Show whose tokens are in the file
    List(TokensFile),
    /// Take a token out of the file: it is refused as soon as servers have read that
    Remove {
        /// The name of the token
        name: String,
        #[command(flatten)]
        file: TokensFile,
    },
}

/// Arguments of `token new`.
#[derive(Debug, Args)]
pub(crate) struct NewToken {
    /// Who will have it
    pub(crate) name: String,
    /// What it may be used for: read, write, admin; repeatable, since none includes another
    #[arg(short, long = "right", value_name = "RIGHT", required = true)]
    pub(crate) rights: Vec<Right>,
    /// The project for which it is; default: each whose server has the file
    #[arg(long, value_name = "PROJECT")]
    pub(crate) project: Option<String>,
    /// When it ends: an instant, or a span from now such as 90d; default: when it is removed
    #[arg(long, value_name = "TIME", value_parser = Expiry::parse)]
    pub(crate) expires: Option<Expiry>,
    /// The file of tokens, made if there is none; without it the entry is shown alone
    #[arg(long, value_name = "FILE", env = "UNSKEW_TOKENS")]
    pub(crate) tokens: Option<PathBuf>,
}

/// Where tokens are.
#[derive(Debug, Args)]
pub(crate) struct TokensFile {
    /// The file of tokens
    #[arg(long, value_name = "FILE", env = "UNSKEW_TOKENS")]
    pub(crate) tokens: PathBuf,
}

/// When a token ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// At an instant.
    At(i64),
    /// So long after it is made.
    After(time::Span),
}

impl Expiry {
    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(instant) = time::parse(text) {
            return Ok(Self::At(instant));
        }
        let span = time::Span::parse(text).ok().filter(|span| span.0 > 0);
        span.map(Self::After).ok_or_else(|| {
            format!("`{text}` is no time; write 2027-01-01, 2027-01-01T12:00:00Z, 12h or 90d")
        })
    }

    /// The instant, for a token that is made at the instant `now`.
    pub(crate) const fn from(self, now: i64) -> i64 {
        match self {
            Self::At(instant) => instant,
            Self::After(span) => now.saturating_add(span.0),
        }
    }
}
